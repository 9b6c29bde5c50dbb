package listener

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/listener/plan"
	"github.com/mirrorbus/mirrorbus/listener/rsync"
)

// A reader of the mirror never sees an index that names missing content. Fetching indexes after content does not suffice: an index on the upstream
// may be newer than the batch, and name what no announcement here speaks of yet. So indexes are captured first, into a folder where nobody looks,
// and must be what the announcements of the batch say. Content is brought after that, then the captured files are put in place, then what no
// index names any more is removed.
//
// A captured index that is newer than its record lets the batch grow by the announcements that explain it, or wait for them. It does not starve a
// mirror, however fast indexes change: what was captured is a snapshot, and stays one while the announcements catch up with it. If they are already
// past it, the batch is cut to the serial after which all indexes were as captured (plan.Consistent).
//
// Content that is gone meanwhile is named by a captured index only if that index has changed since, too: the master has an index that names no
// missing content at any time, so one that is still the newest does not name what is gone. If an index above the content (see plan.Scope) has
// changed, the batch grows, and captures that anew. It would not end only where content lives for less time than a batch takes; then no order of
// steps could help.

// maxPasses is how often an index is read again because it changed while it was read.
const maxPasses = 6

// aside are the indexes that are captured. It outlives a batch: the next one may use them.
type aside struct {
	clean  bool // nothing is there from before this process
	files  map[string]rsync.Captured
	once   map[string]bool // of those, what was read once: only by the sum of its content is known which version it is
	after  event.Serial    // what was applied when they were captured
	walks  []string        // directories that were read while the files were the upstream's
	listed map[string]bool // what was to be brought from those then, nil if nobody looked
	extra  map[string]bool // what was to be removed from them then
	looks  map[looked]look // directories that were looked through for indexes
}

// A cutError says that the captured indexes belong to an earlier serial.
type cutError struct{ at event.Serial }

func (e *cutError) Error() string {
	return fmt.Sprintf("the captured indexes are those of serial %d", e.at)
}

// indexed tells whether the batch puts indexes in place.
func (b *batch) indexed() bool { return len(b.shown) > 0 && !b.blind }

// capture brings the indexes of the batch where no reader looks, and makes sure that they are as the batch says.
func (b *batch) capture(ctx context.Context) error {
	runs := b.plan.Runs(plan.Capture)
	if len(runs) == 0 {
		return nil
	}
	if err := b.w.tidy(ctx); err != nil {
		return err
	}
	t, err := openTree(b.w.m.Dir, b.w.m.Links)
	if err != nil {
		return err
	}
	defer t.close() //nolint:errcheck // only read from
	b.shown = slices.Clone(b.plan.Indexes)
	for _, r := range runs {
		if r.Way == plan.Survey {
			if err := b.lookThrough(ctx, r); err != nil {
				return err
			}
		}
	}
	b.keep()
	if err := b.told(t); err != nil {
		return err
	}
	slices.Sort(b.shown)
	b.shown = slices.Compact(b.shown)
	records := b.indexRecords()
	want := b.wanted(t, records)
	if len(b.w.aside.files) > 0 && b.w.aside.after == b.v.Applied && !b.whole { // the announcements may have caught up with what is here
		if at, err := b.consistent(t); err != nil {
			return err
		} else if at > b.v.Applied && at < b.through {
			return &cutError{at}
		}
	}
	if err := b.bringAside(ctx, want, records); err != nil || b.blind {
		return err
	}
	if b.w.careful == b.v.Applied+1 && len(b.plan.Spans) > 0 && len(b.shown) > 0 {
		if err := b.list(ctx, records); err != nil {
			return err
		}
	}
	return b.agreed(ctx, t, records)
}

// keep adds what was captured of directories that are read as a whole, though the upstream may have replaced it since: an index that is kept may name
// it.
func (b *batch) keep() {
	for p, c := range b.w.aside.files {
		if b.w.aside.after == b.v.Applied && !c.Info.IsDir() && b.plan.Spanned(p) && b.leaves(p) {
			b.shown = append(b.shown, p)
		}
	}
}

// wanted are the indexes to be captured anew. Directories always are, and those above an index that is kept: it is put in place with the attributes
// that they have now.
func (b *batch) wanted(t *tree, records map[string]event.Record) (want []string) {
	for _, p := range b.shown {
		r, stated := records[p]
		c, held := b.w.aside.files[p]
		switch {
		case !held || c.Info.IsDir() || stated && !b.agrees(t, r) || !stated && b.w.aside.after != b.v.Applied:
			want = append(want, p)
		case parentOf(p) != "":
			want = append(want, parentOf(p))
		}
	}
	slices.Sort(want)
	return slices.Compact(want)
}

