package listener

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/mirrorbus/mirrorbus/internal/indexes"
	"github.com/mirrorbus/mirrorbus/listener/pace"
	"github.com/mirrorbus/mirrorbus/listener/plan"
	"github.com/mirrorbus/mirrorbus/listener/rsync"
)

// Where the upstream does not tell what has changed, everything it has is looked at, in an order that keeps the promise to readers: which indexes differ,
// and what is gone; those indexes, brought where nobody looks; all content; the indexes, put in place; what is gone, removed by name, if it is
// still gone. That reads the upstream's directories twice, as often as a push does to the mirrors that are pushed so today, and once if nothing
// has changed. What changes on the upstream meanwhile is the next push's: nothing here is done again for it, so that pushes that never stop keep no
// index from readers.

// underway are the names at the top of an upstream that say that it is being brought up to date itself, and those that say that it will be.
const (
	underway = "/Archive-Update-in-Progress-*"
	required = "/Archive-Update-Required-*"
)

// A difference of everything is what the upstream has otherwise.
type differing struct {
	indexes []string // with directories of them
	gone    []string // what is here and not there
	content int      // other things
}

// everything brings all that the upstream has or, if no more was asked for, its content.
func (w *worker) everything(ctx context.Context, v pace.View) error {
	w.begin(v.Top, v.Now)
	defer w.end()
	b := &batch{w: w, v: v, whole: true, epoch: v.Epoch, through: v.Applied, started: v.Now, confirmed: v.Push.Confirmed}
	whole, busy := v.Push.Whole(), ""
	if whole {
		var err error
		if busy, err = b.underway(ctx); err != nil {
			return err
		}
		if busy != "" && v.Push.Asked <= v.Push.ContentDone {
			return &unfinishedError{busy}
		}
	}
	if err := w.pay(ctx, v, pace.WorkPush); err != nil {
		return err
	}
	if whole && busy == "" {
		b.below = "all"
		return b.all(ctx)
	}
	err := b.content(ctx)
	if err == nil {
		err = b.passOn(ctx)
	}
	if err == nil {
		err = b.synced(ctx, false)
	}
	if err == nil && busy != "" {
		return &unfinishedError{busy}
	}
	return err
}

