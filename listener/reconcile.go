package listener

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/listener/inbox"
	"github.com/mirrorbus/mirrorbus/listener/pace"
)

// errAgain ends an action that has changed what is known: the next decision is made from that.
var errAgain = errors.New("decide again")

// Reconcile does for a module what is to be done now, until there is nothing left or something has to be waited for. The error is what is in the
// way, nil if the module is where it should be or a flip waits for its time. It is a RateError if only time is.
func (a *Agent) Reconcile(ctx context.Context, name event.Module) error {
	w, err := a.worker(name)
	if err != nil {
		return err
	}
	w.flips(ctx)
	w.batches(ctx)
	w.flips(ctx)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	v, err := w.view(ctx)
	s := v.Snapshot
	switch {
	case err != nil:
		return err
	case s.Quarantine != "":
		return fmt.Errorf("module %s: quarantined: %s", name, s.Quarantine)
	case w.held(s) != nil:
		return w.held(s)
	case s.Trouble.Kind != "":
		return fmt.Errorf("module %s: %s: %s", name, s.Trouble.Kind, s.Trouble.Error)
	}
	if act := w.pace.Decide(v); act.Limited {
		return &RateError{name, act.Why, act.At}
	}
	if s.Push.Waits() {
		return fmt.Errorf("module %s: push %d waits", name, s.Push.Asked)
	}
	return nil
}

// brokenPause is how long to wait when the stored state cannot be read or written.
const brokenPause = 10 * time.Second

// batches does all batches that are due and returns when it wants to be called again.
func (w *worker) batches(ctx context.Context) time.Time {
	w.working.Lock()
	defer w.working.Unlock()
	defer w.beside(ctx, false)
	for ctx.Err() == nil {
		w.beside(ctx, true)
		v, err := w.view(ctx)
		if err != nil {
			return w.stateBroken(ctx, err)
		}
		w.tell()
		act := w.pace.Decide(v)
		if act.Do == pace.Wait {
			if w.exportHead(ctx) {
				continue
			}
			return act.At
		}
		err = w.do(ctx, v, act)
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			err = w.unlessFlipped(ctx, act, err)
		}
		if err := w.settle(ctx, v, act, err); err != nil {
			return w.stateBroken(ctx, err)
		}
	}
	return time.Time{}
}

// unlessFlipped is the error of an action, or nil if flips have done meanwhile all that it was for. It may have undone them before it failed.
func (w *worker) unlessFlipped(ctx context.Context, act pace.Action, err error) error {
	w.flipping.Lock()
	w.redo = true
	w.flipping.Unlock()
	if act.Do != pace.Batch {
		return err
	}
	w.beside(ctx, true)
	if v, viewErr := w.view(ctx); viewErr == nil && v.Applied >= act.Through {
		return nil
	}
	return err
}

// view is what the next decision is made from.
func (w *worker) view(ctx context.Context) (pace.View, error) {
	s, err := w.a.inbox.Look(ctx, w.m.Name)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil {
		w.broken = nil
	}
	return pace.View{Snapshot: s, Now: w.a.o.Now(), Look: w.look, Looked: w.looked, LookIn: w.lookIn, Lost: w.lost}, err
}

// stateBroken notes that the stored state cannot be used now. It is kept in memory, where Status finds it, as it cannot be stored.
func (w *worker) stateBroken(ctx context.Context, err error) time.Time {
	if ctx.Err() == nil {
		w.mu.Lock()
		news := w.broken == nil || w.broken.Error() != err.Error()
		w.broken = err
		w.mu.Unlock()
		if news {
			w.log.Error("stored state cannot be used, trying again", "error", err)
		}
	}
	return w.a.o.Now().Add(brokenPause)
}

// do pays for an action and does it.
func (w *worker) do(ctx context.Context, v pace.View, act pace.Action) error {
	if err := w.pay(ctx, v, act.Costs()); err != nil {
		return err
	}
	w.log.Debug("next", "do", act.Do, "why", act.Why)
	switch act.Do {
	case pace.Look:
		return w.lookUp(ctx, v)
	case pace.Journal:
		return w.journal(ctx, v)
	case pace.Compare:
		return w.compare(ctx, v)
	case pace.Push:
		return w.pushed(ctx, v)
	}
	return w.live(ctx, v, act.Through)
}

// settle notes how an action ended. Its error is about the stored state.
func (w *worker) settle(ctx context.Context, v pace.View, act pace.Action, err error) error {
	if err == nil || errors.Is(err, errAgain) {
		if act.Do == pace.Look && v.Trouble.Kind != "" {
			return w.a.inbox.Fail(ctx, w.m.Name, inbox.Trouble{}, nil)
		}
		return nil
	}
	through, epoch := act.Through, v.Epoch
	if through == 0 {
		through = v.Top
	}
	if epoch == "" { // nothing is here: in the epoch of the head, serial 0 would be a claim to have all that a new master has
		epoch = inbox.NoEpoch
		if v.Head != nil {
			through = v.Head.Serial
		}
	}
	now := w.a.o.Now()
	t := pace.After(v.Trouble, failureOf(err, through), now, rand.Float64())
	var r *event.Report
	if pace.WorthSaying(v.Trouble, t) {
		r = w.failed(epoch, through, State(t.Kind), err, t.Next, now)
		w.log.Warn("not done", "state", t.Kind, "serial", through, "error", err, "attempts", t.Attempts, "next", t.Next)
	}
	if err := w.a.inbox.Fail(ctx, w.m.Name, t, r); err != nil {
		return err
	}
	if r != nil {
		w.a.o.Reported()
	}
	return nil
}