// list finds out what is in the directories that are read as a whole while the captured indexes are the upstream's: all that they name of it. It
// costs another reading, so it is done only after an index that changed while content came made a batch grow.
func (b *batch) list(ctx context.Context, records map[string]event.Record) error {
	var runs []plan.Run
	var walks []string
	for _, r := range b.plan.Runs(plan.Content) {
		if r.Mode == plan.Level || r.Mode == plan.Recursive {
			r.Way = plan.Survey
			runs, walks = append(runs, r), append(walks, r.Paths...)
		}
	}
	if b.w.aside.listed != nil && slices.Equal(walks, b.w.aside.walks) {
		return nil
	}
	for range maxPasses {
		listed := map[string]bool{}
		for _, r := range runs {
			j := Job(r)
			j.Item = func(it rsync.Item) { listed[it.Path] = listed[it.Path] || it.Op == rsync.Received }
			if err := b.stage(ctx, plan.Capture, j); err != nil {
				return b.unready(ctx, err)
			}
		}
		extra := map[string]bool{}
		for _, r := range b.plan.Runs(plan.Delete) {
			if r.Way != plan.Survey {
				continue
			}
			names, err := b.survey(ctx, r)
			if err != nil {
				return b.unready(ctx, err)
			}
			for _, p := range names {
				extra[p] = true
			}
		}
		b.w.aside.walks, b.w.aside.listed, b.w.aside.extra = walks, listed, extra
		changed, err := b.peek(ctx)
		if err != nil || len(changed) == 0 {
			return err
		}
		if err := b.bringAside(ctx, changed, records); err != nil {
			return err
		}
	}
	return b.unready(ctx, &aheadError{b.shown[0], "changes while directories are read"})
}

// tidy empties the folder of what is captured, once for each process.
func (w *worker) tidy(ctx context.Context) error {
	if w.aside.clean {
		return nil
	}
	_, err := w.m.Runner.Run(ctx, string(plan.Capture), rsync.Job{Mode: rsync.Discard})
	w.aside = aside{clean: err == nil, files: map[string]rsync.Captured{}, once: map[string]bool{}, looks: map[looked]look{}}
	return err
}

// putAway forgets what was captured.
func (b *batch) putAway(ctx context.Context) error {
	if !b.indexed() {
		return nil
	}
	b.w.aside.clean = false
	return b.w.tidy(ctx)
}

// indexRecords are the records of what is to be captured, by path.
func (b *batch) indexRecords() map[string]event.Record {
	stated := map[string]event.Record{}
	for _, p := range b.shown {
		stated[p] = event.Record{}
	}
	for _, r := range b.plan.Expect {
		if _, ok := stated[r.Path]; ok && r.Op != event.Gone {
			stated[r.Path] = r
		}
	}
	for p, r := range stated {
		if r.Path == "" {
			delete(stated, p)
		}
	}
	return stated
}

// bringAside captures the wanted indexes. rsync takes size and time of a file first and reads it later, so what was brought is looked at again until it
// holds still: else an index could pass for the older one it replaced. Of one whose content is announced that need not be: it is the version with
// that content, or none. So it has to hold still for much less time.
func (b *batch) bringAside(ctx context.Context, want []string, records map[string]event.Record) error {
	for pass := 0; len(want) > 0; pass++ {
		if pass == maxPasses {
			for _, p := range want { // what was read may be newer than it seems
				delete(b.w.aside.files, p)
			}
			return b.unready(ctx, &aheadError{want[0], "changes while it is read"})
		}
		var changed []string
		j := rsync.Job{Mode: rsync.Index, Way: rsync.Aside, Paths: want, Sums: func(p string) bool { return !records[p].Sum.IsZero() }}
		j.Item = func(it rsync.Item) {
			if it.Op == rsync.Received && !it.Dir {
				changed = append(changed, it.Path)
			}
		}
		j.Progress = b.w.progress
		b.w.stage(string(plan.Capture))
		for _, p := range want {
			delete(b.w.aside.files, p)
			delete(b.w.aside.once, p)
		}
		res, err := b.rsync(ctx, plan.Capture, j)
		if errors.Is(err, errors.ErrUnsupported) {
			b.blind = true
			return nil
		}
		for _, c := range res.Captured {
			b.w.aside.files[c.Path] = c
		}
		if b.w.aside.after = b.v.Applied; len(changed) > 0 {
			b.w.aside.listed = nil
		}
		if err != nil {
			b.w.lose(err)
			return b.unready(ctx, err)
		}
		want = slices.DeleteFunc(changed, func(p string) bool {
			b.w.aside.once[p] = !b.w.aside.files[p].Sum.IsZero()
			return b.w.aside.once[p]
		})
	}
	return nil
}

// lose forgets what was captured in directories that the upstream no longer has: kept, they would be asked for again and again.
func (w *worker) lose(err error) {
	var failed *rsync.Error
	if !errors.As(err, &failed) {
		return
	}
	for _, gone := range failed.Paths {
		maps.DeleteFunc(w.aside.files, func(p string, _ rsync.Captured) bool { return event.Under(gone.Path, p) })
		maps.DeleteFunc(w.aside.looks, func(at looked, l look) bool {
			return slices.ContainsFunc(l.indexes, func(p string) bool { return p == gone.Path || event.Under(gone.Path, p) })
		})
	}
}

// metadata are the runs that put the captured indexes in place.
func (b *batch) metadata() []plan.Run {
	captured := b.plan.Runs(plan.Capture)
	names := b.shown
	if b.blind {
		names = b.plan.Indexes
	}
	runs := plan.Together(names)
	for i := range runs {
		runs[i].MaxDelete = captured[0].MaxDelete
	}
	for _, r := range captured {
		if r.Way == plan.Survey && b.blind {
			r.Way = ""
			runs = append(runs, r)
		}
	}
	return runs
}
