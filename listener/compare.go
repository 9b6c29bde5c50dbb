package listener

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/envelope"
	"github.com/mirrorbus/mirrorbus/internal/failpoint"
	"github.com/mirrorbus/mirrorbus/listener/inbox"
	"github.com/mirrorbus/mirrorbus/listener/pace"
	"github.com/mirrorbus/mirrorbus/listener/plan"
	"github.com/mirrorbus/mirrorbus/listener/rsync"
)

// manifestPause is how long a new module waits before it looks again whether the upstream has a manifest.
const manifestPause = 5 * time.Second

// compare brings the tree to the upstream's head whatever it is now: by comparison with the manifest, else by an rsync of everything.
func (w *worker) compare(ctx context.Context, v pace.View) error {
	w.begin(v.Top, v.Now)
	defer w.end()
	w.stage("compare with the manifest")
	h, err := w.upstreamHead(ctx, Along{Manifest: true})
	switch {
	case errors.Is(err, errNotExported) && v.Epoch == "" && v.Head == nil && (w.m.Pushed || w.m.SyncEvery > 0):
		return w.everything(ctx, v)
	case errors.Is(err, errNotExported) && v.Epoch == "" && v.Now.Sub(v.Created) < w.a.o.Patience:
		return &laterError{manifestPause, "the upstream exports nothing yet; it may be new itself"}
	case errors.Is(err, errNotExported) && v.Head != nil:
		return w.full(ctx, v, v.Head.Head)
	case errors.Is(err, errNotExported):
		return fmt.Errorf("the upstream exports nothing and no head was heard yet, so it is not known where it stands: %w", err)
	case err != nil:
		return err
	case h.Epoch == v.Epoch && h.Serial < v.Top:
		return &behindError{at: h.Serial, want: v.Top, stale: w.staleness(h.Head)}
	case w.notFrozen(v, h.Head) != nil:
		return w.notFrozen(v, h.Head)
	case w.heldBack(ctx):
		return errAgain
	case h.Manifest.IsZero() && v.Epoch == "" && v.Now.Sub(v.Created) < w.a.o.Patience:
		return &laterError{manifestPause, "the upstream has no manifest yet; a master builds it when it is new"}
	case h.Manifest.IsZero() && w.backToJournal(h.Head, errNotExported):
		return errAgain
	case h.Manifest.IsZero():
		return w.full(ctx, v, h.Head)
	}
	if err := w.pay(ctx, v, pace.WorkManifest); err != nil {
		return err
	}
	d, err := w.m.CatchUp.Compare(ctx, h.Head, v.Epoch, v.Applied)
	if err != nil {
		return w.notCompared(ctx, v, h.Head, err)
	}
	failpoint.Here("compare.read")
	err = w.bring(ctx, v, h.Head, d)
	if unreadable(err) && len(v.Todo) > 0 { // in the journal after the manifest: what is here already need not wait for the next manifest
		w.setLost("")
	}
	return err
}

// unreadableAfter is after how many attempts a manifest that cannot be read is taken for one that is not there.
const unreadableAfter = 3

// notCompared takes another way if there is one, and the upstream's manifest cannot be had: the journal, where the manifest only was the cheaper way; else
// everything, where it is not there.
func (w *worker) notCompared(ctx context.Context, v pace.View, h event.Head, err error) error {
	missing := errors.Is(err, errNotExported)
	err = fmt.Errorf("compare with the manifest: %w", err)
	switch {
	case (missing || unreadable(err)) && w.backToJournal(h, err):
		return errAgain
	case missing || unreadable(err) && v.Trouble.Attempts >= unreadableAfter:
		return w.full(ctx, v, h)
	}
	return err
}

// maxRounds is how often a comparison takes in what was announced meanwhile, or waits for it, before it is made anew.
const maxRounds = 20

// bring applies a difference and what was announced after its manifest. What is announced while it works, which may explain why an index or content
// is not as the manifest says, is taken in without another comparison.
func (w *worker) bring(ctx context.Context, v pace.View, h event.Head, d Difference) error {
	for round := 0; ; round++ {
		b := w.wholeBatch(v, h)
		b.entries = d.Entries
		sets, err := w.since(ctx, h, d, b)
		if err != nil {
			return err
		}
		b.pending = []plan.Pending{{Serial: max(h.Serial, 1), Kind: event.Change, Set: event.Merge(sets...)}}
		if err = b.run(ctx); err == nil {
			w.setLost("")
			return nil
		}
		if round == maxRounds || !moved(err) {
			return err
		}
		next, headErr := w.movedTo(ctx, h)
		if headErr != nil {
			return errors.Join(err, headErr)
		}
		if w.heldBack(ctx) {
			return errAgain
		}
		h = next
	}
}

