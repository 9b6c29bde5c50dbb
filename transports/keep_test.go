package transports_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mirrorbus/mirrorbus/transports"
)

// script is a transport whose nth Run does what its nth attempt says, and then waits for the end.
type script struct {
	attempts []attempt
	begun    []time.Time
}

type attempt struct {
	connected time.Duration // how long the connection lasts; 0: none is made
	again     int           // how often Connected is called again after half of it
	err       error
}

func (s *script) Run(ctx context.Context, _ []transports.Subscription, r transports.Receiver) error {
	s.begun = append(s.begun, time.Now())
	n := len(s.begun) - 1
	if n >= len(s.attempts) {
		r.Connected()
		<-ctx.Done()
		return context.Cause(ctx)
	}
	a := s.attempts[n]
	if a.connected > 0 {
		r.Connected()
		for half := range 2 {
			select {
			case <-time.After(a.connected / 2):
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			for range a.again * (1 - half) {
				r.Connected()
			}
		}
	}
	return a.err
}

func (s *script) Publish(context.Context, transports.Message) error { return nil }

type sink struct{ connected int }

func (s *sink) Connected()                                        { s.connected++ }
func (s *sink) Receive(context.Context, transports.Message) error { return nil }

// times returns n attempts that do a.
func times(n int, a attempt) []attempt {
	var all []attempt
	for range n {
		all = append(all, a)
	}
	return all
}

// keep runs the attempts under Keep for as long as d in a bubble and returns the states and the log, one message a line.
func keep(t *testing.T, d time.Duration, s transports.Transport, o transports.KeepOptions) (states []transports.State, log []string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var buf bytes.Buffer
		o.Log = slog.New(slog.NewTextHandler(&buf, nil))
		o.State = func(s transports.State) { states = append(states, s) }
		stop := errors.New("end of test")
		ctx, cancel := context.WithTimeoutCause(t.Context(), d, stop)
		defer cancel()
		if err := transports.Keep(ctx, s, nil, &sink{}, o); !errors.Is(err, stop) {
			t.Errorf("Keep returned %v, want the cause of the end", err)
		}
		for line := range strings.Lines(buf.String()) {
			_, rest, _ := strings.Cut(line, "msg=")
			msg, _, _ := strings.Cut(rest, " next=")
			log = append(log, strings.TrimSpace(msg))
		}
	})
	return states, log
}

func TestKeepWaitsLongerEachTimeUpToTheLimit(t *testing.T) {
	refused := attempt{err: errors.New("refused")}
	limits := []time.Duration{1, 2, 4, 8, 16, 32, 60, 60}
	var longest, shortest [8]time.Duration
	for n := range 200 {
		s := &script{attempts: times(len(limits), refused)}
		keep(t, time.Hour, s, transports.KeepOptions{})
		for i := range limits {
			wait := s.begun[i+1].Sub(s.begun[i])
			longest[i] = max(longest[i], wait)
			if n == 0 || wait < shortest[i] {
				shortest[i] = wait
			}
			if limit := limits[i] * time.Second; wait < 0 || wait > limit+time.Nanosecond {
				t.Fatalf("wait %d is %v, want 0 to %v", i, wait, limit)
			}
		}
	}
	for i, limit := range limits {
		// 200 draws, none of them in the upper or the lower quarter: never.
		if limit *= time.Second; longest[i] < limit*3/4 || shortest[i] > limit/4 {
			t.Errorf("wait %d was always from %v to %v, want any up to %v", i, shortest[i], longest[i], limit)
		}
	}
}

// prompt is a script that wants to be back sooner.
type prompt struct {
	script
	most time.Duration
}

func (p *prompt) RetryMax() time.Duration { return p.most }

