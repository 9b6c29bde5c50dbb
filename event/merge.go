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
	if one, ok := alone(sets); ok {
		return one
	}
	half := len(sets) / 2 // each set that is taken in costs a look at all records before it, so a long row is halved first
	m := merger{records: map[string]Record{}, links: map[[2]uint64]uint64{}}
	for i, s := range []PathSet{Merge(sets[:half]...), Merge(sets[half:]...)} {
		now := m.chained(s)
		m.add(vacated(s), i)
		m.add(now, i)
	}
	return sorted(m.records)
}

// alone returns the only set that says anything, if it leaves nothing to be spelled out.
func alone(sets []PathSet) (one PathSet, ok bool) {
	for _, s := range sets {
		if len(s) == 0 {
			continue
		}
		if one != nil || slices.ContainsFunc(s, func(r Record) bool { return r.Op == Renamed }) {
			return nil, false
		}
		one = s
	}
	return one, one != nil
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
	whole, levels, named := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, r := range s {
		named[r.Path] = true
		switch {
		case r.closed() || r.Op == Tree || r.Op == Renamed:
			whole[r.Path] = true
		case r.Op == Level:
			levels[r.Path] = true
		}
	}
	maps.DeleteFunc(m.records, func(p string, r Record) bool {
		return nearest(whole, p) != "" || levels[parent(p)] && r.closed() && !named[p]
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

// closed is the set of paths that s says are no directories although it speaks of something below them.
func (s PathSet) closed() map[string]bool {
	above := map[string]bool{}
	for _, r := range s {
		for _, name := range []string{r.Path, r.From} {
			for dir := parent(name); dir != "" && !above[dir]; dir = parent(dir) {
				above[dir] = true
			}
		}
	}
	closed := map[string]bool{}
	for _, r := range s {
		if above[r.Path] && r.closed() {
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
