package plan

import (
	"slices"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/filter"
)

// A maker makes one plan.
type maker struct {
	in   Input
	plan *Plan
	last *filter.Rules // includes what is not last
	cost Cost

	unstated map[string]bool // directories whose permissions no record states
	cover    cover

	// What is to be done, each path once.
	content []*event.Record // by name
	index   []*event.Record // by name, matching the last patterns
	spans   []span
	sweeps  []string // directories to be read only to delete what they should not hold
	gone    []*event.Record
}

// A span is a directory to be read.
type span struct {
	path  string
	whole bool // with everything below
	last  lastness
}

// lastness tells how much of a directory matches the last patterns.
type lastness int

const (
	none lastness = iota
	some          // perhaps
	all
)

func newMaker(in Input, p *Plan, last *filter.Rules) *maker {
	return &maker{in: in, plan: p, last: last, cost: in.Cost.orDefault(), unstated: map[string]bool{}}
}

func (m *maker) isLast(path string, isDir bool) bool { return !m.last.Included(path, isDir) }

func (m *maker) lastness(dir string) lastness {
	switch {
	case m.isLast(dir, true):
		return all
	case m.last.Below(dir) == filter.All:
		return none
	}
	return some
}

// sort puts each record where it is to be worked on, or nowhere if another record's work covers it.
func (m *maker) sort(ours event.PathSet) {
	m.cover = newCover(ours)
	for i := range ours {
		r := &ours[i]
		switch {
		case r.Op == event.Gone:
			m.sortGone(r)
		case m.cover.covers(r):
		case r.Op == event.Level || r.Op == event.Tree || r.Op == event.Renamed:
			m.spans = append(m.spans, span{r.Path, r.Op != event.Level, m.lastness(r.Path)})
		case m.isLast(r.Path, r.IsDir()):
			m.index = append(m.index, r)
		default:
			m.content = append(m.content, r)
		}
		if r.Op == event.Renamed {
			m.plan.Renames = append(m.plan.Renames, Rename{From: r.From, To: r.Path})
		}
		m.plan.NeedsHead = m.plan.NeedsHead || r.Spans() && r.Op != event.Gone
	}
	m.index = append(m.index, m.linkedTo(m.index)...)
	m.plan.Renames = inOrder(m.plan.Renames)
}

// sortGone takes the topmost names of what is gone and is not deleted by reading a directory anyway.
func (m *maker) sortGone(r *event.Record) {
	switch dir := parent(r.Path); {
	case m.cover.belowClosed(r) || m.cover.covers(r):
	case m.certain(*r) || dir == "":
		m.gone = append(m.gone, r)
	default:
		m.plan.reason("%q is gone, but what it was decides whether it was this mirror's: its directory is compared", r.Path)
		m.sweeps = append(m.sweeps, dir)
	}
}

// linkedTo are the content records that are names of an inode which some index has too: all names must be in one list.
func (m *maker) linkedTo(index []*event.Record) (linked []*event.Record) {
	groups := map[uint64]bool{}
	for _, r := range index {
		groups[r.Link] = r.Link != 0
	}
	for _, r := range m.content {
		if groups[r.Link] {
			linked = append(linked, r)
		}
	}
	return linked
}

// A cover knows which paths are taken care of by reading directories.
type cover struct {
	trees, levels map[string]bool
	closed        map[string]bool // what is no directory or is gone, if anything is gone
	apart         map[uint64]bool // link groups that no single directory covers
}

func newCover(s event.PathSet) cover {
	c := cover{map[string]bool{}, map[string]bool{}, map[string]bool{}, map[uint64]bool{}}
	gone := slices.ContainsFunc(s, func(r event.Record) bool { return r.Op == event.Gone })
	for _, r := range s {
		switch {
		case r.Op == event.Tree || r.Op == event.Renamed:
			c.trees[r.Path] = true
		case r.Op == event.Level:
			c.levels[r.Path] = true
		case gone && (r.Op == event.Gone || !r.IsDir()):
			c.closed[r.Path] = true
		}
	}
	by := map[uint64]string{}
	for _, r := range s {
		if r.Link == 0 {
			continue
		}
		dir := c.reader(r.Path)
		first, seen := by[r.Link]
		if by[r.Link] = dir; dir == "" || seen && dir != first {
			c.apart[r.Link] = true
		}
	}
	return c
}

// reader is the directory whose reading takes care of path, or "".
func (c cover) reader(path string) string {
	if tree := nearest(c.trees, path); tree != "" {
		return tree
	}
	if dir := parent(path); c.levels[dir] {
		return dir
	}
	return ""
}

func (c cover) covers(r *event.Record) bool {
	if r.Spans() && r.Op != event.Gone {
		return nearest(c.trees, r.Path) != ""
	}
	return c.reader(r.Path) != "" && !c.apart[r.Link]
}

// belowClosed tells of what is gone that something above it is, or is no directory.
func (c cover) belowClosed(gone *event.Record) bool { return nearest(c.closed, gone.Path) != "" }

// inOrder puts renames so that a name is free before another directory gets it, where there is such an order.
func inOrder(renames []Rename) []Rename {
	frees := map[string][]int{} // by the new name: the renames that take away what is there, or below
	for _, r := range renames {
		frees[r.To] = nil
	}
	for i, r := range renames {
		for p := r.From; p != ""; p = parent(p) {
			if before, wanted := frees[p]; wanted {
				frees[p] = append(before, i)
			}
		}
	}
	var done []Rename
	taken := make([]bool, len(renames))
	var take func(int)
	take = func(i int) {
		if taken[i] {
			return
		}
		taken[i] = true
		for _, before := range frees[renames[i].To] {
			take(before)
		}
		done = append(done, renames[i])
	}
	for i := range renames {
		take(i)
	}
	return done
}

// expect notes what is to be found true afterwards.
func (m *maker) expect(ours event.PathSet) {
	m.plan.Expect = rewritten(ours, func(r event.Record) (event.Record, bool) {
		if r.Op == event.Gone {
			return r, !m.cover.belowClosed(&r) && m.certain(r)
		}
		return r, r.Mode != 0 && !m.unstated[r.Path]
	})
}

// expectFirst notes what of that must be true before an index is put in place: all but indexes and deletions.
func (m *maker) expectFirst() {
	if !m.early() {
		return
	}
	for _, r := range m.plan.Expect {
		if r.Op != event.Gone && !m.isLast(r.Path, r.IsDir()) {
			m.plan.Content = append(m.plan.Content, r)
		}
	}
}

// RatioFrom is the least number of deletions for which their ratio is looked at: of a module of five files one may always go.
const RatioFrom = 10

// guard returns how much a run may delete, and holds the plan if more than that is known to be gone.
func (m *maker) guard(ours event.PathSet) int {
	g, limit := m.in.Guard, Unlimited
	if g.Confirmed {
		return Unlimited
	}
	if g.MaxDeleteCount > 0 {
		limit = g.MaxDeleteCount
	}
	if g.MaxDeleteRatio > 0 && m.in.KnownEntries > 0 {
		most := max(RatioFrom, int(min(g.MaxDeleteRatio, 1)*float64(m.in.KnownEntries)))
		if limit == Unlimited || most < limit {
			limit = most
		}
	}
	n := 0
	for _, r := range ours {
		if r.Op == event.Gone {
			n++
		}
	}
	if limit != Unlimited && n > limit {
		m.plan.Held = HeldText(n, limit, m.in.KnownEntries)
	}
	return limit
}
