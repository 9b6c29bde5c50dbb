package plan

import (
	"fmt"
	"slices"

	"github.com/mirrorbus/mirrorbus/event"
)

// stages turns what is to be done into runs.
func (m *maker) stages(limit int) {
	early := m.early()
	for i := range m.plan.Renames {
		m.plan.Renames[i].Keep = early
	}
	for _, r := range m.index {
		m.plan.Indexes = append(m.plan.Indexes, r.Path)
	}
	slices.Sort(m.plan.Indexes)
	for _, s := range m.spans {
		m.plan.Spans = append(m.plan.Spans, Span{s.path, s.whole})
	}
	stages := []Stage{{Capture, m.captureRuns()}, {Content, m.contentRuns()}, {Metadata, Together(m.plan.Indexes)}, {Delete, m.deleteRuns()}}
	for _, s := range stages {
		for i := range s.Runs {
			s.Runs[i].MaxDelete = limit
		}
		if len(s.Runs) > 0 {
			m.plan.Stages = append(m.plan.Stages, s)
		}
	}
	if len(m.plan.Stages) == 0 {
		m.plan.reason("nothing of it is to be done on this mirror")
	}
}

// early tells whether the plan has indexes, so that content must come before something.
func (m *maker) early() bool {
	return len(m.index) > 0 || slices.ContainsFunc(m.spans, func(s span) bool { return s.last != none })
}

// captureRuns look for indexes where directories are read, and capture those that are named.
func (m *maker) captureRuns() []Run {
	spans := slices.DeleteFunc(slices.Clone(m.spans), func(s span) bool { return s.last == none })
	if len(spans) > 0 {
		m.plan.reason("%d directories are looked through for indexes, which are captured by name", len(spans))
	}
	runs := spanRuns(spans, m.filters(false), Survey, false)
	if len(m.plan.Indexes) > 0 {
		runs = append(runs, Run{Mode: Index, Way: Aside, Paths: m.plan.Indexes})
	}
	return runs
}

// contentRuns brings what does not match the last patterns.
func (m *maker) contentRuns() []Run {
	names, levels, trees := m.choose(m.content)
	if n := len(levels) + len(trees); n > 0 {
		m.plan.reason("%d names are brought by reading %d directories, which costs less", len(m.content)-len(names), n)
	}
	var spans []span
	for _, s := range m.spans {
		if s.last != all {
			spans = append(spans, s)
		}
	}
	for _, dir := range levels {
		spans = append(spans, span{path: dir})
	}
	for _, dir := range trees {
		spans = append(spans, span{path: dir, whole: true})
	}
	return append(nameRuns(Names, names), spanRuns(spans, m.filters(m.early()), "", false)...)
}

// Together are the runs that put captured indexes in place: at once, or if there are too many first those that readers do not begin with.
func Together(paths []string) []Run {
	var inner, outer []string
	for _, p := range paths {
		if len(paths) > MaxNames && entrance(p) {
			outer = append(outer, p)
		} else {
			inner = append(inner, p)
		}
	}
	var runs []Run
	for _, list := range [][]string{inner, outer} {
		if len(list) > 0 {
			runs = append(runs, Run{Mode: Index, Way: Place, Paths: list})
		}
	}
	return runs
}

// deleteRuns removes first what names other files.
func (m *maker) deleteRuns() []Run {
	var first, others []*event.Record
	for _, r := range m.gone {
		if m.isLast(r.Path, false) || m.isLast(r.Path, true) {
			first = append(first, r)
		} else {
			others = append(others, r)
		}
	}
	runs := nameRuns(Gone, first)
	for _, kind := range []lastness{all, some, none} {
		spans := slices.DeleteFunc(slices.Clone(m.spans), func(s span) bool { return s.last != kind })
		runs = append(runs, spanRuns(spans, m.filters(false), Survey, true)...)
	}
	var sweeps []span
	for _, dir := range m.sweeps {
		sweeps = append(sweeps, span{path: dir})
	}
	runs = append(runs, spanRuns(sweeps, m.filters(false), Survey, true)...)
	return append(runs, nameRuns(Gone, others)...)
}

// spanRuns makes runs that read directories.
func spanRuns(spans []span, filters []string, way Way, del bool) []Run {
	var runs []Run
	for _, mode := range []Mode{Level, Recursive} {
		var dirs []string
		for _, s := range spans {
			if s.whole == (mode == Recursive) {
				dirs = append(dirs, s.path)
			}
		}
		slices.Sort(dirs)
		for list := range slices.Chunk(slices.Compact(dirs), MaxNames) {
			runs = append(runs, Run{Mode: mode, Way: way, Paths: list, Filter: filters, Delete: del})
		}
	}
	return runs
}

// nameRuns makes runs of names. The names of one inode are in one run, whatever their number.
func nameRuns(mode Mode, records []*event.Record) []Run {
	var single []string
	groups := map[uint64][]string{}
	var order []uint64
	for _, r := range records {
		switch {
		case r.Link == 0:
			single = append(single, r.Path)
		case groups[r.Link] == nil:
			order = append(order, r.Link)
			fallthrough
		default:
			groups[r.Link] = append(groups[r.Link], r.Path)
		}
	}
	slices.Sort(single)
	lists := slices.Collect(slices.Chunk(single, MaxNames))
	for _, link := range order {
		last := len(lists) - 1
		if last >= 0 && len(lists[last])+len(groups[link]) <= MaxNames {
			lists[last] = append(slices.Clip(lists[last]), groups[link]...)
		} else {
			lists = append(lists, groups[link])
		}
	}
	var runs []Run
	for _, list := range lists {
		slices.Sort(list)
		runs = append(runs, Run{Mode: mode, Paths: slices.Compact(list)})
	}
	return runs
}

// HeldText says why somebody has to confirm n deletions.
func HeldText(n, limit int, known int64) string {
	of := ""
	if known > 0 {
		of = fmt.Sprintf(" of about %d", known)
	}
	return fmt.Sprintf("%d entries%s would be deleted, at most %d may be without confirmation", n, of, limit)
}
