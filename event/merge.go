package event

import (
	"maps"
	"slices"
	"strings"
)

// Merge joins path sets, oldest first, into one that says what all of them say together: where two speak of a path the later one is believed,
// and nothing that an earlier one asked for is lost. A mirror that stands anywhere before the first set is as the last one says once it has
// done what the merged set asks for. What came between counts even if it does not show: a directory that was gone, or was no directory, and is
// one again becomes a Tree, since a mirror may still hold what used to be below it.
func Merge(sets ...PathSet) PathSet {
	switch len(sets) {
	case 0:
		return nil
	case 1:
		return sets[0]
	}
	m := merger{records: map[string]Record{}, links: map[[2]uint64]uint64{}}
	for i, s := range sets {
		now := m.chained(s)
		m.add(vacated(s), i)
		m.add(now, i)
	}
	return sorted(m.records)
}

type merger struct {
	records map[string]Record
	links   map[[2]uint64]uint64 // set and link number there: link number here
}

// chained lets a rename of what was itself renamed begin at the first name, the one that a mirror may have.
func (m *merger) chained(s PathSet) PathSet {
	s = slices.Clone(s)
	for i, r := range s {
		if r.Op != Renamed {
			continue
		}
		if before, ok := m.records[r.From]; ok && before.Op == Renamed {
			s[i].From = before.From
		}
	}
	return s
}

// vacated is the set of old names of the directories renamed in s: gone, unless s itself says otherwise later.
func vacated(s PathSet) PathSet {
	gone := map[string]Record{}
	for _, r := range s {
		if r.Op == Renamed {
			gone[r.From] = Record{Op: Gone, Path: r.From}
		}
	}
	return sorted(gone)
}

// add takes the next set in.
func (m *merger) add(s PathSet, number int) {
	if len(s) == 0 {
		return
	}
	m.reopen(s)
	m.prune(s)
	s = m.widened(s)
	m.prune(s)
	for _, r := range s {
		if r.Link != 0 {
			r.Link = m.link(number, r.Link)
		}
		if r.Op == Gone && number > 0 { // what it was at last need not be what a mirror has
			r = Record{Op: Gone, Path: r.Path}
		}
		if old, ok := m.records[r.Path]; ok {
			r = joined(old, r)
		}
		if r.Op == Renamed && r.Check() != nil { // renamed back, or into itself by way of another name
			r.Op, r.From = Tree, ""
		}
		m.records[r.Path] = r
	}
}

// link renumbers: equal numbers in two sets do not mean one inode.
func (m *merger) link(set int, number uint64) uint64 {
	key := [2]uint64{uint64(set), number}
	if _, ok := m.links[key]; !ok {
		m.links[key] = uint64(len(m.links)) + 1
	}
	return m.links[key]
}

// reopen turns what was no directory into a Tree if s has something below it.
func (m *merger) reopen(s PathSet) {
	closed := map[string]bool{}
	for p, r := range m.records {
		if r.closed() {
			closed[p] = true
		}
	}
	for _, r := range s {
		if r.Op == Gone {
			continue
		}
		for above := nearest(closed, r.Path); above != ""; above = nearest(closed, above) {
			m.records[above] = Record{Op: Tree, Path: above}
			delete(closed, above)
		}
	}
}

// prune drops what earlier sets said of paths that s speaks for without naming them.
func (m *merger) prune(s PathSet) {
	whole, levels := map[string]bool{}, map[string]bool{}
	for _, r := range s {
		switch {
		case r.closed() || r.Op == Tree || r.Op == Renamed:
			whole[r.Path] = true
		case r.Op == Level:
			levels[r.Path] = true
		}
	}
	maps.DeleteFunc(m.records, func(p string, r Record) bool {
		return nearest(whole, p) != "" || levels[parent(p)] && !r.IsDir() && !r.Spans()
	})
}

// widened asks for a Tree where a Level leaves a doubt. A Level does not tell which directories went: one that an earlier set spoke of may be
// gone now unless s speaks of it too, and one that s speaks of may be another than the one a mirror has if there was a Level above it before.
func (m *merger) widened(s PathSet) PathSet {
	s = slices.Clone(s)
	levels, there := s.directories()
	for p := range m.records {
		for dir := p; parent(dir) != ""; dir = parent(dir) {
			if i, ok := levels[parent(dir)]; ok && !there[dir] {
				s[i].Op = Tree
			}
		}
	}
	for i, r := range s {
		if r.Op == Gone {
			continue
		}
		if m.records[parent(r.Path)].Op == Level && (r.Op == Write && r.IsDir() || r.Op == Level) {
			s[i].Op = Tree
		}
		for dir := parent(r.Path); parent(dir) != ""; dir = parent(dir) {
			if _, known := m.records[dir]; !known && m.records[parent(dir)].Op == Level {
				m.records[dir] = Record{Op: Tree, Path: dir}
			}
		}
	}
	return s
}

// directories tells where the Level records of s are and which directories s says are there, be it by what it names below them.
func (s PathSet) directories() (levels map[string]int, there map[string]bool) {
	levels, there = map[string]int{}, map[string]bool{}
	for i, r := range s {
		if r.Op == Level {
			levels[r.Path] = i
		}
		if r.Op == Gone {
			continue
		}
		there[r.Path] = true
		for dir := parent(r.Path); dir != "" && !there[dir]; dir = parent(dir) {
			there[dir] = true
		}
	}
	return levels, there
}

// closed tells whether the record says that there is no directory at its path, hence nothing below.
func (r Record) closed() bool {
	return r.Op == Gone || (r.Op == Write || r.Op == Meta) && r.Mode&ModeType != ModeDir
}

