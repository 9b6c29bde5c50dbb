package transports

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"
)

// State is what Keep knows of a connection, for status.
type State struct {
	Connected bool
	Since     time.Time // when it became what Connected says
	Err       error     // why there is no connection; nil while there is one and before the first attempt has ended
	Permanent bool      // somebody must change something: Err was marked with Permanent
	Next      time.Time // when the next attempt begins; zero while connected and during an attempt
}

// KeepOptions tune Keep. The zero value is ready to use.
type KeepOptions struct {
	Log *slog.Logger // nil: nothing is logged

	// State is called with each change, one call at a time. It must not block.
	State func(State)

	// The wait before an attempt is drawn from 0 to a limit (so that those who lost the same server do not come back together). The limit is
	// Min at first and doubles up to Max. A connection that lasted Steady brings it back to Min. Defaults: 1 s, 60 s, 1 min; a Retrier has others.
	Min, Max, Steady time.Duration
}

// A Retrier is a transport that says itself how long Keep waits at most before an attempt to connect. A connection that lasted as long is steady.
type Retrier interface {
	// RetryMax is that wait; 0 leaves it to Keep.
	RetryMax() time.Duration
}

// Keep runs t again and again until ctx is done and returns context.Cause(ctx). After a Permanent error it waits o.Max: an operator may
// repair the cause at any time, on either side. It logs an error when its text changes, not each time, and one line when connected again.
func Keep(ctx context.Context, t Transport, subs []Subscription, r Receiver, o KeepOptions) error {
	k := newKeeper(r, o.withDefaults(t))
	defer k.stopSettling()
	for {
		err := t.Run(ctx, subs, k)
		if ctx.Err() != nil {
			k.ended(context.Cause(ctx))
			return context.Cause(ctx)
		}
		wait := time.NewTimer(k.lost(err))
		select {
		case <-wait.C:
			k.trying()
		case <-ctx.Done():
			wait.Stop()
			k.ended(context.Cause(ctx))
			return context.Cause(ctx)
		}
	}
}

// keeper stands between a transport and the receiver. Its fields are touched by Keep between two Runs and by Connected within one, never at
// the same time.
type keeper struct {
	Receiver
	o     KeepOptions
	pause Pause
	state State
	said  string // the last error text logged; "" after "connected"
	brief string // the last error text logged of a connection that did not last
	quiet bool   // nothing was logged yet

	// A connection that comes and goes with the same error is said once to be unsteady. From then on "connected" is logged only when one
	// has lasted.
	unsteady bool
	settling *time.Timer
	settled  chan struct{}
}

func newKeeper(r Receiver, o KeepOptions) *keeper {
	k := &keeper{Receiver: r, o: o, pause: Pause{Min: o.Min, Max: o.Max}, quiet: true}
	k.set(State{Since: time.Now()})
	return k
}

func (o KeepOptions) withDefaults(t Transport) KeepOptions {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.State == nil {
		o.State = func(State) {}
	}
	if o.Min == 0 {
		o.Min = time.Second
	}
	most := time.Minute
	if r, ok := t.(Retrier); ok && r.RetryMax() > 0 {
		most = r.RetryMax()
	}
	if o.Max == 0 {
		o.Max = most
	}
	if o.Steady == 0 {
		o.Steady = min(most, time.Minute)
	}
	return o
}

func (k *keeper) set(s State) {
	k.state = s
	k.o.State(s)
}

// Connected implements Receiver. What is connected already says so again when something may have been lost: that is for the receiver alone.
func (k *keeper) Connected() {
	if k.state.Connected {
		k.Receiver.Connected()
		return
	}
	k.set(State{Connected: true, Since: time.Now()})
	if k.unsteady {
		k.settled = make(chan struct{})
		k.settling = time.AfterFunc(k.o.Steady, func() {
			k.o.Log.Info("connected")
			close(k.settled)
		})
	} else if k.quiet || k.said != "" {
		k.o.Log.Info("connected")
		k.quiet, k.said = false, ""
	}
	k.Receiver.Connected()
}

// lost records the end of an attempt and returns how long to wait before the next one.
func (k *keeper) lost(err error) time.Duration {
	if err == nil {
		err = ErrClosed // only Checked promises an error
	}
	settled := k.stopSettling()
	was := k.state
	next := State{Since: was.Since, Err: err, Permanent: IsPermanent(err)}
	if was.Connected {
		next.Since = time.Now()
	}
	var lasted time.Duration
	if was.Connected {
		lasted = next.Since.Sub(was.Since)
	}
	steady := was.Connected && lasted >= k.o.Steady
	if steady || settled {
		k.unsteady, k.said, k.brief = false, "", ""
	}
	wait := k.pause.Lost(lasted, k.o.Steady, next.Permanent, rand.Float64())
	next.Next = time.Now().Add(wait)
	k.say(next, was.Connected && !steady)
	k.set(next)
	return wait
}

// say logs the error of s unless the log says it already. brief: a connection was lost that had hardly been made.
func (k *keeper) say(s State, brief bool) {
	text := s.Err.Error()
	switch {
	case text == k.said, k.unsteady && brief:
		return
	case brief && text == k.brief:
		k.unsteady = true
		k.o.Log.Warn("connection does not last, trying again", "error", s.Err, "next", s.Next)
	case s.Permanent:
		k.o.Log.Error("not connected, somebody must change this", "error", s.Err, "next", s.Next)
	default:
		k.o.Log.Warn("not connected, trying again", "error", s.Err, "next", s.Next)
	}
	k.said, k.quiet = text, false
	if brief {
		k.brief = text
	}
}

// trying notes that an attempt begins.
func (k *keeper) trying() {
	s := k.state
	s.Next = time.Time{}
	k.set(s)
}

// ended notes that no further attempt is made.
func (k *keeper) ended(cause error) {
	if k.state.Connected {
		k.state.Since = time.Now()
	}
	k.set(State{Since: k.state.Since, Err: cause})
}

// stopSettling stops the timer that waits for a connection to last and tells whether it had fired.
func (k *keeper) stopSettling() bool {
	if k.settling == nil {
		return false
	}
	fired := !k.settling.Stop()
	if fired {
		<-k.settled
	}
	k.settling = nil
	return fired
}
