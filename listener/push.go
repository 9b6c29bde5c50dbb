package listener

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/listener/inbox"
	"github.com/mirrorbus/mirrorbus/listener/pace"
)

// A push of the kind that Debian's mirrors get says "something has changed", and not what, and is not signed. So it is a hint and no more: the upstream
// is asked what has changed and, if it cannot tell, looked through as a whole. It is stored before it is answered, and counted: one that comes
// while another is worked on is work of its own, and all that come meanwhile are one.

// ErrNotPushed is in the error of Push for a module that nobody may push so.
var ErrNotPushed = errors.New("pushes that do not say what has changed are not taken here")

// Push notes that a module is said to have changed: its content (what no index has to name yet), or all of it. It returns what AwaitPush waits for.
func (a *Agent) Push(ctx context.Context, name event.Module, o inbox.Order) (n uint64, err error) {
	w, err := a.worker(name)
	if err != nil {
		return 0, err
	}
	if !w.m.Pushed {
		return 0, fault.With(fmt.Errorf("module %s: %w", name, ErrNotPushed), fault.Config, "set push in its section")
	}
	if n, err = a.inbox.Push(ctx, name, o, a.o.Now()); err != nil {
		return 0, err
	}
	w.log.Info("told that something has changed", "push", n, "whole", o.Whole, "from", o.From)
	w.poke()
	return n, nil
}

// hopeless is the wait for the next attempt from which on nobody is kept waiting for it.
const hopeless = 2 * time.Minute

// AwaitPush waits until a push is done. The error tells that it is not, and whether it will be tried again; say is told what is in the way meanwhile, each
// thing once.
func (a *Agent) AwaitPush(ctx context.Context, name event.Module, n uint64, whole bool, say func(string) error) error {
	w, err := a.worker(name)
	if err != nil {
		return err
	}
	var upto *event.Serial // what was known of when the push was done; what comes later is not waited for
	for said := ""; ; {
		news := w.awaitNews()
		v, err := w.view(ctx)
		if err != nil {
			return err
		}
		if upto == nil && v.Push.Done(n, whole) && (v.Push.Plain || v.Epoch != "") {
			upto = &v.Top
		}
		t := v.Trouble
		state := State(t.Kind)
		switch {
		case upto != nil && (v.Push.Plain || w.has(v, *upto)):
			return nil
		case v.Quarantine != "":
			return fmt.Errorf("module %s: quarantined: %s", name, v.Quarantine)
		case state == pace.Held || state == pace.Blocked:
			return fmt.Errorf("module %s: %s: %s", name, state, t.Error)
		case t.Kind != "" && t.Next.Sub(v.Now) > hopeless:
			return fault.With(fmt.Errorf("module %s: %s: %s", name, state, t.Error), fault.TryAgain, "it is tried again by itself, see mirrorbus status")
		case t.Kind != "" && t.Error != said:
			if said = t.Error; say(fmt.Sprintf("%s: %s", state, t.Error)) != nil {
				return nil // nobody listens any more, and the work goes on
			}
		}
		select {
		case <-news:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// has tells whether everything up to a serial is applied that is not a flip which waits for its time.
func (w *worker) has(v pace.View, upto event.Serial) bool {
	next := w.pace.First(v)
	return v.Through >= upto && (next == nil || next.Serial > upto)
}

// awaitNews is closed at the next tell.
func (w *worker) awaitNews() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.news == nil {
		w.news = make(chan struct{})
	}
	return w.news
}

// tell wakes those who wait for what becomes of a push.
func (w *worker) tell() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.news != nil {
		close(w.news)
		w.news = nil
	}
}

// pushed asks the upstream what has changed. What it has announced is taken in and is work as any other; one that announces nothing is fetched whole.
func (w *worker) pushed(ctx context.Context, v pace.View) error {
	h, err := w.lead(ctx, v, following(v, v.Through+1))
	switch {
	case errors.Is(err, errNotExported):
		return w.everything(ctx, v)
	case err != nil:
		return err
	}
	if v.Epoch != "" && h.Epoch == v.Epoch && h.Serial > v.Through {
		if _, err := w.takeAll(ctx, v, h, v.Through+1); err != nil && !errors.Is(err, errAgain) {
			return err
		}
	}
	return w.a.inbox.Pushed(ctx, w.m.Name, v.Push.Asked, true, false, w.a.o.Now())
}
