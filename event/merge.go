package event

import (
	"slices"
	"strings"
)

// Merge joins path sets, oldest first, into one that says what all of them say together: where two speak of a path the later one is believed,
// and nothing that an earlier one asked for is lost. A set that came between counts even if the result does not show it: a directory that was
// gone and is there again is taken as a Tree, since a mirror may still hold what was below it.
func Merge(sets ...PathSet) PathSet {
	switch len(sets) {
	case 0:
		return nil
	case 1:
		return sets[0]
	}
	m := merger{records: map[string]Record{}}
	last := len(sets) - 1
	for i, s := range sets {
		m.prune(s)
		for _, r := range s {
			if r.Op == Renamed && i != last {
				m.put(Record{Op: Gone, Path: r.From})
				r = Record{Op: Tree, Mode: r.Mode, MTime: r.MTime, Path: r.Path}
			}
			m.put(r)
		}
	}
	return m.set()
}

type merger struct {
	records map[string]Record
}

// prune drops what earlier sets said below paths that s says are gone, and turns an earlier "gone" above a path of s into a Tree.
func (m *merger) prune(s PathSet) {
	if gone := s.gone(); gone != nil {
		for p := range m.records {
			if nearest(gone, p) != "" {
				delete(m.records, p)
			}
		}
	}
	earlier := map[string]bool{}
	for p, r := range m.records {
		if r.Op == Gone {
			earlier[p] = true
		}
	}
	for _, r := range s {
		if r.Op == Gone {
			continue
		}
		for above := nearest(earlier, r.Path); above != ""; above = nearest(earlier, above) {
			m.records[above] = Record{Op: Tree, Path: above}
			delete(earlier, above)
		}
	}
}

// put joins the later record r with what stands for its path.
func (m *merger) put(r Record) {
	old, ok := m.records[r.Path]
	if ok {
		r.Op = joined(old, r)
		if r.Op != Renamed {
			r.From = ""
		}
		if r.Op == Tree || r.Op == Level {
			r.Size, r.Link, r.Sum = 0, 0, Digest{}
		}
	}
	m.records[r.Path] = r
}

// joined is the op that asks for at least what both ops ask for, given that the later record states what is.
func joined(old, now Record) Op {
	if now.Op == Gone || now.Op == Tree || now.Op == Renamed {
		return now.Op
	}
	wasTree := old.Op == Tree || old.Op == Gone || old.Op == Renamed
	switch {
	case now.IsDir() && wasTree:
		return Tree
	case now.IsDir() && old.Op == Level:
		return Level
	case now.Op == Meta:
		if old.Op == Meta {
			return Meta
		}
		return Write
	}
	return now.Op
}

func (m *merger) set() PathSet {
	s := make(PathSet, 0, len(m.records))
	for _, r := range m.records {
		s = append(s, r)
	}
	slices.SortFunc(s, func(a, b Record) int { return strings.Compare(a.Path, b.Path) })
	return s.withoutContradictions()
}

// withoutContradictions resolves what only a rename beside other sets can leave: a path below one that is gone makes that one a Tree.
func (s PathSet) withoutContradictions() PathSet {
	gone := s.gone()
	if gone == nil {
		return s
	}
	again := map[string]bool{}
	for _, r := range s {
		if r.Op == Gone {
			continue
		}
		for above := nearest(gone, r.Path); above != ""; above = nearest(gone, above) {
			again[above] = true
		}
	}
	for i := range s {
		if again[s[i].Path] {
			s[i] = Record{Op: Tree, Path: s[i].Path}
		}
	}
	return s
}

// Condense names directories in place of their entries wherever more than perDir records share one, so that at most about limit records are
// left: first as Level, then, from the deepest up, as Tree. What is announced at the top of the module stays by name. ok is false when even
// that is too long; then only the manifest can tell what changed. A Gone or Renamed record is kept as long as it can be.
func (s PathSet) Condense(perDir, limit int) (_ PathSet, ok bool) {
	if len(s) <= limit && perDir <= 0 {
		return s, true
	}
	s = s.levels(perDir)
	for len(s) > limit {
		next := s.raise()
		if len(next) == len(s) {
			return s, false
		}
		s = next
	}
	return s, true
}

// levels replaces the single-inode records of a crowded directory by one Level record.
func (s PathSet) levels(perDir int) PathSet {
	crowd := map[string]int{}
	for _, r := range s {
		if dir := parent(r.Path); dir != "" && r.single() {
			crowd[dir]++
		}
	}
	out := map[string]Record{}
	for _, r := range s {
		dir := parent(r.Path)
		if dir == "" || !r.single() || crowd[dir] <= perDir {
			keepWider(out, r)
			continue
		}
		keepWider(out, Record{Op: Level, Path: dir})
	}
	return sorted(out)
}

// raise replaces the records at the greatest depth by Tree records of their directories.
func (s PathSet) raise() PathSet {
	deepest := 0
	for _, r := range s {
		deepest = max(deepest, strings.Count(r.Path, "/"))
	}
	if deepest == 0 {
		return s
	}
	out := map[string]Record{}
	for _, r := range s {
		if strings.Count(r.Path, "/") < deepest {
			keepWider(out, r)
			continue
		}
		keepWider(out, Record{Op: Tree, Path: parent(r.Path)})
		if r.Op == Renamed {
			keepWider(out, Record{Op: Gone, Path: r.From})
		}
	}
	return sorted(out)
}

// single tells whether the record is about one entry of its directory, which reading that directory's level would tell too. A directory that was
// written counts (a level creates it); a Gone counts (a level with deletions removes it).
func (r Record) single() bool { return r.Op == Write || r.Op == Meta || r.Op == Gone }

// keepWider puts r unless what stands there asks for more.
func keepWider(out map[string]Record, r Record) {
	rank := map[Op]int{Meta: 1, Write: 2, Gone: 3, Level: 4, Renamed: 5, Tree: 6}
	old, ok := out[r.Path]
	switch {
	case !ok || rank[r.Op] > rank[old.Op]:
		if ok && r.Mode == 0 && old.IsDir() {
			r.Mode, r.MTime = old.Mode, old.MTime
		}
		out[r.Path] = r
	case old.Mode == 0 && r.IsDir():
		old.Mode, old.MTime = r.Mode, r.MTime
		out[r.Path] = old
	}
}

func sorted(m map[string]Record) PathSet {
	return (&merger{records: m}).set()
}

func parent(p string) string {
	i := strings.LastIndexByte(p, '/')
	if i < 0 {
		return ""
	}
	return p[:i]
}

// trees is the set of directories that are asked for with everything below.
func (s PathSet) trees() map[string]bool {
	trees := map[string]bool{}
	for _, r := range s {
		if r.Op == Tree || r.Op == Renamed {
			trees[r.Path] = true
		}
	}
	return trees
}

// Swallow drops the records that a Tree above them already asks for, and tells which were dropped: they still say what should be found there.
func (s PathSet) Swallow() (kept, swallowed PathSet) {
	trees := s.trees()
	for _, r := range s {
		if nearest(trees, r.Path) != "" {
			swallowed = append(swallowed, r)
		} else {
			kept = append(kept, r)
		}
	}
	return kept, swallowed
}
