package listener

import (
	"context"
	"errors"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/listener/inbox"
	"github.com/mirrorbus/mirrorbus/listener/pace"
)

// A Size is what the index of a manifest tells before anything else of it is fetched.
type Size struct {
	Serial event.Serial // that it stands at
	Floor  event.Serial // for mirrors from this serial on it knows what was touched since
	Names  int64        // in it
	Bytes  int64        // of what is not here yet
}

// A Measurer is a CatchUp that can tell how large the manifest is that a verified head names, at the cost of its index. Without it a mirror goes by the
// manifest only if it must. The error Is export.ErrNotExported if the upstream does not have that manifest.
type Measurer interface {
	Measure(ctx context.Context, h event.Head) (Size, error)
}

// trial is how many announcements are read, in one connection, before it is asked whether there is a cheaper way to what comes after them. It is
// more than most mirrors ever miss.
const trial = 256

// takeAll takes in the announcements from a serial on, up to the upstream's head. If they are many and there is a cheaper way, or if one of them
// cannot be read at the second try, the error Is errAgain: the tree is to be compared with the manifest.
func (w *worker) takeAll(ctx context.Context, v pace.View, h *inbox.Head, from event.Serial) (news int, err error) {
	var sum taking
	decided := false
	for at := from; at <= h.Serial; {
		got, err := w.takeIn(ctx, v.Epoch, at, h.Serial)
		sum.entries, sum.news, sum.bytes = sum.entries+got.entries, sum.news+got.news, sum.bytes+got.bytes
		at += event.Serial(got.entries)
		switch {
		case unreadable(err):
			return sum.news, w.goRound(v, h, err)
		case err != nil || got.entries == 0:
			return sum.news, err
		case decided || h.Serial+1-at <= trial:
			continue
		}
		decided = true
		if err := w.climb(ctx, v, h, pace.Distance{Missed: h.Serial + 1 - at, Each: float64(sum.bytes) / float64(sum.entries)}); err != nil {
			return sum.news, err
		}
	}
	return sum.news, nil
}

// unreadable tells whether an error says that what the upstream exports is not what it should be. That is not over by itself soon.
func unreadable(err error) bool {
	return errors.Is(err, event.ErrFormat) || errors.Is(err, event.ErrRefused)
}

// goRound takes the next rung if the journal cannot be read, and was tried before. Until then, or without a manifest, that is an error.
func (w *worker) goRound(v pace.View, h *inbox.Head, err error) error {
	if v.Trouble.Attempts == 0 || h.Manifest.IsZero() {
		return err
	}
	w.log.Warn("the journal cannot be read", "error", err)
	w.forgotten("the journal cannot be read", err.Error())
	return errAgain
}

// climb decides by which way a mirror catches up that is far behind. It returns errAgain if that is not the journal.
func (w *worker) climb(ctx context.Context, v pace.View, h *inbox.Head, d pace.Distance) error {
	if err := w.measure(ctx, v, h, &d); err != nil {
		return err
	}
	rung, why := d.Cheapest()
	w.log.Info("catching up", "serial", h.Serial, "how", why)
	w.caughtUp(why)
	if rung == pace.ByJournal {
		return nil
	}
	w.mu.Lock()
	w.lost, w.chosen = why, true
	w.mu.Unlock()
	return errAgain
}

// measure adds what the manifest costs, if there is one, it can be read, and its rate allows it now: what the journal can do need not wait for that.
func (w *worker) measure(ctx context.Context, v pace.View, h *inbox.Head, d *pace.Distance) error {
	m, can := w.m.CatchUp.(Measurer)
	_, wait := w.m.Budgets[pace.WorkManifest].Take(v.Budgets[pace.WorkManifest], v.Now)
	if !can || wait > 0 || h.Manifest.IsZero() || h.Manifest == w.shunned {
		return nil
	}
	size, err := m.Measure(ctx, h.Head)
	switch {
	case errors.Is(err, errNotExported):
		return nil
	case unreadable(err):
		w.shun(h.Manifest, err)
		return nil
	case err != nil:
		return err
	case size.Serial <= v.Applied: // what is missing came after it
		return nil
	}
	d.Manifest, d.Fetch, d.Names, d.Near = true, size.Bytes, size.Names, size.Floor <= v.Applied
	d.After = h.Serial - size.Serial
	return nil
}

// shun leaves a manifest that cannot be read alone, where there is another way.
func (w *worker) shun(d event.Digest, err error) {
	w.log.Warn("the manifest cannot be used", "error", err)
	w.shunned = d
}

// backToJournal ends a comparison that was chosen for its cost and cannot be made. It returns false if there was no choice.
func (w *worker) backToJournal(h event.Head, err error) bool {
	w.mu.Lock()
	chosen := w.chosen
	w.mu.Unlock()
	if chosen {
		w.shun(h.Manifest, err)
		w.setLost("")
	}
	return chosen
}

// forgotten has the tree compared with the manifest, since the journal cannot lead on: in a few words, and in full.
func (w *worker) forgotten(short, why string) {
	w.setLost(why)
	w.caughtUp("by manifest, as " + short)
}

// caughtUp notes, for Status, by which way.
func (w *worker) caughtUp(how string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.how = how
}
