// Package eventtest is a model of a module for property tests: trees in memory, random histories of them, and the path sets that announce each
// step. It lets a test ask of millions of small histories whether a mirror that does as it is told ends up with the master's tree.
package eventtest

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/mirrorbus/mirrorbus/event"
)

// An Entry is one inode of a Tree.
type Entry struct {
	Mode  uint32   // as st_mode
	Size  int64    // of the content; files with other content have another size or MTime
	MTime int64    // of files, in seconds; 0 for directories
	Needs []string // an index file: the files that it names
}

// IsDir tells whether e is a directory.
func (e Entry) IsDir() bool { return e.Mode&event.ModeType == event.ModeDir }

func (e Entry) equal(o Entry) bool { return e.Mode == o.Mode && e.Size == o.Size && e.MTime == o.MTime }

// A Tree is a module or a mirror of it: entries by path. The parents of each path are there and are directories.
type Tree map[string]Entry

// Clone copies t.
func (t Tree) Clone() Tree { return maps.Clone(t) }

// Paths are the paths of t, sorted.
func (t Tree) Paths() []string { return slices.Sorted(maps.Keys(t)) }

// Remove takes path and all below it away and tells how many entries that were.
func (t Tree) Remove(path string) int {
	before := len(t)
	maps.DeleteFunc(t, func(p string, _ Entry) bool { return p == path || event.Under(path, p) })
	return before - len(t)
}

// Move renames a directory with all below it. Nothing may be at to.
func (t Tree) Move(from, to string) {
	for p, e := range t.Clone() {
		if p == from || event.Under(from, p) {
			t[to+p[len(from):]] = e
		}
	}
	t.Remove(from)
}

// Take makes path in t the inode that master has there: what is below a directory stays, what is in the way of something else goes. Missing
// parents are made as master has them. It is an error if master has no such path.
func (t Tree) Take(master Tree, path string) error {
	e, ok := master[path]
	if !ok {
		return fmt.Errorf("%q is missing on the master", path)
	}
	for _, dir := range Parents(path) {
		t.put(dir, master[dir])
	}
	t.put(path, e)
	return nil
}

func (t Tree) put(path string, e Entry) {
	if old, ok := t[path]; ok && old.IsDir() != e.IsDir() {
		t.Remove(path)
	}
	t[path] = e
}

// Parents are the directories above path, from the top down.
func Parents(path string) []string {
	var dirs []string
	for i := range len(path) {
		if path[i] == '/' {
			dirs = append(dirs, path[:i])
		}
	}
	return dirs
}

// Parent is the directory of path, "" at the top.
func Parent(path string) string { return path[:max(strings.LastIndexByte(path, '/'), 0)] }

// Diff tells in words how got differs from want, nil if it does not.
func Diff(got, want Tree) []string {
	var diff []string
	for p, e := range want {
		if have, ok := got[p]; !ok {
			diff = append(diff, "missing "+p)
		} else if !have.equal(e) {
			diff = append(diff, fmt.Sprintf("%s is %v, not %v", p, have, e))
		}
	}
	for p := range got {
		if _, ok := want[p]; !ok {
			diff = append(diff, "extra "+p)
		}
	}
	slices.Sort(diff)
	return diff
}

// Fill makes in t the directories of master that are not there and would be empty: all that a mirror may lack whose master announces new
// directories only by what is in them.
func (t Tree) Fill(master Tree) {
	for _, p := range slices.Backward(master.Paths()) {
		if _, there := t[p]; !there && master[p].IsDir() && !master.hasFiles(p) && t.above(p) {
			t[p] = master[p]
		}
	}
}

func (t Tree) hasFiles(dir string) bool {
	for p, e := range t {
		if event.Under(dir, p) && !e.IsDir() {
			return true
		}
	}
	return false
}

// above tells whether nothing that is no directory lies above path.
func (t Tree) above(path string) bool {
	return !slices.ContainsFunc(Parents(path), func(dir string) bool { e, ok := t[dir]; return ok && !e.IsDir() })
}

// Holds says what is untrue of t in what r states, or nil.
func Holds(t Tree, r event.Record) error {
	e, ok := t[r.Path]
	switch {
	case r.Op == event.Gone && ok:
		return fmt.Errorf("%q is said to be gone and is there", r.Path)
	case r.Op == event.Gone:
		return nil
	case !ok:
		return fmt.Errorf("%q is said to be there and is gone", r.Path)
	case r.Mode != 0 && (r.Mode != e.Mode || !e.IsDir() && (r.Size != e.Size || r.MTime.Sec != e.MTime)):
		return fmt.Errorf("%q is said to be %o %d %s and is %v", r.Path, r.Mode, r.Size, r.MTime, e)
	case r.Mode == 0 && !e.IsDir():
		return fmt.Errorf("%q is said to be a directory and is %v", r.Path, e)
	}
	return nil
}