// A transport that says so is never away for longer than it says, and what lasted as long is steady; the caller's word is above it.
func TestKeepWaitsAsTheTransportSays(t *testing.T) {
	for name, c := range map[string]struct {
		says    time.Duration
		o       transports.KeepOptions
		longest time.Duration
	}{
		"sooner":            {4 * time.Second, transports.KeepOptions{}, 4 * time.Second},
		"later":             {5 * time.Minute, transports.KeepOptions{}, 5 * time.Minute},
		"nothing":           {0, transports.KeepOptions{}, time.Minute},
		"the caller sooner": {5 * time.Minute, transports.KeepOptions{Max: 2 * time.Second}, 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			p, lasts := &prompt{most: c.says}, min(c.longest, time.Minute)
			p.attempts = append(times(200, attempt{err: errors.New("refused")}), attempt{connected: lasts, err: transports.ErrClosed})
			checked := transports.Checked(p, transports.Capabilities{MaxBody: 1}, nil)
			keep(t, 100*time.Hour, checked, c.o)
			longest := time.Duration(0)
			for i := range 200 {
				longest = max(longest, p.begun[i+1].Sub(p.begun[i]))
			}
			if longest > c.longest || longest < c.longest*3/4 { // of 190 draws none in the upper quarter: never
				t.Errorf("the longest wait was %v, want nearly %v", longest, c.longest)
			}
			if wait := p.begun[201].Sub(p.begun[200]) - lasts; c.o.Max == 0 && wait > time.Second {
				t.Errorf("waited %v after a connection that lasted %v, want at most 1s", wait, lasts)
			}
		})
	}
}

func TestKeepStartsAfreshAfterASteadyConnection(t *testing.T) {
	refused := attempt{err: errors.New("refused")}
	s := &script{attempts: append(times(10, refused), attempt{connected: time.Minute, err: transports.ErrClosed}, refused)}
	keep(t, 2*time.Hour, s, transports.KeepOptions{})
	if wait := s.begun[11].Sub(s.begun[10]) - time.Minute; wait > time.Second {
		t.Errorf("waited %v after a connection that lasted, want at most 1s", wait)
	}
}

func TestKeepDoesNotStartAfreshAfterABriefConnection(t *testing.T) {
	brief := attempt{connected: time.Second, err: transports.ErrClosed}
	s := &script{attempts: times(200, brief)}
	keep(t, time.Hour, s, transports.KeepOptions{})
	if len(s.begun) > 190 {
		t.Errorf("%d connections in an hour, want about one in 30 s", len(s.begun))
	}
}

func TestKeepWaitsLongestAfterAPermanentError(t *testing.T) {
	s := &script{attempts: []attempt{{err: transports.Permanent(errors.New("key refused"))}}}
	states, log := keep(t, time.Hour, s, transports.KeepOptions{Max: 5 * time.Minute})
	if wait := s.begun[1].Sub(s.begun[0]); wait != 5*time.Minute {
		t.Errorf("waited %v, want 5m", wait)
	}
	if !states[1].Permanent || states[1].Next.Sub(s.begun[0]) != 5*time.Minute {
		t.Errorf("state is %+v, want a permanent error and the next attempt in 5m", states[1])
	}
	want := []string{`"not connected, somebody must change this" error="key refused"`, "connected"}
	if d := cmp.Diff(want, log); d != "" {
		t.Errorf("log (-want +got):\n%s", d)
	}
}

