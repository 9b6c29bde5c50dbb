package plan

import (
	"fmt"
	"slices"

	"github.com/mirrorbus/mirrorbus/event"
)

// stages turns what is to be done into runs.
func (m *maker) stages(limit int) {
	early := len(m.index) > 0 || slices.ContainsFunc(m.spans, func(s span) bool { return s.last != none })
	for i := range m.plan.Renames {
		m.plan.Renames[i].Keep = early
	}
	stages := []Stage{{Name: Content, Runs: m.contentRuns(early)}, {Name: Metadata}, {Name: Delete}}
	if early {
		stages[1].Runs = m.metadataRuns()
	} else if len(m.spans) > 0 {
		m.plan.reason("nothing changes that must wait for content, so directories are read once, with deletions")
	}
	if m.atOnce() {
		m.plan.reason("metadata and deletions are one run, deletions after transfers")
		stages[1].Runs = spanRuns(m.spans, m.filters(false), true)
	} else {
		stages[2].Runs = m.deleteRuns()
	}
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

// atOnce tells whether the metadata stage and the delete stage would be the same single run.
func (m *maker) atOnce() bool {
	one := len(m.spans) > 0 && len(spanRuns(m.spans, nil, true)) == 1
	rest := len(m.index) + len(m.gone) + len(m.sweeps)
	return one && rest == 0 && !slices.ContainsFunc(m.spans, func(s span) bool { return s.last == none })
}

// contentRuns brings what does not match the last patterns; of announced directories only if something has to wait for it.
func (m *maker) contentRuns(early bool) []Run {
	names, levels, trees := m.choose(m.content)
	if n := len(levels) + len(trees); n > 0 {
		m.plan.reason("%d names are brought by reading %d directories, which costs less", len(m.content)-len(names), n)
	}
	var spans []span
	for _, s := range m.spans {
		if early && s.last != all {
			spans = append(spans, s)
		}
	}
	for _, dir := range levels {
		spans = append(spans, span{path: dir})
	}
	for _, dir := range trees {
		spans = append(spans, span{path: dir, whole: true})
	}
	return append(nameRuns(Names, names), spanRuns(spans, m.filters(true), false)...)
}

// metadataRuns brings the files that name others: first those that readers do not begin with.
func (m *maker) metadataRuns() []Run {
	var inner, outer []event.Record
	for _, r := range m.index {
		if entrance(r.Path) {
			outer = append(outer, r)
		} else {
			inner = append(inner, r)
		}
	}
	if len(m.index) <= MaxNames {
		inner, outer = m.index, nil // they appear together
	}
	spans := slices.DeleteFunc(slices.Clone(m.spans), func(s span) bool { return s.last == none })
	runs := nameRuns(Index, inner)
	runs = append(runs, spanRuns(spans, m.filters(false), false)...)
	return append(runs, nameRuns(Index, outer)...)
}

// deleteRuns removes first what names other files.
func (m *maker) deleteRuns() []Run {
	var first, others []event.Record
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
		runs = append(runs, spanRuns(spans, m.filters(false), true)...)
	}
	var sweeps []span
	for _, dir := range m.sweeps {
		sweeps = append(sweeps, span{path: dir})
	}
	runs = append(runs, spanRuns(sweeps, m.filters(false), true)...)
	return append(runs, nameRuns(Gone, others)...)
}

// spanRuns makes runs that read directories.
func spanRuns(spans []span, filters []string, del bool) []Run {
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
			runs = append(runs, Run{Mode: mode, Paths: list, Filter: filters, Delete: del})
		}
	}
	return runs
}

// nameRuns makes runs of names. The names of one inode are in one run, whatever their number.
func nameRuns(mode Mode, records []event.Record) []Run {
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

func heldText(n, limit int, known int64) string {
	of := ""
	if known > 0 {
		of = fmt.Sprintf(" of about %d", known)
	}
	return fmt.Sprintf("%d entries%s would be deleted, at most %d may be without confirmation", n, of, limit)
}
