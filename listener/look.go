package listener

import (
	"context"
	"errors"
	"slices"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/listener/plan"
	"github.com/mirrorbus/mirrorbus/listener/rsync"
)

// A looked is a directory that was looked through, in one of the ways to do it.
type looked struct {
	mode plan.Mode
	dir  string
}

// A look is what was found in a directory.
type look struct {
	applied event.Serial // what was applied then
	through event.Serial // the upstream had this one then
	indexes []string     // those which differ from what is here
}

// lookThrough finds the indexes in directories that are read as a whole, which differ from those here. A batch is often made again, with later
// announcements, until it has what belongs together; a directory that they do not speak of as a whole again is not read again.
func (b *batch) lookThrough(ctx context.Context, r plan.Run) error {
	isIndex, err := plan.IsIndex(b.w.m.Last)
	if err != nil {
		return err
	}
	dirs := slices.DeleteFunc(slices.Clone(r.Paths), func(dir string) bool { return b.recall(looked{r.Mode, dir}) })
	if len(dirs) == 0 {
		return nil
	}
	found := map[string][]string{}
	r.Paths = dirs
	j := Job(r)
	j.Item = func(it rsync.Item) {
		if it.Op == rsync.Deleted || !isIndex(it.Path, it.Dir) || !b.plan.Spanned(it.Path) {
			return
		}
		b.shown = append(b.shown, it.Path)
		for dir := it.Path; ; dir = parentOf(dir) {
			if slices.Contains(dirs, dir) {
				found[dir] = append(found[dir], it.Path)
				return
			}
			if dir == "" {
				return
			}
		}
	}
	if err = b.stage(ctx, plan.Capture, j); errors.Is(err, errors.ErrUnsupported) {
		b.blind = true
		return nil
	}
	if err != nil {
		return b.unready(ctx, err)
	}
	for _, dir := range dirs {
		b.w.aside.looks[looked{r.Mode, dir}] = look{b.v.Applied, b.through, found[dir]}
	}
	return nil
}

// recall shows the indexes that were found in a directory, and returns false if it is to be looked through.
func (b *batch) recall(at looked) bool {
	l, ok := b.w.aside.looks[at]
	if !ok || l.applied != b.v.Applied || b.spokenOf(at.dir, l.through) {
		return false
	}
	for _, p := range l.indexes {
		if b.leaves(p) && b.plan.Spanned(p) {
			b.shown = append(b.shown, p)
		}
	}
	return true
}

// told adds the indexes that the announcements name and that are not here as they say, whether or not they lie in directories that are looked through:
// they may have come after the look.
func (b *batch) told(t *tree) error {
	isIndex, err := plan.IsIndex(b.w.m.Last)
	if err != nil || b.blind {
		return err
	}
	for _, r := range b.plan.Expect {
		if r.Op == event.Gone || r.IsDir() || !isIndex(r.Path, false) {
			continue
		}
		is, err := b.here(t, r)
		if err != nil {
			return err
		}
		if !is {
			b.shown = append(b.shown, r.Path)
		}
	}
	return nil
}

// spokenOf tells whether an announcement after a serial says of a directory, of one above or of one below, that it is as it is now.
func (b *batch) spokenOf(dir string, after event.Serial) bool {
	touches := func(p string) bool { return p == dir || event.Under(p, dir) || event.Under(dir, p) }
	for _, x := range b.pending {
		if x.Serial > after && slices.ContainsFunc(x.Set, func(r event.Record) bool {
			return r.Spans() && r.Op != event.Gone && (touches(r.Path) || r.Op == event.Renamed && touches(r.From))
		}) {
			return true
		}
	}
	return false
}

// leaves tells of a path whether the batch may leave something there: not if it is gone, or if what is above it is gone or is no directory.
func (b *batch) leaves(path string) bool {
	if b.plan.Expected(path).Op == event.Gone {
		return false
	}
	for dir := parentOf(path); dir != ""; dir = parentOf(dir) {
		if r := b.plan.Expected(dir); r.Op == event.Gone || r.Mode != 0 && !r.IsDir() {
			return false
		}
	}
	return true
}