// passOn lets the post hook tell mirrors below of content that is here, where whoever pushed has asked for that: they are to have it before it is done.
func (b *batch) passOn(ctx context.Context) error {
	if !b.v.Push.Hops() {
		return nil
	}
	b.below = "mhop"
	if err := b.hook(ctx, b.w.m.Post, "post", nil); err != nil {
		b.w.log.Warn("hook after the first stage of a push failed", "error", err)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// underway is the file that says that the upstream is being brought up to date, "" if there is none.
func (b *batch) underway(ctx context.Context) (file string, err error) {
	j := rsync.Job{Mode: rsync.Full, Way: rsync.Survey, Filters: []string{"+ " + underway, "- *"}}
	j.Item = func(it rsync.Item) {
		if it.Op == rsync.Received && !it.Dir {
			file = it.Path
		}
	}
	err = b.stage(ctx, plan.Capture, j)
	if errors.Is(err, errors.ErrUnsupported) {
		return "", nil
	}
	return file, err
}

// all brings everything.
func (b *batch) all(ctx context.Context) error {
	d, err := b.differences(ctx)
	switch {
	case errors.Is(err, errors.ErrUnsupported): // another program's work, which knows how
		err = b.stage(ctx, "full", rsync.Job{Mode: rsync.Full, MaxDelete: b.limit(), Filters: fullFilters(b.w.m)})
	case err != nil:
		return err
	case len(d.indexes)+len(d.gone)+d.content > 0:
		err = b.change(ctx, d)
	}
	if err != nil {
		return err
	}
	return b.synced(ctx, true)
}

// change does what is to be done, between the hooks.
func (b *batch) change(ctx context.Context, d differing) error {
	if err := b.held(d); err != nil {
		return err
	}
	if err := b.hook(ctx, b.w.m.Pre, "pre", nil); err != nil {
		return err
	}
	err := b.inOrder(ctx, d)
	if hookErr := b.hook(ctx, b.w.m.Post, "post", err); hookErr != nil {
		b.w.log.Warn("hook after a push failed", "error", hookErr)
	}
	return err
}

func (b *batch) inOrder(ctx context.Context, d differing) error {
	if err := b.w.tidy(ctx); err != nil {
		return err
	}
	b.w.forget()
	if b.shown = d.indexes; len(b.shown) > 0 {
		var moving *aheadError // one that never holds still is shown as it was last read: what it names is there
		if err := b.bringAside(ctx, slices.Clone(b.shown), nil); err != nil && !errors.As(err, &moving) {
			return err
		}
	}
	if err := b.content(ctx); err != nil {
		return err
	}
	for _, r := range plan.Together(b.shown) {
		r.MaxDelete = b.limit()
		if err := b.stage(ctx, plan.Metadata, Job(r)); err != nil {
			return err
		}
	}
	if len(d.gone) > 0 {
		if err := b.stage(ctx, plan.Delete, rsync.Job{Mode: rsync.Delete, Paths: d.gone, MaxDelete: b.limit()}); err != nil {
			return err
		}
	}
	return b.putAway(ctx)
}

// differences looks through all that the upstream has.
func (b *batch) differences(ctx context.Context) (d differing, err error) {
	isIndex, err := plan.IsIndex(b.w.m.Last)
	if err != nil {
		return d, err
	}
	j := rsync.Job{Mode: rsync.Full, Way: rsync.Survey, Filters: b.filters()}
	j.Item = func(it rsync.Item) {
		switch {
		case it.Path == "":
		case it.Op == rsync.Deleted:
			d.gone = append(d.gone, strings.TrimSuffix(it.Path, "/"))
		case isIndex(it.Path, it.Dir):
			d.indexes = append(d.indexes, strings.TrimSuffix(it.Path, "/"))
		default:
			d.content++
		}
	}
	err = b.stage(ctx, plan.Capture, j)
	slices.Sort(d.indexes)
	return d, err
}

// content brings what is no index, and removes nothing but what stands in the way.
func (b *batch) content(ctx context.Context) error {
	err := b.stage(ctx, plan.Content, rsync.Job{Mode: rsync.Full, Keep: true, MaxDelete: b.limit(), Filters: slices.Concat(b.filters(), indexes.Excludes(b.w.m.Last))})
	if err != nil {
		return err
	}
	return nil
}

// filters are the rules for reading everything: without the signs of an upstream's own work, which would say of this mirror what is not so.
func (b *batch) filters() []string {
	return append([]string{"- " + underway, "- " + required}, fullFilters(b.w.m)...)
}

func (b *batch) limit() int {
	if b.confirmed {
		return rsync.Unlimited
	}
	return b.w.m.MaxDelete
}

// held is an error if more would be removed than may be without an operator's word: above a number, a share, or all there is.
func (b *batch) held(d differing) error {
	if b.confirmed || len(d.gone) == 0 {
		return nil
	}
	b.v.Entries = 0
	if _, err := b.recount(); err != nil {
		return err
	}
	limit := min(b.w.m.MaxDelete, max(plan.RatioFrom, int(min(b.w.m.MaxDeleteRatio, 1)*float64(b.v.Entries))))
	if n := len(d.gone); n > limit || int64(n) >= b.v.Entries {
		return &heldError{plan.HeldText(n, limit, b.v.Entries)}
	}
	return nil
}

// synced makes sure that all is on disk, and notes it.
func (b *batch) synced(ctx context.Context, whole bool) error {
	b.w.stage("sync")
	t, err := openTree(b.w.m.Dir, b.w.m.Links)
	if err != nil {
		return err
	}
	if err := errors.Join(t.sync(), t.close()); err != nil {
		return err
	}
	now := b.w.a.o.Now()
	if err := b.w.a.inbox.Pushed(ctx, b.w.m.Name, b.v.Push.Asked, whole, true, now); err != nil {
		return err
	}
	if whole {
		b.trace("ssh", now)
	}
	b.w.log.Info("brought what a push was about", "push", b.v.Push.Asked, "whole", whole, "files", b.done.Files, "bytes", b.done.Bytes, "deleted", b.done.Deleted)
	return nil
}