// closed is the set of paths that s says are no directories.
func (s PathSet) closed() map[string]bool {
	closed := map[string]bool{}
	for _, r := range s {
		if r.closed() {
			closed[r.Path] = true
		}
	}
	return closed
}

// joined is the later record now, asking for at least what the earlier one of the same path asked for.
func joined(old, now Record) Record {
	switch {
	case now.closed():
		if now.Op == Meta && old.Op != Meta {
			now.Op = Write
		}
		return now
	case now.Op == Renamed:
		return now
	case old.Op == Renamed:
		now.Op, now.From = Renamed, old.From
	case old.Op == Tree || old.closed():
		now.Op = Tree
	case old.Op == Level && now.Op != Tree:
		now.Op = Level
	case now.Op == Meta && old.Op != Meta:
		now.Op = Write
	}
	if now.Mode == 0 {
		now.Link = 0
	}
	return now
}

// Condense names directories in place of their entries, so that at most about limit records are left. Wherever more than perDir records (0: no
// matter how many) are about entries of one directory that are not directories, one Level stands for them. If that is not short enough,
// records are replaced by a Tree of their directory, the deepest first. ok is false when even that is too long; then only the manifest can tell
// what changed. A Renamed is kept as long as it can be.
//
// A directory that is there is never folded into a Level: whoever merges the set with others must know which directories are new.
func (s PathSet) Condense(perDir, limit int) (_ PathSet, ok bool) {
	if perDir > 0 {
		s = s.levels(perDir)
	}
	if len(s) > limit {
		s = s.topmost()
	}
	for depth := s.depth(); len(s) > limit && depth > 0; depth-- {
		s = s.raise(depth)
	}
	return s, len(s) <= limit
}

// levels replaces the records of a crowded directory by one Level record.
func (s PathSet) levels(perDir int) PathSet {
	crowd, source := map[string]int{}, map[string]bool{}
	for _, r := range s {
		if r.folds() {
			crowd[parent(r.Path)]++
		}
		for dir := r.From; dir != ""; dir = parent(dir) {
			source[dir] = true // what is said of it must stay, for the sake of what is said of the old name
		}
	}
	closed := s.closed()
	out := map[string]Record{}
	for _, r := range s {
		dir := parent(r.Path)
		switch {
		case nearest(closed, r.Path) != "": // told by what is above, which may be about to be folded
		case dir == "" || !r.folds() || crowd[dir] <= perDir || source[r.Path]:
			widen(out, r)
		default:
			widen(out, Record{Op: Level, Path: dir})
		}
	}
	return sorted(out)
}

// folds tells whether a Level of its directory can stand for the record. Names of one inode stay names, since only a list of all of them keeps
// them together.
func (r Record) folds() bool {
	return r.closed() && r.Link == 0
}

// topmost drops what a record above says already: a Tree, or one of what is no directory.
func (s PathSet) topmost() PathSet {
	closed := s.closed()
	kept, _ := s.Swallow()
	return slices.DeleteFunc(kept, func(r Record) bool { return nearest(closed, r.Path) != "" })
}

func (s PathSet) depth() int {
	deepest := 0
	for _, r := range s {
		deepest = max(deepest, strings.Count(r.Path, "/"))
	}
	return deepest
}

// raise replaces the records at this depth by Tree records of their directories.
func (s PathSet) raise(depth int) PathSet {
	out := map[string]Record{}
	for _, r := range s {
		if strings.Count(r.Path, "/") < depth {
			widen(out, r)
			continue
		}
		widen(out, Record{Op: Tree, Path: parent(r.Path)})
		if r.Op == Renamed {
			widen(out, s.left(r.From))
		}
	}
	return sorted(out).topmost()
}

// left says of the old name of a renamed directory what s says without the rename: gone, or a directory whose old entries may still be there.
func (s PathSet) left(from string) Record {
	for _, r := range s {
		if r.Op != Gone && (r.Path == from && r.IsDir() || Under(from, r.Path)) {
			return Record{Op: Tree, Path: from}
		}
		if r.Op != Gone && r.Path == from {
			return r
		}
	}
	return Record{Op: Gone, Path: from}
}

// widen puts r unless what stands there asks for more.
func widen(out map[string]Record, r Record) {
	rank := map[Op]int{Gone: 1, Meta: 2, Write: 3, Level: 4, Tree: 5, Renamed: 6}
	old, ok := out[r.Path]
	if ok && rank[old.Op] > rank[r.Op] {
		old, r = r, old
	}
	if ok && r.Mode == 0 && old.Mode&ModeType == ModeDir {
		r.Mode, r.MTime = old.Mode, old.MTime
	}
	out[r.Path] = r
}

func sorted(m map[string]Record) PathSet {
	s := make(PathSet, 0, len(m))
	for _, r := range m {
		s = append(s, r)
	}
	slices.SortFunc(s, func(a, b Record) int { return strings.Compare(a.Path, b.Path) })
	return s
}

func parent(p string) string {
	return p[:max(strings.LastIndexByte(p, '/'), 0)]
}

// Swallow drops the records that a Tree above them already asks for, and tells which were dropped: they still say what should be found there.
// Of a rename into such a Tree it keeps that the old name is gone.
func (s PathSet) Swallow() (kept, swallowed PathSet) {
	trees := map[string]bool{}
	for _, r := range s {
		if r.Op == Tree || r.Op == Renamed {
			trees[r.Path] = true
		}
	}
	out := map[string]Record{}
	for _, r := range s {
		if nearest(trees, r.Path) == "" {
			widen(out, r)
			continue
		}
		swallowed = append(swallowed, r)
		if r.Op == Renamed && nearest(trees, r.From) == "" {
			widen(out, s.left(r.From))
		}
	}
	return sorted(out), swallowed
}
