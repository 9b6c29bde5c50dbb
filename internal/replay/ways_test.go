package replay_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/mirrorbus/mirrorbus/listener/daemon"
	"github.com/mirrorbus/mirrorbus/transports/outlet"
	"github.com/mirrorbus/mirrorbus/trigger"
)

// breaking kills the server at random moments and starts it again, until ctx ends. Afterwards it runs.
func (s server) breaking(ctx context.Context, seed uint64, every time.Duration) (kills int) {
	rng := rand.New(rand.NewPCG(seed, 4))
	for ; ; kills++ {
		select {
		case <-ctx.Done():
			return kills
		case <-time.After(time.Duration(rng.Int64N(int64(2 * every)))):
		}
		s.Kill()
		s.Start()
	}
}

// connected waits until the hub and every agent have each of the transports.
func (w *world) connected(ctx context.Context, bound time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		away := w.away(ctx)
		if len(away) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not connected within %s: %v", bound, away)
		case <-tick.C:
		}
	}
}

// away are the transports that are not connected, with whose they are.
func (w *world) away(ctx context.Context) (all []string) {
	look := func(who string, transports []outlet.Status) {
		for _, bus := range w.buses {
			if !slices.ContainsFunc(transports, func(t outlet.Status) bool { return t.Name == bus && t.Connected }) {
				all = append(all, who+" by "+bus)
			}
		}
	}
	var hub trigger.Status
	ask(ctx, w.socket(), &hub) // who does not answer has none
	look("hub", hub.Transports)
	for _, m := range w.mirrors {
		var s daemon.Status
		ask(ctx, m.socket(), &s)
		look(m.name, s.Transports)
	}
	return all
}

// back is how long a transport may take to bring something again once its server runs. Daemons wait a minute at most before they try to connect,
// and may try a little too early; of two transports it is configured that they wait for two seconds at most.
func back(bus string) time.Duration {
	if bus == "amqp" || bus == "ssh" {
		return 45 * time.Second
	}
	return 150 * time.Second
}

// ways is how soon each transport has brought something to each mirror.
type ways struct {
	*world
	began time.Time
	logs  map[string]*follower     // of the mirrors
	took  map[string]time.Duration // by mirror and transport
}

// everyWay announces something again and again until every transport has brought one of these announcements to every mirror. That a mirror has all by
// some of them says nothing of the others.
func (w *world) everyWay(ctx context.Context) error {
	if len(w.servers) == 0 {
		return nil
	}
	by := ways{w, time.Now(), map[string]*follower{}, map[string]time.Duration{}}
	for _, m := range w.mirrors {
		by.logs[m.name] = &follower{file: w.log("agent-" + m.name)}
	}
	for n := 0; !by.all(); n++ {
		if err := w.nudge(ctx, n); err != nil {
			return err
		}
		if w.whole == 0 {
			w.whole = w.said[len(w.said)-1].serial
		}
		for next := time.Now().Add(5 * time.Second); time.Now().Before(next) && !by.all(); {
			if err := errors.Join(by.look(), by.overdue()); err != nil {
				return err
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
	w.t.Logf("all servers ran again; until every mirror heard of what was announced from then on: %v", by.slowest())
	return nil
}

func (y ways) all() bool { return len(y.took) == len(y.mirrors)*len(y.buses) }

// look reads what the mirrors have logged since the last look.
func (y ways) look() error {
	for name, log := range y.logs {
		lines, err := log.more()
		if err != nil {
			return err
		}
		for _, line := range lines {
			h := heardIn(line)
			if way := name + " by " + h.bus; h.serial >= y.whole && slices.Contains(y.buses, h.bus) && y.took[way] == 0 {
				y.took[way] = time.Since(y.began)
			}
		}
	}
	return nil
}

// overdue names what has not come within its time.
func (y ways) overdue() error {
	var errs []error
	for _, bus := range y.buses {
		for _, m := range y.mirrors {
			if way := m.name + " by " + bus; y.took[way] == 0 && time.Since(y.began) > back(bus) {
				errs = append(errs, fmt.Errorf("%s: nothing within %s of when all servers ran again", way, back(bus)))
			}
		}
	}
	return errors.Join(errs...)
}

// slowest is how long the last mirror took by each transport.
func (y ways) slowest() map[string]time.Duration {
	all := map[string]time.Duration{}
	for _, bus := range y.buses {
		for _, m := range y.mirrors {
			all[bus] = max(all[bus], y.took[m.name+" by "+bus].Round(100*time.Millisecond))
		}
	}
	return all
}

// nudge announces a small change.
func (w *world) nudge(ctx context.Context, n int) error {
	dir := filepath.Join(w.tree, "ways")
	err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, fmt.Sprint(n)), fmt.Appendf(nil, "%d\n", n), 0o644))
	if err != nil {
		return err
	}
	return w.announce(ctx, "ways", []string{"r:ways"})
}