func TestKeepLogsWhatChanges(t *testing.T) {
	refused, unknown := errors.New("refused"), errors.New("unknown host")
	const down = `"not connected, trying again" error=`
	for name, c := range map[string]struct {
		attempts []attempt
		want     []string
	}{
		"same error": {times(50, attempt{err: refused}), []string{down + "refused", "connected"}},
		"error changes": {
			[]attempt{{err: refused}, {err: refused}, {err: unknown}, {err: unknown}, {err: refused}},
			[]string{down + "refused", down + `"unknown host"`, down + "refused", "connected"},
		},
		"same error after a steady connection": {
			times(2, attempt{connected: time.Hour, err: refused}),
			[]string{"connected", down + "refused", "connected", down + "refused", "connected"},
		},
		"comes and goes": {
			times(50, attempt{connected: time.Second, err: refused}),
			[]string{"connected", down + "refused", "connected", `"connection does not last, trying again" error=refused`, "connected"},
		},
		"comes and goes, lasts, and is lost": {
			append(times(3, attempt{connected: time.Second, err: refused}), attempt{connected: time.Hour, err: refused}),
			[]string{
				"connected", down + "refused", "connected", `"connection does not last, trying again" error=refused`,
				"connected", down + "refused", "connected",
			},
		},
		"comes and goes with a server that is away in between": {
			[]attempt{
				{connected: time.Second, err: refused}, {connected: time.Second, err: refused}, {err: unknown},
				{connected: time.Second, err: refused}, {err: unknown}, {connected: time.Second, err: refused},
			},
			[]string{
				"connected", down + "refused", "connected", `"connection does not last, trying again" error=refused`,
				down + `"unknown host"`, "connected",
			},
		},
		"no reason given": {[]attempt{{}}, []string{down + `"connection closed by the other side"`, "connected"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, log := keep(t, 24*time.Hour, &script{attempts: c.attempts}, transports.KeepOptions{})
			if d := cmp.Diff(c.want, log); d != "" {
				t.Errorf("log (-want +got):\n%s", d)
			}
		})
	}
}

// A transport says again that it is connected when something may have been lost. That is no new connection.
func TestKeepOfOneThatConnectsAgain(t *testing.T) {
	gone := errors.New("gone")
	s := &script{attempts: append(times(3, attempt{connected: time.Second, err: gone}), attempt{connected: 3 * time.Minute, again: 2, err: gone})}
	states, log := keep(t, time.Hour, s, transports.KeepOptions{})
	want := []string{"connected", `"not connected, trying again" error=gone`, "connected", `"connection does not last, trying again" error=gone`, "connected", `"not connected, trying again" error=gone`, "connected"}
	if diff := cmp.Diff(want, log); diff != "" {
		t.Error(diff)
	}
	connected := 0
	for _, s := range states {
		if s.Connected {
			connected++
		}
	}
	if connected != 5 {
		t.Errorf("it was connected %d times, want 5", connected)
	}
}

func TestKeepReportsItsState(t *testing.T) {
	refused := errors.New("refused")
	s := &script{attempts: []attempt{{err: refused}, {connected: time.Hour, err: transports.ErrClosed}}}
	states, _ := keep(t, 3*time.Hour, s, transports.KeepOptions{})
	start, connected, lost := s.begun[0], s.begun[1], s.begun[1].Add(time.Hour)
	want := []transports.State{
		{Since: start},
		{Since: start, Err: refused, Next: s.begun[1]},
		{Since: start, Err: refused}, // trying
		{Connected: true, Since: connected},
		{Since: lost, Err: transports.ErrClosed, Next: s.begun[2]},
		{Since: lost, Err: transports.ErrClosed},
		{Connected: true, Since: s.begun[2]},
		{Since: start.Add(3 * time.Hour), Err: errors.New("end of test")},
	}
	same := cmp.Comparer(func(a, b error) bool { return a == b || a != nil && b != nil && a.Error() == b.Error() })
	if d := cmp.Diff(want, states, same); d != "" {
		t.Errorf("states (-want +got):\n%s", d)
	}
}

func TestKeepEndsAtOnceWhileItWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := &script{attempts: times(1000, attempt{err: transports.Permanent(errors.New("refused"))})}
		done := make(chan error, 1)
		go func() { done <- transports.Keep(ctx, s, nil, &sink{}, transports.KeepOptions{Max: time.Hour}) }()
		synctest.Wait()
		cancel()
		synctest.Wait()
		select {
		case err := <-done:
			if !errors.Is(err, context.Canceled) {
				t.Errorf("Keep returned %v", err)
			}
		default:
			t.Error("Keep still waits after its context has ended")
		}
	})
}
