package listener

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/envelope"
	"github.com/mirrorbus/mirrorbus/internal/failpoint"
	"github.com/mirrorbus/mirrorbus/listener/inbox"
	"github.com/mirrorbus/mirrorbus/listener/pace"
)

// flips does all flips that are due and whose content is here, without waiting for a batch, and returns when the next one is due.
func (w *worker) flips(ctx context.Context) time.Time {
	w.flipping.Lock()
	defer w.flipping.Unlock()
	s, err := w.a.inbox.Look(ctx, w.m.Name)
	if err != nil {
		return w.stateBroken(ctx, err)
	}
	if s.Quarantine != "" || s.Epoch == "" || len(s.Flips) == 0 {
		return time.Time{}
	}
	t, err := openTree(w.m.Dir, w.m.Links)
	if err != nil {
		w.log.Warn("flips wait", "error", err)
		return w.a.o.Now().Add(brokenPause)
	}
	defer t.close() //nolint:errcheck // opened to look
	var next time.Time
	for _, f := range s.Flips {
		at, err := w.flip(ctx, t, s, f)
		if err != nil && ctx.Err() == nil {
			w.log.Warn("flip waits for its turn", "serial", f.Serial, "error", err)
		}
		if !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	return next
}

// flip does one flip if it may be done now. The time is when it may be, if that is what it waits for.
func (w *worker) flip(ctx context.Context, t *tree, s inbox.Snapshot, h inbox.Heard) (time.Time, error) {
	now := w.a.o.Now()
	what, at := pace.JudgeFlip(h.Announcement, now, pace.ClockSkew(s.Head, w.pace.Skew) != 0)
	if what == pace.FlipExpired {
		return time.Time{}, w.flipDone(ctx, s, h, event.Skipped, now, fmt.Sprintf("expired at %s", at.UTC().Format(time.RFC3339)))
	}
	if h.Set == nil || s.Through < h.Serial {
		return time.Time{}, nil // what comes before it is not known: it waits for its turn
	}
	set, err := envelope.PathSet(h.Set, h.Announcement.Set)
	if err != nil {
		return time.Time{}, err
	}
	left := without(set, h.Overtaken)
	if what == pace.FlipNow {
		if left, err = w.left(ctx, h, set); err != nil {
			return time.Time{}, err
		}
	}
	if len(left) == 0 {
		return time.Time{}, w.flipDone(ctx, s, h, event.Skipped, now, "called off: what was announced later speaks of all its paths")
	}
	f, err := t.prepareFlip(left, w.m.Rules, w.m.mask())
	if err != nil {
		return time.Time{}, err
	}
	if len(f.own) == 0 {
		return time.Time{}, w.flipDone(ctx, s, h, event.Skipped, now, "")
	}
	if f.absent != nil {
		return time.Time{}, nil
	}
	if touched, err := w.touched(ctx, s, h, f.own); err != nil || touched {
		return time.Time{}, err
	}
	if what == pace.FlipWaits {
		return at, w.flipReady(ctx, h)
	}
	failpoint.Here("flip.before")
	if err := t.applyFlip(f.change, w.m.mask()); err != nil {
		return time.Time{}, err
	}
	failpoint.Here("flip.changed")
	if err := t.keep(f.change); err != nil {
		return time.Time{}, err
	}
	failpoint.Here("flip.synced")
	return time.Time{}, w.flipDone(ctx, s, h, event.Applied, now, "")
}

// touched tells whether an announcement before h that is not done speaks of what h flips, or of something in it: then the flip would show what is
// not complete.
func (w *worker) touched(ctx context.Context, s inbox.Snapshot, h inbox.Heard, own []event.Record) (bool, error) {
	if len(s.Todo) == 0 || s.Todo[0].Serial >= h.Serial {
		return false, nil
	}
	before, err := w.a.inbox.Batch(ctx, w.m.Name, h.Serial-1, maxBatch)
	if err != nil {
		return false, err
	}
	for _, b := range before {
		if b.Kind == event.Flip {
			continue
		}
		if b.Set == nil {
			return true, nil
		}
		set, err := envelope.PathSet(b.Set, b.Announcement.Set)
		if err != nil {
			return false, err
		}
		if overlap(set, own) {
			return true, nil
		}
	}
	return false, nil
}

// overlap tells whether a record of set is about a path of own, about something below one, or spans one.
func overlap(set event.PathSet, own []event.Record) bool {
	for _, r := range set {
		for _, o := range own {
			if r.Path == o.Path || event.Under(o.Path, r.Path) || r.Spans() && event.Under(r.Path, o.Path) {
				return true
			}
		}
	}
	return false
}

// keep makes flipped permissions durable. Of few inodes each is synced by itself, which does not wait for what a batch is writing.
func (t *tree) keep(records []event.Record) error {
	if len(records) > 100 {
		return t.sync()
	}
	for _, r := range records {
		if err := t.fsync(r.Path); err != nil {
			return t.sync()
		}
	}
	return nil
}

func (w *worker) flipReady(ctx context.Context, h inbox.Heard) error {
	if h.Ready {
		return nil
	}
	r := event.Report{Module: h.Module, Epoch: h.Epoch, Serial: h.Serial, Outcome: event.Ready, Via: h.Via}
	if err := w.a.inbox.Ready(ctx, h, r); err != nil {
		return err
	}
	w.log.Info("flip is ready", "serial", h.Serial)
	w.a.o.Reported()
	return nil
}

// flipDone notes a flip as done. s tells of those that wait.
func (w *worker) flipDone(ctx context.Context, s inbox.Snapshot, h inbox.Heard, o event.Outcome, started time.Time, why string) error {
	now := w.a.o.Now()
	r := event.Report{
		Module: h.Module, Epoch: h.Epoch, Serial: h.Serial, Outcome: o, Started: started, Took: now.Sub(started), Heard: h.At.Sub(h.Announcement.At),
		Via: h.Via, Error: why,
	}
	over, err := overtaken(s.Flips, []inbox.Heard{h}) // also by one that has expired
	if err != nil {
		return err
	}
	if err := w.a.inbox.Flip(ctx, h, w.busy, now, r, over); err != nil {
		return err
	}
	w.redo = w.redo || w.busy
	w.log.Info("flip", "serial", h.Serial, "outcome", o, "why", why)
	w.a.o.Reported()
	w.exportEntries(ctx, h)
	token(w.wake)
	if len(over) > 0 {
		token(w.wakeFlips) // to leave those that it called off
	}
	return nil
}

// A batch copies permissions from the upstream, which may not have flipped yet. So flips that are done while one runs stay among the flipped, to be
// done again before their serial counts as applied: when the batch is checked, or by beside after it has failed, also if the agent was killed on the
// way.

// beside begins or ends the time in which flips are done beside other work. It does again what that work may have undone.
func (w *worker) beside(ctx context.Context, busy bool) {
	w.flipping.Lock()
	defer w.flipping.Unlock()
	if w.busy = busy; !w.redo {
		return
	}
	if err := w.again(ctx); err != nil && ctx.Err() == nil {
		w.log.Warn("flips are not made sure of", "error", err)
		return
	}
	w.redo = false
}

func (w *worker) again(ctx context.Context) error {
	t, err := openTree(w.m.Dir, w.m.Links)
	if err != nil {
		return err
	}
	defer t.close() //nolint:errcheck // what was changed is synced
	if _, err := w.reassert(ctx, t); err != nil {
		return err
	}
	moved, err := w.a.inbox.Advance(ctx, w.m.Name, w.a.o.Now())
	if moved {
		w.a.o.Reported()
		w.headDue.Store(true)
		token(w.wake)
	}
	return err
}

// reassert does again what flips did that stay or were ahead of their turn, and what a batch may have undone. It returns their records by path.
func (w *worker) reassert(ctx context.Context, t *tree) (map[string]event.Record, error) {
	rows, err := w.a.inbox.Flipped(ctx, w.m.Name)
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	flipped := map[string]event.Record{}
	for _, h := range slices.Backward(rows) { // of two that speak of one path the later one counts
		if h.Set == nil {
			continue // an expired one, or nothing of it is ours
		}
		set, err := envelope.PathSet(h.Set, h.Announcement.Set)
		if err != nil {
			return nil, err
		}
		if set, err = w.left(ctx, h, set); err != nil {
			return nil, err
		}
		set = slices.DeleteFunc(set, func(r event.Record) bool { _, newer := flipped[r.Path]; return newer })
		f, err := t.prepareFlip(set, w.m.Rules, w.m.mask())
		if err != nil {
			return nil, err
		}
		if err := t.applyFlip(f.change, w.m.mask()); err != nil {
			return nil, err
		}
		if err := t.keep(f.change); err != nil {
			return nil, err
		}
		for _, r := range f.own {
			flipped[r.Path] = r
		}
	}
	return flipped, nil
}