// moved tells whether a whole batch fell short because the upstream is not what the manifest says any more.
func moved(err error) bool {
	var ahead *aheadError
	var one *pathError
	var failed *rsync.Error
	return errors.As(err, &ahead) || errors.As(err, &one) || errors.Is(err, errNewer) ||
		errors.As(err, &failed) && (failed.Class == rsync.Partial || failed.Class == rsync.Vanished)
}

// movedTo is the upstream's head, after a moment if it is still the one before.
func (w *worker) movedTo(ctx context.Context, before event.Head) (event.Head, error) {
	h, err := w.upstreamHead(ctx, Along{})
	switch {
	case err != nil:
		return before, err
	case h.Epoch != before.Epoch, h.Serial > before.Serial && w.isFrozen(h.Head):
		return before, errAgain
	case h.Serial != before.Serial:
		return h.Head, nil
	}
	timer := time.NewTimer(pace.Brief)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	return h.Head, err
}

// pay takes from a budget what the next piece of such work costs.
func (w *worker) pay(ctx context.Context, v pace.View, kind string) error {
	left, wait := w.m.Budgets[kind].Take(v.Budgets[kind], v.Now)
	if wait > 0 {
		return &laterError{wait, "work of the kind " + kind + " is needed, and its rate is limited"}
	}
	return w.a.inbox.Spend(ctx, w.m.Name, kind, left)
}

// wholeBatch is a batch that brings the module to a head from anywhere.
func (w *worker) wholeBatch(v pace.View, h event.Head) *batch {
	confirmed := v.Confirmed > v.Applied || v.Epoch == "" && v.Push.Confirmed // of a module that is new here nothing has a serial yet
	return &batch{w: w, v: v, whole: true, epoch: h.Epoch, through: h.Serial, digest: h.Last, confirmed: confirmed}
}

// since adds what was announced after the manifest to the batch. The journal is read in as many parts as it takes.
func (w *worker) since(ctx context.Context, h event.Head, d Difference, b *batch) ([]event.PathSet, error) {
	sets := []event.PathSet{d.Set}
	skewed := pace.ClockSkew(&inbox.Head{Head: h, At: w.a.o.Now()}, w.pace.Skew) != 0
	for at := d.Serial; at < h.Serial; {
		entries, err := w.m.CatchUp.Journal(ctx, h.Epoch, at+1, h.Serial)
		if err != nil {
			return nil, fmt.Errorf("read the upstream's journal after the manifest: %w", err)
		}
		before := at
		for _, x := range entries {
			a, err := w.verify(x, h.Epoch)
			if err != nil {
				return nil, err
			}
			if a.Serial != at+1 || a.Set == nil {
				break
			}
			set, err := w.sinceOne(ctx, a, b, skewed)
			if err != nil {
				return nil, err
			}
			sets, at = append(sets, set), a.Serial
		}
		if at == before {
			return nil, &behindError{at: at, want: h.Serial, stale: w.staleness(h)}
		}
	}
	return sets, nil
}

// sinceOne takes one announcement into the batch. Its path set is empty if it is a flip that waits for its time.
func (w *worker) sinceOne(ctx context.Context, a inbox.Heard, b *batch, skewed bool) (event.PathSet, error) {
	b.rows = append(b.rows, a)
	set, err := envelope.PathSet(a.Set, a.Announcement.Set)
	if err != nil {
		return nil, err
	}
	if a.Kind == event.Flip {
		if what, _ := pace.JudgeFlip(a.Announcement, w.a.o.Now(), skewed); what != pace.FlipNow {
			b.waiting, set = append(b.waiting, a), nil
		}
	}
	if len(b.waiting) > 0 {
		_, err = w.a.inbox.Put(ctx, a, nil)
	}
	return set, err
}

// full fetches everything: the last resort, where the upstream exports no manifest. The head must have been read before.
func (w *worker) full(ctx context.Context, v pace.View, h event.Head) error {
	if err := w.pay(ctx, v, pace.WorkFull); err != nil {
		return err
	}
	w.log.Warn("fetching everything: the upstream has no manifest that can be read", "serial", h.Serial)
	_, why := pace.Distance{Gone: true}.Cheapest()
	w.caughtUp(why)
	b := w.wholeBatch(v, h)
	b.started = v.Now
	j := rsync.Job{Mode: rsync.Full, MaxDelete: w.m.MaxDelete, Filters: fullFilters(w.m)}
	if b.confirmed {
		j.MaxDelete = rsync.Unlimited
	}
	w.stage("full")
	j.Progress = w.progress
	res, err := w.m.Runner.Run(ctx, "full", j)
	b.done = res
	w.add(res)
	if err != nil {
		return err
	}
	t, err := openTree(w.m.Dir, w.m.Links)
	if err != nil {
		return err
	}
	if err := errors.Join(t.sync(), t.close()); err != nil {
		return err
	}
	if err := b.finish(ctx); err != nil {
		return err
	}
	w.setLost("")
	return nil
}
