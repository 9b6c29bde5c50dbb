package daemon

import (
	"context"
	"errors"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/listener"
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
		for _, m := range d.conf.Modules {
			left = errors.Join(left, d.agent.Reconcile(bound, event.Module(m.Name)))
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if left == nil || bound.Err() != nil {
			return errors.Join(left, d.sent(ctx))
		}
		next, hope, err := d.nextTry(ctx)
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
		case listener.Held, listener.Quarantined, listener.Blocked, listener.Current, listener.Deaf:
			continue
		}
		if hope = true; next.IsZero() || m.Next.Before(next) {
			next = m.Next
		}
	}
	return next, hope, nil
}

// farewell is how long reports may take to be sent at the end.
const farewell = 10 * time.Second

// sent waits until no report waits any more for a transport that is connected.
func (d *Daemon) sent(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, farewell)
	defer cancel()
	for {
		all, err := d.outlets.Status(ctx)
		if err != nil {
			return err
		}
		waits := false
		for _, o := range all {
			waits = waits || o.Connected && o.Waiting > 0 && o.SendError == ""
		}
		if !waits {
			return nil
		}
		select {
		case <-time.After(shortPause):
		case <-ctx.Done():
			return nil // they stay in the outbox
		}
	}
}
