package transporttest_test

import (
	"context"
	"sync"
	"testing"

	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/mem"
)

// site is what the faulty transports of one bus share.
type site struct {
	bus  *mem.Bus
	env  transports.Env
	over <-chan struct{} // closed when the test has ended, for goroutines that a fault leaves behind
	wait *sync.WaitGroup // for them
	slow chan struct{}   // holds one token: who receives
	meet chan struct{}   // two publishers meet here
	met  chan struct{}   // closed when they have
	once func()          // closes met
	mu   sync.Mutex      // guards what follows
	runs map[string]int  // by name
	lost map[string]bool // bodies
	held *transports.Message
}

func newSite(t *testing.T, bus *mem.Bus, env transports.Env) *site {
	over := make(chan struct{})
	met := make(chan struct{})
	s := &site{
		bus: bus, env: env, over: over, wait: &sync.WaitGroup{}, slow: make(chan struct{}, 1), meet: make(chan struct{}),
		met: met, once: sync.OnceFunc(func() { close(met) }), runs: make(map[string]int), lost: make(map[string]bool),
	}
	t.Cleanup(func() {
		close(over)
		s.wait.Wait()
	})
	return s
}

// run counts the Runs of a name, from 1.
func (s *site) run(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.runs[name]++
	return s.runs[name]
}

type (
	runFunc     func(ctx context.Context, subs []transports.Subscription, r transports.Receiver) error
	publishFunc func(ctx context.Context, m transports.Message) error
	receiveFunc func(ctx context.Context, m transports.Message) error
)

// hooked is a transport of which some calls are replaced.
type hooked struct {
	runs      runFunc
	publishes publishFunc
}

func (h hooked) Run(ctx context.Context, subs []transports.Subscription, r transports.Receiver) error {
	return h.runs(ctx, subs, r)
}
func (h hooked) Publish(ctx context.Context, m transports.Message) error { return h.publishes(ctx, m) }

// hookedReceiver is a receiver of which some calls are replaced.
type hookedReceiver struct {
	connected func()
	receives  receiveFunc
}

func (h hookedReceiver) Connected() { h.connected() }
func (h hookedReceiver) Receive(ctx context.Context, m transports.Message) error {
	return h.receives(ctx, m)
}

// running replaces Run.
func running(f func(s *site, name string, next runFunc) runFunc) func(*site, string) transports.Transport {
	return func(s *site, name string) transports.Transport {
		t := s.bus.Connect(name)
		return hooked{f(s, name, t.Run), t.Publish}
	}
}

// publishing replaces Publish.
func publishing(f func(s *site, next publishFunc) publishFunc) func(*site, string) transports.Transport {
	return func(s *site, name string) transports.Transport {
		t := s.bus.Connect(name)
		return hooked{t.Run, f(s, t.Publish)}
	}
}

// receiving replaces Receive.
func receiving(f func(s *site, name string, next receiveFunc) receiveFunc) func(*site, string) transports.Transport {
	return running(func(s *site, name string, next runFunc) runFunc {
		return func(ctx context.Context, subs []transports.Subscription, r transports.Receiver) error {
			return next(ctx, subs, hookedReceiver{r.Connected, f(s, name, r.Receive)})
		}
	})
}

// connecting replaces Connected.
func connecting(f func(r transports.Receiver)) func(*site, string) transports.Transport {
	return running(func(_ *site, _ string, next runFunc) runFunc {
		return func(ctx context.Context, subs []transports.Subscription, r transports.Receiver) error {
			return next(ctx, subs, hookedReceiver{func() { f(r) }, r.Receive})
		}
	})
}

// body replaces the body of what is received.
func body(f func([]byte) []byte) func(*site, string) transports.Transport {
	return receiving(func(_ *site, _ string, next receiveFunc) receiveFunc {
		return func(ctx context.Context, m transports.Message) error {
			m.Body = f(m.Body)
			return next(ctx, m)
		}
	})
}
