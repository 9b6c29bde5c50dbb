package transporttest_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/mem"
	"github.com/mirrorbus/mirrorbus/transports/transporttest"
)

// secret is what the harness of this test names as one.
const secret = "hunter2"

// A fault is one way in which a transport can be wrong, the check that must find it and what that check must say.
type fault struct {
	name  string
	check string
	says  string

	// open makes the faulty transport. One site is made for each bus, for what faulty transports share.
	open func(s *site, name string) transports.Transport

	// options and driver change the bus and its description. nil leaves them alone.
	options func(*mem.Options)
	driver  func(*transports.Driver)
}

// TestSuiteFindsFaults shows that each check finds what it is for: the suite is tried on transports that are each wrong in one way.
func TestSuiteFindsFaults(t *testing.T) {
	checks := make(map[string]transporttest.Check)
	unproven := make(map[string]bool)
	for _, c := range transporttest.Checks() {
		checks[c.Name] = c
		unproven[c.Name] = true
	}
	for _, f := range faults() {
		delete(unproven, f.check)
		t.Run(strings.ReplaceAll(f.name, " ", "-"), func(t *testing.T) {
			if f.check != "no goroutine left" { // that one must run alone
				t.Parallel()
			}
			c, ok := checks[f.check]
			if !ok {
				t.Fatalf("there is no check %q", f.check)
			}
			err := c.Run(t.Context(), f.harness(t))
			if err == nil || !strings.Contains(err.Error(), f.says) {
				t.Errorf("the check %q returned %v, want an error that says %q", f.check, err, f.says)
			}
		})
	}
	for name := range unproven {
		t.Errorf("no fault shows that the check %q finds anything", name)
	}
}

// TestNoFault shows that the harness of the faults, without one, passes every check: what they find is the fault.
func TestNoFault(t *testing.T) {
	good := fault{open: func(s *site, name string) transports.Transport { return s.bus.Connect(name) }}
	h := good.harness(t)
	h.Bound = 20 * time.Second
	transporttest.Run(t, h)
}

// harness makes buses on which every transport has the fault.
func (f fault) harness(t *testing.T) transporttest.Harness {
	o := mem.Options{Capabilities: mem.All()}
	o.Capabilities.MaxBody = 1000
	driver := mem.NewBus(o).Driver()
	if f.options != nil {
		f.options(&o)
	}
	if f.driver != nil {
		f.driver(&driver)
	}
	return transporttest.Harness{
		Driver: driver,
		Bound:  500 * time.Millisecond, // for how long a check waits for what a fault keeps from happening
		Start: func(_ context.Context, env transports.Env) (*transporttest.Bus, error) {
			o := o
			o.Backlog = env.Backlog
			s := newSite(t, mem.NewBus(o), env)
			return &transporttest.Bus{
				Open:    func(_ transports.Role, name string) (transports.Transport, error) { return f.open(s, name), nil },
				Stop:    func(context.Context) error { s.bus.Stop(); return nil },
				Start:   func(context.Context) error { s.bus.Start(); return nil },
				Close:   func() error { s.bus.Stop(); return nil },
				Secrets: []string{secret},
			}, nil
		},
	}
}
