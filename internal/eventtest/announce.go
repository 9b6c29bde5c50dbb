package eventtest

import (
	"maps"
	"slices"

	"pgregory.net/rapid"

	"github.com/mirrorbus/mirrorbus/event"
)

// announce writes the path set for a step, in one of the many ways a publisher may: all names, or directories in their place, renames told or
// not, parents of new files named or not, what was below a removed directory named or not.
func announce(t *rapid.T, before, after Tree, renames [][2]string, implied bool) event.PathSet {
	a := announcer{t: t, before: before, after: after, records: map[string]event.Record{}}
	a.names()
	a.levels()
	a.trees()
	a.told(renames)
	if implied {
		a.implyParents()
	}
	s, err := event.NewPathSet(slices.Collect(maps.Values(a.records)))
	if err != nil {
		t.Fatalf("the model announces nonsense: %v", err)
	}
	return s
}

type announcer struct {
	t             *rapid.T
	before, after Tree
	records       map[string]event.Record
}

// record states path as it is after the step.
func (a *announcer) record(op event.Op, path string) event.Record {
	e := a.after[path]
	return event.Record{Op: op, Mode: e.Mode, Size: e.Size, MTime: event.Stamp{Sec: e.MTime}, Path: path}
}

// names records each difference by itself.
func (a *announcer) names() {
	for p, e := range a.after {
		old, was := a.before[p]
		switch {
		case was && old.equal(e):
		case was && old.IsDir() == e.IsDir() && old.Size == e.Size && old.MTime == e.MTime && old.Mode&event.ModeType == e.Mode&event.ModeType:
			a.records[p] = a.record(event.Meta, p)
		default:
			a.records[p] = a.record(event.Write, p)
		}
	}
	all, stated := rapid.Bool().Draw(a.t, "name all that is gone"), rapid.Bool().Draw(a.t, "state what is gone")
	for p, e := range a.before {
		if _, there := a.after[p]; there {
			continue
		}
		dir := Parent(p)
		if above, ok := a.after[dir]; !all && dir != "" && (!ok || !above.IsDir()) {
			continue // what is above tells it
		}
		r := event.Record{Op: event.Gone, Path: p}
		if stated {
			r.Mode = e.Mode
		}
		a.records[p] = r
	}
}

// levels names some directories in place of their entries, apart from directories that are there.
func (a *announcer) levels() {
	for _, dir := range a.after.Paths() {
		if !a.after[dir].IsDir() || rapid.IntRange(0, 3).Draw(a.t, "level") != 0 {
			continue
		}
		folded := false
		for p, r := range a.records {
			if Parent(p) == dir && (r.Op == event.Gone || !r.IsDir()) {
				maps.DeleteFunc(a.records, func(q string, _ event.Record) bool { return q == p || event.Under(p, q) })
				folded = true
			}
		}
		if !folded {
			continue
		}
		if a.isNew(dir) {
			a.records[dir] = a.record(event.Tree, dir)
		} else {
			a.records[dir] = a.record(event.Level, dir)
		}
	}
}

// isNew tells whether dir was no directory before the step.
func (a *announcer) isNew(dir string) bool { return !a.before[dir].IsDir() }

// trees names some directories in place of all that is below.
func (a *announcer) trees() {
	for _, dir := range a.after.Paths() {
		if !a.after[dir].IsDir() || rapid.IntRange(0, 7).Draw(a.t, "tree") != 0 {
			continue
		}
		some := rapid.Bool().Draw(a.t, "state some all the same")
		changed := false
		for p := range a.records {
			if event.Under(dir, p) {
				changed = true
				if !some {
					delete(a.records, p)
				}
			}
		}
		if changed {
			a.records[dir] = a.record(event.Tree, dir)
		}
	}
}

// told replaces the records of some renamed directories by one of the rename.
func (a *announcer) told(renames [][2]string) {
	for _, r := range renames {
		from, to := r[0], r[1]
		_, stays := a.after[from]
		if stays || !a.after[to].IsDir() || a.records[to].Op == event.Renamed || !rapid.Bool().Draw(a.t, "tell the rename") {
			continue
		}
		rec := a.record(event.Renamed, to)
		rec.From = from
		if rec.Check() != nil {
			continue
		}
		maps.DeleteFunc(a.records, func(p string, r event.Record) bool {
			return p == from || event.Under(from, p) || event.Under(to, p) && r.Op != event.Renamed
		})
		a.records[to] = rec
	}
}

// implyParents leaves out the records of new directories that have something named below, as a publisher of file names would.
func (a *announcer) implyParents() {
	for p, r := range a.records {
		if r.Op != event.Write || !r.IsDir() || !a.isNew(p) {
			continue
		}
		if _, was := a.before[p]; was {
			continue // it came in place of something else
		}
		for q, other := range a.records {
			if event.Under(p, q) && other.Op != event.Gone {
				delete(a.records, p)
				break
			}
		}
	}
}
