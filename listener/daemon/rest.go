package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/listener"
	"github.com/mirrorbus/mirrorbus/transports/outlet"
)

// Look has every module, or only the named one, look at its upstream now.
func (d *Daemon) Look(ctx context.Context, only event.Module) error {
	for _, m := range d.conf.Modules {
		if name := event.Module(m.Name); only == "" || only == name {
			if err := d.agent.SyncNow(ctx, name); err != nil {
				return err
			}
		}
	}
	return nil
}

// shortPause is the least wait between two looks at what is left.
const shortPause = 100 * time.Millisecond

// Rest waits until nothing is left that this mirror can do by itself: each module is where its upstream is, or in its way is something that only a
// person can mend. One that has to try again is waited for until limit has passed. The error tells what is left. What is to be reported has been sent
// then, as far as somebody takes it.
func (d *Daemon) Rest(ctx context.Context, limit time.Duration) error {
	bound, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		var left error
		var due time.Time // when the first is allowed to go on
		for _, m := range d.conf.Modules {
			err := d.agent.Reconcile(bound, event.Module(m.Name))
			var rate *listener.RateError
			if errors.As(err, &rate) && (due.IsZero() || rate.At.Before(due)) {
				due = rate.At
			}
			left = errors.Join(left, err)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if left == nil || bound.Err() != nil {
			return errors.Join(left, d.sent(ctx))
		}
		next, hope, err := d.nextTry(ctx)
		if !due.IsZero() && (!hope || due.Before(next)) {
			next, hope = due, true
		}
		if err != nil || !hope {
			return errors.Join(left, err, d.sent(ctx))
		}
		pause := time.NewTimer(max(shortPause, time.Until(next)))
		select {
		case <-pause.C:
		case <-bound.Done():
			pause.Stop()
		}
	}
}

// nextTry is when the first module is tried again, and whether any is without a person.
func (d *Daemon) nextTry(ctx context.Context) (next time.Time, hope bool, err error) {
	st, err := d.agent.Status(ctx)
	if err != nil {
		return next, false, err
	}
	for _, m := range st.Modules {
		switch m.State {
		case listener.Held, listener.Quarantined, listener.Blocked, listener.Current, listener.Deaf, listener.Stale, listener.Composing:
			continue
		}
		if hope = true; next.IsZero() || m.Next.Before(next) {
			next = m.Next
		}
	}
	return next, hope, nil
}

// Fresh is an error if the upstream of a module, or of the named one, is out of date: then nobody can tell whether there is news.
func (d *Daemon) Fresh(ctx context.Context, only event.Module) error {
	st, err := d.agent.Status(ctx)
	if err != nil {
		return err
	}
	for _, m := range st.Modules {
		if m.State == listener.Stale && (only == "" || only == m.Module) {
			err = errors.Join(err, fmt.Errorf("module %s: %s", m.Module, m.Error))
		}
	}
	return fault.With(err, fault.TryAgain, "see mirrorbus help states")
}

// farewell is how long reports may take to be sent at the end; afresh how long a transport that has just connected may take for what it could not send before.
const (
	farewell = 10 * time.Second
	afresh   = 5 * time.Second
)

// sent waits until no report waits any more for a transport that takes it.
func (d *Daemon) sent(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, farewell)
	defer cancel()
	for {
		all, err := d.outlets.Status(ctx)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(all, func(o outlet.Status) bool { return mayTake(o, time.Now()) }) {
			return nil
		}
		select {
		case <-time.After(shortPause):
		case <-ctx.Done():
			return nil // they stay in the outbox
		}
	}
}

// mayTake tells whether a transport may soon have taken what waits for it: it takes it now, or is on its first way to where it can. To connect and to log in
// often takes longer than an upstream that has nothing new.
func mayTake(o outlet.Status, now time.Time) bool {
	switch {
	case o.Waiting == 0:
		return false
	case !o.Connected:
		return !o.Called && o.Error == ""
	}
	return o.SendError == "" || now.Sub(o.Since) < afresh
}
