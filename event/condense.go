package event

import (
	"slices"
	"strings"
)

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
	if len(closed) == 0 && !over(crowd, perDir) {
		return s
	}
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

// over tells whether some count is above most.
func over(counts map[string]int, most int) bool {
	for _, n := range counts {
		if n > most {
			return true
		}
	}
	return false
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

// ranks are the ops by how much they ask for.
const ranks = string(Gone) + string(Meta) + string(Write) + string(Level) + string(Tree) + string(Renamed)

// widen puts r unless what stands there asks for more.
func widen(out map[string]Record, r Record) {
	old, ok := out[r.Path]
	if ok && strings.IndexByte(ranks, byte(old.Op)) > strings.IndexByte(ranks, byte(r.Op)) {
		old, r = r, old
	}
	if ok && r.Mode == 0 && old.Mode&ModeType == ModeDir {
		r.Mode, r.MTime = old.Mode, old.MTime
	}
	out[r.Path] = r
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
