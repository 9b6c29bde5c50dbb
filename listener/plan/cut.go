package plan

import (
	"strings"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/filter"
)

// cut leaves what this mirror carries and counts the rest. What was this mirror's and came to be something that is not, because the rules tell files
// from directories, stays where it is: only a comparison of everything would show it.
func (m *maker) cut(s event.PathSet) event.PathSet {
	rules := m.in.Subset
	ours := rewritten(s, func(r event.Record) (event.Record, bool) {
		switch {
		case r.Op == event.Renamed && rules.Included(r.Path, true):
			return m.cutRename(r), true
		case r.Op == event.Gone && m.carriesGone(r), r.Op != event.Gone && r.Op != event.Renamed && rules.Included(r.Path, r.IsDir()):
			return m.narrowed(r), true
		}
		m.plan.Skipped++
		return r, false
	})
	if m.plan.Skipped > 0 {
		m.plan.reason("%d records are outside of this mirror's subset", m.plan.Skipped)
	}
	return ours
}

// rewritten is what f makes of the records, without those that it does not keep: s itself, which may be millions, if that is the same.
func rewritten(s event.PathSet, f func(event.Record) (_ event.Record, keep bool)) event.PathSet {
	same, changed := true, event.PathSet(nil)
	for i, r := range s {
		now, keep := f(r)
		if same && (!keep || now != r) {
			same, changed = false, append(make(event.PathSet, 0, len(s)), s[:i]...)
		}
		if !same && keep {
			changed = append(changed, now)
		}
	}
	if same {
		return s
	}
	return changed
}

// carriesGone tells whether something that is gone may have been ours. What it was is known only if the record states it.
func (m *maker) carriesGone(r event.Record) bool {
	if r.Mode != 0 {
		return m.removes(r.Path, r.Mode&event.ModeType == event.ModeDir)
	}
	return m.removes(r.Path, false) || m.removes(r.Path, true)
}

func (m *maker) removes(path string, isDir bool) bool {
	return m.in.Subset.Included(path, isDir) && !m.in.Subset.Protected(path, isDir)
}

// certain tells whether all that can be at or below the path of a Gone record may be removed by name.
func (m *maker) certain(r event.Record) bool {
	isFile := r.Mode != 0 && r.Mode&event.ModeType != event.ModeDir
	dir := m.removes(r.Path, true) && m.in.Subset.Below(r.Path) == filter.All
	file := m.removes(r.Path, false)
	switch {
	case isFile:
		return file
	case r.Mode != 0:
		return dir
	}
	return dir && file
}

// cutRename leaves a rename to a name of ours where both names and all below are ours, and else what remains of it. That the old name is gone has a
// record of its own in a merged set.
func (m *maker) cutRename(r event.Record) event.Record {
	from := event.Record{Op: event.Gone, Mode: event.ModeDir, Path: r.From}
	if m.in.Subset.Below(r.Path) == filter.All && m.certain(from) {
		return r
	}
	m.plan.reason("%q was renamed to %q; not all of it is this mirror's, so it is not renamed here", r.From, r.Path)
	r.Op, r.From = event.Tree, ""
	return m.narrowed(r)
}

// narrowed is a record of a directory that is ours, without what is below if none of that is.
func (m *maker) narrowed(r event.Record) event.Record {
	if r.Op != event.Level && r.Op != event.Tree || m.in.Subset.Below(r.Path) != filter.None {
		return r
	}
	r.Op = event.Write
	if r.Mode == 0 { // its permissions are not known
		r.Mode = event.ModeDir
		m.unstated[r.Path] = true
	}
	return r
}

func parent(path string) string { return path[:max(strings.LastIndexByte(path, '/'), 0)] }

// nearest is the closest directory above path that is in the set, or "".
func nearest[V any](set map[string]V, path string) string {
	for dir := parent(path); dir != ""; dir = parent(dir) {
		if _, ok := set[dir]; ok {
			return dir
		}
	}
	return ""
}
