package eventtest

import (
	"maps"
	"slices"

	"pgregory.net/rapid"

	"github.com/mirrorbus/mirrorbus/event"
)

// A History is a module's past: States[0] is where it began, and Sets[i] announces the step from States[i] to States[i+1].
type History struct {
	States []Tree
	Sets   []event.PathSet
}

// Last is the newest state.
func (h History) Last() Tree { return h.States[len(h.States)-1] }

// Index is the name of the index files of a History: those in any directory called so are about the files below "pool".
const Index = "index"

// Options say what a History is to have.
type Options struct {
	// Indexed: files called Index exist that name some files below pool, and each state is consistent: they name no file that is not there.
	Indexed bool
	// Implied: the announcements may leave out new directories that have something named below them, as a list of file names does.
	Implied bool
}

// Draw makes a random History of small trees with names that come again and again.
func Draw(t *rapid.T, o Options) History {
	w := &writer{t: t, tree: Tree{}, clock: 1}
	for range rapid.IntRange(0, 25).Draw(t, "ops at first") {
		w.step()
	}
	w.reindex(o.Indexed)
	h := History{States: []Tree{w.tree.Clone()}}
	for range rapid.IntRange(1, 4).Draw(t, "announcements") {
		w.renames = nil
		for range rapid.IntRange(1, 6).Draw(t, "ops") {
			w.step()
		}
		w.reindex(o.Indexed)
		h.Sets = append(h.Sets, announce(t, h.Last(), w.tree, w.renames, o.Implied))
		h.States = append(h.States, w.tree.Clone())
	}
	return h
}

// A writer changes a tree.
type writer struct {
	t       *rapid.T
	tree    Tree
	clock   int64
	renames [][2]string // of directories since the last announcement: from, to
}

var names = []string{"a", "a-b", "b", "c", "pool"}

// path draws a path of at most three components.
func (w *writer) path(label string) string {
	p := rapid.SampledFrom(names).Draw(w.t, label)
	for range rapid.IntRange(0, 2).Draw(w.t, "depth") {
		p += "/" + rapid.SampledFrom(names).Draw(w.t, label)
	}
	return p
}

func (w *writer) step() {
	p := w.path("path")
	e, there := w.tree[p]
	w.clock++
	switch rapid.SampledFrom([]string{"write", "write", "write", "mkdir", "remove", "chmod", "rename", "replace", "copy"}).Draw(w.t, "op") {
	case "write":
		if !e.IsDir() {
			w.write(p, event.ModeFile|0o644)
		}
	case "replace":
		w.tree.Remove(p)
		w.write(p, rapid.SampledFrom([]uint32{event.ModeFile | 0o600, event.ModeLink | 0o777, event.ModeDir | 0o755}).Draw(w.t, "mode"))
	case "mkdir":
		if !there {
			w.write(p, event.ModeDir|0o755)
		}
	case "remove":
		w.tree.Remove(p)
	case "chmod":
		if there && e.Mode&event.ModeType != event.ModeLink {
			e.Mode = e.Mode&event.ModeType | rapid.SampledFrom([]uint32{0o700, 0o750, 0o755}).Draw(w.t, "permissions")
			w.tree[p] = e
		}
	case "rename":
		w.rename(p, w.path("to"))
	}
}

// write puts a new inode at p if its parents can be directories.
func (w *writer) write(p string, mode uint32) {
	for _, dir := range Parents(p) {
		if e, ok := w.tree[dir]; ok && !e.IsDir() {
			return
		}
	}
	for _, dir := range Parents(p) {
		if _, ok := w.tree[dir]; !ok {
			w.tree[dir] = Entry{Mode: event.ModeDir | 0o755}
		}
	}
	e := Entry{Mode: mode}
	if !e.IsDir() {
		e.Size, e.MTime = w.clock%3, w.clock
	}
	w.tree[p] = e
}

func (w *writer) rename(from, to string) {
	if !w.tree[from].IsDir() || from == to || event.Under(from, to) || event.Under(to, from) {
		return
	}
	w.tree.Remove(to)
	w.write(to, event.ModeDir|0o755)
	if _, ok := w.tree[to]; !ok {
		return // a parent of to is a file
	}
	w.tree.Remove(to)
	w.tree.Move(from, to)
	w.renames = append(w.renames, [2]string{from, to})
}

// reindex brings the index files up to date with pool, or makes sure that there are none.
func (w *writer) reindex(indexed bool) {
	if !indexed {
		return
	}
	maps.DeleteFunc(w.tree, func(_ string, e Entry) bool { return e.Needs != nil }) // wherever it was moved
	pool := slices.DeleteFunc(w.tree.Paths(), func(p string) bool { return !event.Under("pool", p) || w.tree[p].IsDir() })
	for _, p := range []string{Index, "a/" + Index, "pool/" + Index} {
		dir := Parent(p)
		if dir != "" && !w.tree[dir].IsDir() || rapid.IntRange(0, 3).Draw(w.t, "no index") == 0 {
			continue
		}
		e := Entry{Mode: event.ModeFile | 0o644, Size: w.clock, MTime: w.clock, Needs: []string{}}
		for _, f := range pool {
			if rapid.Bool().Draw(w.t, "indexed") && f != "pool/"+Index {
				e.Needs = append(e.Needs, f)
			}
		}
		w.tree[p] = e
	}
}
