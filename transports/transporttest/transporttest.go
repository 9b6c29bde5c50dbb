// Package transporttest checks that a transport keeps the promises of package transports.
//
// A transport's test is a Harness, which starts the real server, and one call of Run. The checks are also a list of named functions that return
// errors, see Checks, so that the suite itself can be tried on transports known to be wrong.
//
// The suite waits for what must happen, within Harness.Bound, and never sleeps. That something does not happen (a repeat, a message on
// another topic) is judged after a marker that was sent later has arrived.
package transporttest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pelletier/go-toml/v2"

	"github.com/mirrorbus/mirrorbus/transports"
)

// A Harness makes the transport under test.
type Harness struct {
	Driver transports.Driver

	// Start starts a fresh server and returns the way to it. env holds the Log and the Backlog to lend to transports; the harness adds the rest.
	Start func(ctx context.Context, env transports.Env) (*Bus, error)

	// MasterServes: there is no server between the two sides, a master's Run is the server. The checks then have only one master.
	MasterServes bool

	// Called: a mirror waits to be called, so its Run does not end when the master goes, and it is connected again when it is called again.
	Called bool

	// Wary: a Run says again that it is connected whenever something may have been lost, as when the master comes to where the mirror is already.
	Wary bool

	// Connectionless: Publish needs no connection (a mail is handed to the queue of the host).
	Connectionless bool

	// Decode fills a configuration the way the program does. nil means strict TOML.
	Decode func(text string, config any) error

	// Bound is how long anything may take, 20 s if zero. It only says when to give up.
	Bound time.Duration

	// Bulk is the number of messages in checks that send many, 100 if zero.
	Bulk int
}

// A Bus is a running server and the way to open transports on it.
type Bus struct {
	// Open returns the transport of the named process. The best is what Registry.Open makes, as that is what a process runs.
	Open func(role transports.Role, name string) (transports.Transport, error)

	// Stop takes the server away and Start brings it back at the same address with what it had stored. Both are nil if MasterServes or if
	// it cannot be done.
	Stop, Start func(ctx context.Context) error

	// Close ends the server. It may be nil.
	Close func() error

	// Secrets must appear in no error and no log: passwords, private keys.
	Secrets []string
}

// A Check tries one promise.
type Check struct {
	Name string

	// Needs tells whether a transport with these capabilities promises this. nil: every one does.
	Needs func(transports.Capabilities) bool

	// Run returns nil if the promise is kept, ErrNotApplicable if the harness cannot try it, and else what was wrong.
	Run func(ctx context.Context, h Harness) error
}

// ErrNotApplicable is returned by a Check that the harness gives no means to try.
var ErrNotApplicable = errors.New("not applicable")

// Checks lists all checks.
func Checks() []Check {
	durable := func(c transports.Capabilities) bool { return c.Durable }
	return []Check{
		{"body unchanged", nil, in(bodyUnchanged)},
		{"largest body arrives and one byte more is refused", nil, in(largestBody)},
		{"topics apart", nil, in(topicsApart)},
		{"every subscriber gets it", nil, in(everySubscriber)},
		{"reports reach the master", func(c transports.Capabilities) bool { return !c.Polled }, in(reports)},
		{"nothing goes back where others only look", func(c transports.Capabilities) bool { return c.Polled }, in(nothingBack)},
		{"reports reach every master", func(c transports.Capabilities) bool { return c.Broadcast }, in(broadcast)},
		{"order kept", func(c transports.Capabilities) bool { return c.Ordered }, in(order)},
		{"taken once while healthy", nil, in(once)},
		{"concurrent publish", nil, in(concurrentPublish)},
		{"slow receiver does not hold others", nil, in(slowReceiver)},
		{"connected once before receive", nil, in(connectedOnce)},
		{"publish without a connection", nil, in(notConnected)},
		{"cancel ends run", nil, in(cancelEndsRun)},
		{"cancel ends run that waits for its receiver", nil, in(cancelEndsReceive)},
		{"no goroutine left", nil, in(noGoroutineLeft)},
		{"runs again", nil, in(runsAgain)},
		{"refusal ends run", nil, in(refusalEndsRun)},
		{"refused is redelivered", func(c transports.Capabilities) bool { return c.Redelivers }, in(redelivered)},
		{"away and back", durable, in(awayAndBack)},
		{"resumes from have", func(c transports.Capabilities) bool { return c.Resumes }, in(resumes)},
		{"server gone and back", nil, in(serverGone)},
		{"configuration refuses an unknown key", nil, unknownKey},
		{"no secret in errors or log", nil, in(noSecret)},
	}
}

// Run runs the checks that the transport's capabilities call for. It looks at all goroutines of the process, so it must not run beside other
// tests (no t.Parallel).
func Run(t *testing.T, h Harness) {
	caps := h.Driver.Capabilities(transports.Mirror)
	for _, c := range Checks() {
		t.Run(strings.ReplaceAll(c.Name, " ", "-"), func(t *testing.T) {
			if c.Needs != nil && !c.Needs(caps) {
				t.Skip("not promised by this transport")
			}
			err := c.Run(t.Context(), h)
			if errors.Is(err, ErrNotApplicable) {
				t.Skip(err)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
}

func (h Harness) bound() time.Duration {
	if h.Bound == 0 {
		return 20 * time.Second
	}
	return h.Bound
}

func (h Harness) bulk() int {
	if h.Bulk == 0 {
		return 100
	}
	return h.Bulk
}

// unknownKey tries the typed configuration of both sides.
func unknownKey(_ context.Context, h Harness) error {
	decode := h.Decode
	if decode == nil {
		decode = func(text string, config any) error {
			return toml.NewDecoder(strings.NewReader(text)).DisallowUnknownFields().Decode(config)
		}
	}
	sides := 0
	for _, role := range []transports.Role{transports.Master, transports.Mirror} {
		if h.Driver.Config(role) == nil {
			continue
		}
		sides++
		if err := decode("", h.Driver.Config(role)); err != nil {
			return fmt.Errorf("%s: the defaults cannot be decoded over: %w", role, err)
		}
		if decode("no-such-key = 1\n", h.Driver.Config(role)) == nil {
			return fmt.Errorf("%s: the unknown key no-such-key was accepted", role)
		}
	}
	if sides == 0 {
		return errors.New("the driver has no configuration for either side")
	}
	return nil
}
