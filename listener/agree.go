package listener

import (
	"context"
	"errors"
	"io/fs"
	"slices"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/listener/plan"
)

// agreed makes sure that what is captured is what the batch says.
func (b *batch) agreed(ctx context.Context, t *tree, records map[string]event.Record) error {
	for _, p := range b.shown {
		r, stated := records[p]
		if !stated || b.agrees(t, r) {
			continue
		}
		c := b.w.aside.files[p]
		if c.Info == nil || older(c.Info, r) {
			return b.unready(ctx, &pathError{p, errors.New("is not there as announced")})
		}
		return b.unready(ctx, &aheadError{p, "is newer than announced"})
	}
	return nil
}

// agrees tells whether what is captured of a path, or is here and need not be captured, is what the record says. Permissions do not count: what it
// names is the same.
func (b *batch) agrees(t *tree, r event.Record) bool {
	c, ok := b.w.aside.files[r.Path]
	if !ok {
		if info, err := t.lstat(r.Path); err == nil && !slices.Contains(b.plan.Indexes, r.Path) {
			c.Info = info
		}
	}
	kind := r.Mode & event.ModeType
	switch {
	case b.unsafe[r.Path] && kind == event.ModeLink || kind == event.ModeDir || r.Mode == 0:
		return true
	case c.Info == nil:
		return false
	case kind != event.ModeFile && kind != event.ModeLink:
		return typeOf(c.Info.Mode()) == kind
	}
	if b.w.aside.once[r.Path] && r.Sum.IsZero() {
		return false
	}
	return typeOf(c.Info.Mode()) == kind && c.Info.Size() == r.Size && event.StampOf(c.Info.ModTime()).Agrees(r.MTime) &&
		(r.Sum.IsZero() || c.Sum.IsZero() || c.Sum == r.Sum)
}

// older tells whether a file was written before its record was made.
func older(info fs.FileInfo, r event.Record) bool {
	return info.ModTime().Before(r.MTime.Time()) && !event.StampOf(info.ModTime()).Agrees(r.MTime)
}

// unready decides what comes of indexes that are not as the batch says: the batch grows by newer announcements, or the upstream is behind, or the
// batch is cut to the serial that the indexes belong to, or it has to wait.
func (b *batch) unready(ctx context.Context, cause error) error {
	if b.whole {
		return cause
	}
	err := b.explain(ctx, cause)
	var behind *behindError
	var ahead *aheadError
	var one *pathError
	if errors.Is(err, errNewer) && errors.As(cause, &ahead) || errors.As(err, &behind) || !errors.As(cause, &ahead) && !errors.As(cause, &one) {
		return err
	}
	t, openErr := openTree(b.w.m.Dir, b.w.m.Links)
	if openErr != nil {
		return errors.Join(err, openErr)
	}
	defer t.close() //nolint:errcheck // only read from
	at, cutErr := b.consistent(t)
	switch {
	case cutErr != nil:
		return cutErr
	case at > b.v.Applied && at < b.through:
		return &cutError{at}
	}
	return err
}

// consistent is the last serial after which all indexes are as captured.
func (b *batch) consistent(t *tree) (event.Serial, error) {
	in := plan.Input{Pending: b.pending, Subset: b.w.m.Rules, Last: b.w.m.Last}
	return in.Consistent(func(r event.Record) bool { return b.agrees(t, r) })
}
