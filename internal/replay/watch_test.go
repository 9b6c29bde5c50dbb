package replay_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/listener"
	"github.com/mirrorbus/mirrorbus/listener/daemon"
	"github.com/mirrorbus/mirrorbus/trigger"
)

// watch looks at every agent and at the hub until ctx ends: applied serials never go back, and none is above what was announced.
func (w *world) watch(ctx context.Context) {
	agents, reported := map[string]event.Serial{}, map[string]event.Serial{}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		for _, m := range w.mirrors {
			var s daemon.Status
			if !ask(ctx, m.socket(), &s) {
				continue
			}
			for _, st := range s.Modules {
				w.advance(agents, m.name, "is at", st.Applied)
				w.progress(m, st)
				if st.State == "quarantined" || st.State == "held" {
					w.fault("agent %s is %s: %s %s", m.name, st.State, st.Error, st.Path)
				}
			}
		}
		var s trigger.Status
		if ask(ctx, w.socket(), &s) && len(s.Modules) == 1 {
			for _, m := range s.Modules[0].Mirrors {
				w.advance(reported, m.Mirror, "reports", m.Applied)
				if m.State == trigger.Diverged {
					w.fault("%s has diverged by the hub's word", m.Mirror)
				}
			}
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// progress keeps how long at most a mirror had something to do and nothing to show for it, and why by its own word.
func (w *world) progress(m *mirror, s listener.ModuleStatus) {
	now := time.Now()
	if s.Applied != m.seen || s.Applied >= s.Heard {
		m.seen, m.since, m.spent = s.Applied, now, map[string]time.Duration{}
	}
	stage := string(s.State)
	if s.Running != nil {
		stage = s.Running.Stage
	}
	m.spent[stage] += now.Sub(m.looked)
	m.looked = now
	if now.Sub(m.since) > m.stuck {
		m.stuck, m.why = now.Sub(m.since), fmt.Sprintf("at serial %d of %d, %s %s; time spent on %v", s.Applied, s.Heard, s.State, s.Error, m.spent)
	}
}

func (w *world) advance(last map[string]event.Serial, who, what string, serial event.Serial) {
	bound := event.Serial(w.bound.Load()) // read after serial was
	if serial < last[who] {
		w.fault("%s %s serial %d after %d", who, what, serial, last[who])
	}
	if serial > bound {
		w.fault("%s %s serial %d and at most %d was announced", who, what, serial, bound)
	}
	last[who] = max(last[who], serial)
}

// killing ends daemons at random moments with SIGKILL until ctx ends, about one in every such time.
func (w *world) killing(ctx context.Context, seed uint64, every time.Duration) map[string]int {
	rng := rand.New(rand.NewPCG(seed, 2))
	all := []*supervised{w.hub}
	for _, m := range w.mirrors {
		all = append(all, m.agent)
	}
	kills := map[string]int{}
	for {
		select {
		case <-ctx.Done():
			return kills
		case <-time.After(time.Duration(rng.Int64N(int64(2 * every)))):
		}
		d := all[rng.IntN(len(all))]
		if err := d.kill(time.Duration(rng.IntN(1500)) * time.Millisecond); err != nil {
			w.fault("kill %s: %v", d.name, err)
		}
		kills[d.name]++
	}
}
