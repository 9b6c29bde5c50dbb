package replay

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/control"
	"github.com/mirrorbus/mirrorbus/internal/filter"
	"github.com/mirrorbus/mirrorbus/listener/daemon"
	"github.com/mirrorbus/mirrorbus/trigger"
)

// A Watch is what a watcher looks at: mirrors as their readers see them, and what their daemons say.
type Watch struct {
	Master   string // tree
	Claims   string // file, see Claim.Append
	Exported string // folder .mirrorbus of the master, in the place of Claims: what was announced is what is exported. Then there are no proofs
	Hub      string // socket
	Mirrors  []Watched
}

// A Watched is one mirror.
type Watched struct {
	Name, Tree, Socket string
	Filter             []string // its subset
}

// Figures are what a watcher has done and found.
type Figures struct {
	Rounds  int // looks at all mirrors
	Indexes int // indexes read
	Named   int // files that they name, looked for
	Sums    int // of these, read and compared with their digest
	Paths   int // names compared with what they were before
	Changes int // that had changed, each covered by an announcement
	Serials int // serials that a mirror says it has
	Proofs  int // names that must be on its disk then, looked for

	Violations []string // the first hundred
}

// A watcher looks all the time.
type watcher struct {
	Figures
	claims  claims
	master  string
	mirrors []*watched
	hub     string
	rng     *rand.Rand
}

type watched struct {
	Watched
	rules    *filter.Rules
	dirs     map[string]map[string]entry // what was where, by directory
	todo     []string                    // directories still to be looked at in this turn
	turns    int
	applied  event.Serial // by its own word
	reported event.Serial // by the hub's
}

// pause is the time between two rounds: readers come often, and a watcher is not what is being tested.
const pause = 20 * time.Millisecond

// Run watches until ctx ends. It calls ready once it knows every mirror as it is; until then nothing may change.
func (w Watch) Run(ctx context.Context, ready func() error) (Figures, error) {
	x, err := newWatcher(w)
	if err != nil {
		return Figures{}, err
	}
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for known := false; ; {
		if err := x.round(ctx); err != nil && ctx.Err() == nil {
			return x.Figures, err
		}
		if !known && x.knowsAll() {
			known = true
			if err := ready(); err != nil {
				return x.Figures, err
			}
		}
		select {
		case <-ctx.Done():
			return x.Figures, nil
		case <-tick.C:
		}
	}
}

func newWatcher(w Watch) (*watcher, error) {
	x := &watcher{claims: claims{file: w.Claims, exported: w.Exported}, master: w.Master, hub: w.Hub, rng: rand.New(rand.NewPCG(1, 4))}
	for _, m := range w.Mirrors {
		rules, err := filter.Parse(m.Filter)
		if err != nil {
			return nil, fmt.Errorf("subset of %s: %w", m.Name, err)
		}
		x.mirrors = append(x.mirrors, &watched{Watched: m, rules: rules, dirs: map[string]map[string]entry{}})
	}
	return x, nil
}

func (x *watcher) knowsAll() bool {
	for _, m := range x.mirrors {
		if m.turns == 0 {
			return false
		}
	}
	return true
}

// round looks once at each mirror.
func (x *watcher) round(ctx context.Context) error {
	x.Rounds++
	if err := x.claims.read(); err != nil {
		return err
	}
	x.heard(ctx)
	for _, m := range x.mirrors {
		x.said(ctx, m)
		if err := x.look(ctx, m); err != nil {
			return fmt.Errorf("watch %s: %w", m.Name, err)
		}
	}
	return nil
}

func (x *watcher) look(ctx context.Context, m *watched) error {
	if err := x.indexes(m); err != nil {
		return err
	}
	if err := x.drift(ctx, m); err != nil {
		return err
	}
	return x.proofs(m)
}

// heard asks the hub what mirrors have reported.
func (x *watcher) heard(ctx context.Context) {
	var s trigger.Status
	if !answers(ctx, x.hub, &s) {
		return
	}
	for _, module := range s.Modules {
		for _, is := range module.Mirrors {
			for _, m := range x.mirrors {
				if m.Name == is.Mirror {
					x.advance(m, "reported", &m.reported, is.Applied)
				}
			}
		}
	}
}

// said asks a mirror's agent.
func (x *watcher) said(ctx context.Context, m *watched) {
	var s daemon.Status
	if !answers(ctx, m.Socket, &s) {
		return
	}
	for _, module := range s.Modules {
		x.advance(m, "applied", &m.applied, module.Applied)
	}
}

// advance notes a serial, which must not go back.
func (x *watcher) advance(m *watched, what string, was *event.Serial, is event.Serial) {
	x.Serials++
	if is < *was {
		x.violation("I5", m, "%s serial %d after %d", what, is, *was)
	}
	*was = max(*was, is)
}

// answers reads what a daemon says of itself; false if it does not run at the moment.
func answers(ctx context.Context, socket string, out any) bool {
	if socket == "" {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return control.NewClient(socket).Do(ctx, "GET", "/v1/status", nil, out) == nil
}

// mostViolations is how many are kept; the rest would say the same.
const mostViolations = 100

func (x *watcher) violation(invariant string, m *watched, format string, args ...any) {
	if len(x.Violations) < mostViolations {
		x.Violations = append(x.Violations, fmt.Sprintf("%s %s %s: ", time.Now().Format("15:04:05.000"), invariant, m.Name)+fmt.Sprintf(format, args...))
	}
}
