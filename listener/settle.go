package listener

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/listener/pace"
	"github.com/mirrorbus/mirrorbus/listener/plan"
	"github.com/mirrorbus/mirrorbus/listener/rsync"
)

// settled makes sure, after content was brought and before anything is shown or removed, that content is complete, and finds out what is to be
// removed from directories that are read as a whole. What the upstream does not have there may be gone since the batch was made, while an index
// here names it still: then the batch grows by the announcement that says so.
func (b *batch) settled(ctx context.Context, t *tree) error {
	if b.indexed() {
		found, err := b.check(ctx, t, b.expected(b.plan.Content))
		if err != nil {
			return err
		}
		if len(found) > 0 {
			if err := b.excuseFinding(ctx, found[0]); err != nil {
				return err
			}
		}
	}
	extra, err := b.extras(ctx)
	if err != nil {
		return err
	}
	changed, err := b.peek(ctx)
	if err != nil || extra == 0 && len(changed) == 0 {
		return err
	}
	here, err := b.replaced(ctx)
	if err != nil {
		return err
	}
	later, err := b.news(ctx)
	if err != nil {
		return err
	}
	for _, p := range here {
		if !later.speaksOf(p) {
			return b.ahead(ctx, p)
		}
	}
	return b.unmoved(ctx, t, changed, later)
}

// ahead decides what comes of an index that is newer than what was captured, or than what is here, and of which nobody has said anything yet.
func (b *batch) ahead(ctx context.Context, index string) error {
	b.w.careful = b.v.Applied + 1
	return b.unready(ctx, &aheadError{index, "has changed since it was captured"})
}

// extras surveys the directories that are read as a whole and keeps what is to be removed. It returns how much that is.
func (b *batch) extras(ctx context.Context) (n int, err error) {
	isIndex, err := plan.IsIndex(b.w.m.Last)
	if err != nil {
		return 0, err
	}
	b.removed = nil
	for _, r := range b.plan.Runs(plan.Delete) {
		var names []string
		if r.Way == plan.Survey && !b.blind {
			if names, err = b.survey(ctx, r); err != nil {
				return n, err
			}
		}
		indexes := slices.DeleteFunc(slices.Clone(names), func(p string) bool { return !isIndex(p, false) && !isIndex(p, true) })
		b.removed = append(b.removed, indexes, slices.DeleteFunc(names, func(p string) bool { return isIndex(p, false) || isIndex(p, true) }))
		n += len(b.removed[len(b.removed)-1]) + len(indexes)
	}
	return n, nil
}

// maxSurveys bounds how often directories are read for one survey: each time something in them has gone away meanwhile.
const maxSurveys = 20

// survey finds what the upstream does not have of the run's directories. Those that are gone themselves, which newer announcements speak of, are left out:
// rsync says nothing of the others while one is missing.
func (b *batch) survey(ctx context.Context, r plan.Run) ([]string, error) {
	for again := 0; len(r.Paths) > 0; again++ {
		var names []string
		j := Job(r)
		j.Item = func(it rsync.Item) {
			if it.Op == rsync.Deleted {
				names = append(names, it.Path)
			}
		}
		err := b.stage(ctx, plan.Delete, j)
		if errors.Is(err, errors.ErrUnsupported) {
			b.blind = true
			return nil, nil
		}
		if err == nil {
			return names, nil
		}
		if excuse := b.excuse(ctx, err); excuse != nil || again == maxSurveys {
			return nil, cmp.Or(excuse, err)
		}
		var failed *rsync.Error
		errors.As(err, &failed) // else it would not be excused
		r.Paths = slices.DeleteFunc(slices.Clone(r.Paths), func(dir string) bool {
			return slices.ContainsFunc(failed.Paths, func(p rsync.PathError) bool { return p.Path == dir || event.Under(p.Path, dir) })
		})
	}
	return nil, nil
}

// replaced finds the indexes in directories of which something is to be removed that the upstream has replaced since they were captured, or since they were found to be
// as they are here: what is here may name what is gone there. Directories are read for that once more, since the index was replaced before.
func (b *batch) replaced(ctx context.Context) (changed []string, err error) {
	isIndex, err := plan.IsIndex(b.w.m.Last)
	if err != nil || b.blind {
		return nil, err
	}
	captured := map[string]bool{}
	for _, p := range b.shown {
		captured[p] = true
	}
	for i, r := range b.plan.Runs(plan.Delete) {
		if r.Way != plan.Survey || len(b.removed[2*i])+len(b.removed[2*i+1]) == 0 {
			continue
		}
		j := Job(r)
		j.Item = func(it rsync.Item) {
			if it.Op == rsync.Received && !it.Dir && isIndex(it.Path, false) && !captured[it.Path] {
				changed = append(changed, it.Path)
			}
		}
		if err := b.do(ctx, plan.Delete, j); err != nil {
			return nil, err
		}
	}
	return changed, nil
}

// deletes are the jobs of the delete stage's i-th run: of a survey first the removal of indexes, then that of what they named.
func (b *batch) deletes(i int, r plan.Run) (jobs []rsync.Job) {
	switch {
	case r.Way != plan.Survey:
		return []rsync.Job{Job(r)}
	case b.blind:
		r.Way = ""
		return []rsync.Job{Job(r)}
	}
	left := r.MaxDelete
	for _, names := range b.removed[2*i : 2*i+2] {
		if len(names) > 0 {
			jobs = append(jobs, rsync.Job{Mode: rsync.Remove, Paths: names, MaxDelete: left})
		}
		if left != rsync.Unlimited {
			left = max(left-len(names), 0)
		}
	}
	return jobs
}

