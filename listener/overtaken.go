package listener

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/envelope"
	"github.com/mirrorbus/mirrorbus/listener/inbox"
)

// Of two announcements that say what the permissions of a path are, the later one counts, also where the earlier one is a flip that has to wait for its
// time, or that is done again because its turn has not come. While the later one waits, its path set says so; when it is done, the inbox keeps those of the
// flip's paths that it spoke of.

// A correction is what a number of announcements say about the paths of flips before them.
type correction struct {
	flipped map[string]bool     // by a flip, which has a time of its own
	modes   map[string][]uint32 // by a change; 0 where it does not say which, or the path is gone
	levels  map[string]bool     // directories whose entries are spoken of
	trees   map[string]bool     // directories of which all below is spoken of
	gone    map[string]bool     // that are gone, or have another name
}

func newCorrection() *correction {
	return &correction{flipped: map[string]bool{}, modes: map[string][]uint32{}, levels: map[string]bool{}, trees: map[string]bool{}, gone: map[string]bool{}}
}

// hear adds an announcement, if its path set is here.
func (c *correction) hear(h inbox.Heard) error {
	if h.Set == nil {
		return nil
	}
	set, err := envelope.PathSet(h.Set, h.Announcement.Set)
	if err != nil {
		return fmt.Errorf("serial %d: %w", h.Serial, err)
	}
	for _, r := range set {
		if h.Kind == event.Flip {
			c.flipped[r.Path] = true
			continue
		}
		switch r.Op {
		case event.Level:
			c.levels[r.Path] = true
		case event.Tree:
			c.trees[r.Path] = true
		case event.Gone:
			c.gone[r.Path] = true
		case event.Renamed:
			c.gone[r.Path], c.gone[r.From] = true, true
		}
		c.modes[r.Path] = append(c.modes[r.Path], r.Mode)
	}
	return nil
}

// of tells whether a record of the flip counts no longer. A change that gives the path the mode that it gets by the flip, or is said to have until then,
// corrects nothing.
func (c *correction) of(flip event.Announcement, r event.Record) bool {
	same := []uint32{r.Mode}
	if flip.Was != 0 {
		same = append(same, r.Mode&^0o7777|flip.Was, 0)
	}
	above := parentOf(r.Path)
	switch {
	case c.flipped[r.Path], c.gone[r.Path], flip.Was == 0 && c.levels[above]:
		return true
	case slices.ContainsFunc(c.modes[r.Path], func(mode uint32) bool { return !slices.Contains(same, mode) }):
		return true
	}
	for ; above != ""; above = parentOf(above) {
		if c.gone[above] || flip.Was == 0 && c.trees[above] {
			return true
		}
	}
	return false
}

// without returns the records of a flip whose paths are not overtaken.
func without(set event.PathSet, overtaken map[string]bool) event.PathSet {
	if len(overtaken) == 0 {
		return set
	}
	return slices.DeleteFunc(slices.Clone(set), func(r event.Record) bool { return overtaken[r.Path] })
}

// left returns the records of a flip that nothing announced after it corrects.
func (w *worker) left(ctx context.Context, h inbox.Heard, set event.PathSet) (event.PathSet, error) {
	rows, overtaken, err := w.a.inbox.Newer(ctx, h, maxBatch)
	if err != nil {
		return nil, err
	}
	later := newCorrection()
	for _, row := range rows {
		if err := later.hear(row); err != nil {
			return nil, err
		}
	}
	return slices.DeleteFunc(slices.Clone(set), func(r event.Record) bool { return overtaken[r.Path] || later.of(h.Announcement, r) }), nil
}

// overtaken are the paths of flips that this batch corrects, and that are not behind the mirror when it is done: those that wait for their time, and what is
// done above them.
func (b *batch) overtaken(ctx context.Context) (map[event.Serial][]string, error) {
	if len(b.waiting) == 0 {
		return nil, nil
	}
	flips, err := b.w.a.inbox.Flipped(ctx, b.w.m.Name)
	if err != nil {
		return nil, err
	}
	var done []inbox.Heard
	except := b.except()
	for _, h := range b.rows {
		if slices.Contains(except, h.Serial) {
			continue
		}
		if done = append(done, h); h.Kind == event.Flip {
			flips = append(flips, h)
		}
	}
	return overtaken(append(flips, b.waiting...), done)
}

// overtaken tells which paths of the flips are corrected by those announcements that come after them.
func overtaken(flips, by []inbox.Heard) (map[event.Serial][]string, error) {
	newest := func(a, b inbox.Heard) int { return cmp.Compare(b.Serial, a.Serial) }
	flips, by = slices.SortedFunc(slices.Values(flips), newest), slices.SortedFunc(slices.Values(by), newest)
	over, later := map[event.Serial][]string{}, newCorrection()
	for _, f := range flips {
		for len(by) > 0 && by[0].Serial > f.Serial {
			if err := later.hear(by[0]); err != nil {
				return nil, err
			}
			by = by[1:]
		}
		if f.Set == nil || over[f.Serial] != nil {
			continue
		}
		set, err := envelope.PathSet(f.Set, f.Announcement.Set)
		if err != nil {
			return nil, fmt.Errorf("serial %d: %w", f.Serial, err)
		}
		for _, r := range set {
			if later.of(f.Announcement, r) {
				over[f.Serial] = append(over[f.Serial], r.Path)
			}
		}
	}
	return over, nil
}