// peek finds the captured indexes that have changed on the upstream since, where that matters: names that are brought by reading directories are
// known to be complete only if no index stopped naming one meanwhile.
func (b *batch) peek(ctx context.Context) (changed []string, err error) {
	if !b.indexed() || len(b.plan.Spans) == 0 {
		return nil, nil
	}
	j := rsync.Job{Mode: rsync.Index, Way: rsync.Peek, Paths: b.shown}
	j.Item = func(it rsync.Item) {
		if it.Op == rsync.Received && !it.Dir {
			changed = append(changed, it.Path)
		}
	}
	err = b.stage(ctx, plan.Capture, j)
	var failed *rsync.Error
	if errors.As(err, &failed) && failed.Class == rsync.Partial && failed.Omitted == 0 {
		for _, p := range failed.Paths {
			changed = append(changed, p.Path)
		}
		err = nil
	}
	return changed, err
}

// news takes in what the upstream has announced since, and tells what announcements after this batch speak of.
func (b *batch) news(ctx context.Context) (speech, error) {
	if b.w.m.CatchUp != nil && !b.whole {
		h, err := b.w.lead(ctx, b.v, Along{})
		switch {
		case errors.Is(err, errNotExported):
		case err != nil:
			return speech{}, err
		case h.Epoch != b.epoch:
			return speech{}, errAgain
		case h.Serial > b.v.Through:
			if _, err := b.w.takeIn(ctx, b.epoch, b.v.Through+1, h.Serial); err != nil {
				return speech{}, err
			}
		}
	}
	return b.later(ctx)
}

// unmoved makes sure that nothing which is gone meanwhile matters to this batch.
func (b *batch) unmoved(ctx context.Context, t *tree, changed []string, later speech) error {
	for i, names := range b.removed {
		for _, p := range names {
			if later.above[p] && !later.spans(p) { // nobody would remove the directory then
				return b.growOrLeave(ctx, p)
			}
		}
		b.removed[i] = slices.DeleteFunc(names, later.speaksOf) // who says that it is gone removes it
	}
	switch {
	case len(changed) == 0:
		return nil
	case b.w.aside.listed != nil:
		for i, names := range b.removed { // what was there when the indexes were captured they may name, and who removes it says so later
			b.removed[i] = slices.DeleteFunc(names, func(p string) bool { return !b.w.aside.extra[p] })
		}
		return b.allListed(ctx, t)
	}
	for _, p := range changed {
		if !later.speaksOf(p) {
			return b.ahead(ctx, p)
		}
	}
	for _, p := range later.gone {
		info, err := t.lstat(p)
		if err != nil {
			return err
		}
		if _, held := b.w.aside.files[p]; !held && b.plan.Touches(p) && (info == nil || info.IsDir()) {
			b.w.careful = b.v.Applied + 1
			return b.grow(ctx, p)
		}
	}
	return nil
}

// allListed makes sure that all came which was there when the indexes were captured.
func (b *batch) allListed(ctx context.Context, t *tree) error {
	for p, is := range b.w.aside.listed {
		if info, err := t.lstat(p); err != nil {
			return err
		} else if is && info == nil && !b.unsafe[p] {
			return b.grow(ctx, p)
		}
	}
	return nil
}

// grow ends the batch, to be made again with later announcements, or to be tried again if they cannot be taken in yet.
func (b *batch) grow(ctx context.Context, path string) error {
	if may, err := b.mayGrow(ctx, path); err != nil || may {
		return cmp.Or(err, errNewer)
	}
	return &pathError{path, errors.New("has changed on the upstream while an index that may name it was brought")}
}

// growOrLeave does likewise, but if the announcements cannot be taken in yet, as a flip's that waits for its time, it leaves to them to remove what they
// speak of.
func (b *batch) growOrLeave(ctx context.Context, path string) error {
	if may, err := b.mayGrow(ctx, path); err != nil || may {
		return cmp.Or(err, errNewer)
	}
	later, err := b.later(ctx)
	for i, names := range b.removed {
		b.removed[i] = slices.DeleteFunc(names, later.speaksOf)
	}
	return err
}

// mayGrow tells whether later announcements can be taken in.
func (b *batch) mayGrow(ctx context.Context, path string) (bool, error) {
	v, err := b.w.view(ctx)
	if err != nil {
		return false, err
	}
	act := b.w.pace.Decide(v)
	if b.whole || act.Do != pace.Batch || act.Through <= b.through {
		return false, nil
	}
	b.w.log.Info("batch grows", "serial", b.through, "to", act.Through, "because", path)
	b.w.forget()
	return true, nil
}

// mayName tells whether a captured index may name path, which could not be brought: one that has changed since, and has it in its scope.
func (b *batch) mayName(later speech, path string) bool {
	if !b.indexed() {
		return false
	}
	isIndex, err := plan.IsIndex(b.w.m.Last)
	return err != nil || slices.ContainsFunc(b.shown, func(index string) bool {
		scope := plan.Scope(isIndex, index)
		return later.speaksOf(index) && (scope == "" || event.Under(scope, path))
	})
}

// incomplete decides what comes of a batch that misses content which an index may name. err is what explains it.
func (b *batch) incomplete(later speech, path string, err error) error {
	var behind *behindError
	if errors.Is(err, errAgain) || b.whole || errors.As(err, &behind) || !later.speaksOf(path) {
		return err
	}
	b.w.log.Info("batch is made again, its indexes may name what is gone", "serial", b.through, "because", path)
	b.w.forget() // it was cut to what was captured, and that is too old by now
	return errNewer
}

// forget lets the next batch capture anew.
func (w *worker) forget() {
	w.aside.files, w.aside.listed, w.aside.extra = map[string]rsync.Captured{}, nil, nil
}
