package sourcetest

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/trigger"
)

// A change is one that a source must see. It happens in a folder of its own, where before was.
type change struct {
	name    string
	before  string // names, with / after folders, separated by spaces
	do      func(in func(string) string) error
	touched string // names that may be announced though they are as they were
	quiet   bool   // there is nothing to announce
}

func listed() []change {
	write := func(in func(string) string, name, text string) error {
		return os.WriteFile(in(name), []byte(text), 0o644)
	}
	steps := func(errs ...error) error {
		for _, err := range errs {
			if err != nil {
				return err
			}
		}
		return nil
	}
	return []change{
		{"nothing", "a d/b", func(func(string) string) error { return nil }, "", true},
		{"a new file", "a", func(in func(string) string) error { return write(in, "b", "new") }, "", false},
		{"written in place", "a b", func(in func(string) string) error { return write(in, "a", "longer than before") }, "", false},
		{"appended to", "a b", func(in func(string) string) error {
			f, err := os.OpenFile(in("a"), os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteString("more")
			return steps(err, f.Close())
		}, "", false},
		{"replaced by renaming", "a b", func(in func(string) string) error {
			return steps(write(in, ".a.Xy12", "longer than before"), os.Rename(in(".a.Xy12"), in("a")))
		}, ".a.Xy12", false},
		{"a temporary file", "a", func(in func(string) string) error { return steps(write(in, ".tmp", "x"), os.Remove(in(".tmp"))) }, ".tmp", true},
		{"removed", "a b", func(in func(string) string) error { return os.Remove(in("a")) }, "", false},
		{"removed with what is below", "d/e/f d/g d/h/i a", func(in func(string) string) error { return os.RemoveAll(in("d")) }, "d/e d/g d/h d/e/f d/h/i", false},
		{"mode of a file", "a b", func(in func(string) string) error { return os.Chmod(in("a"), 0o600) }, "", false},
		{"mode of a folder", "d/a d/b", func(in func(string) string) error { return os.Chmod(in("d"), 0o700) }, "", false},
		{"mode there and back", "a d/b", func(in func(string) string) error { return steps(os.Chmod(in("d"), 0o700), os.Chmod(in("d"), 0o755)) }, "d", true},
		{"a file renamed", "a b", func(in func(string) string) error { return os.Rename(in("a"), in("c")) }, "", false},
		{"a folder renamed", "d/a d/b d/s/c d/s/d", func(in func(string) string) error { return os.Rename(in("d"), in("e")) }, "", false},
		{"a folder renamed and renamed", "d/a d/b d/s/c", func(in func(string) string) error {
			return steps(os.Rename(in("d"), in("e")), os.Rename(in("e"), in("f")))
		}, "e", false},
		{"a folder renamed and changed", "d/a d/b d/s/c", func(in func(string) string) error {
			return steps(os.Rename(in("d"), in("e")), write(in, "e/new", "x"), os.Remove(in("e/a")))
		}, "", false},
		{"a folder renamed, and another in its place", "d/a d/b d/s/c", func(in func(string) string) error {
			return steps(os.Rename(in("d"), in("e")), os.Mkdir(in("d"), 0o755), write(in, "d/x", "x"))
		}, "", false},
		{"a folder moved into another", "d/a d/b d/s/c e/f", func(in func(string) string) error { return os.Rename(in("d"), in("e/d")) }, "", false},
		{"a folder filled as it is made", "a", func(in func(string) string) error {
			return steps(os.MkdirAll(in("x/y/z"), 0o755), write(in, "x/y/z/f", "x"), write(in, "x/g", "x"), os.Mkdir(in("x/y/empty"), 0o700))
		}, "", false},
		{"an empty folder", "a", func(in func(string) string) error { return os.Mkdir(in("d"), 0o755) }, "", false},
		{"a hard link", "a b", func(in func(string) string) error { return os.Link(in("a"), in("c")) }, "a", false},
		{"mode through a new hard link", "a b", func(in func(string) string) error { return steps(os.Link(in("a"), in("c")), os.Chmod(in("c"), 0o600)) }, "", false},
		{"written through a new hard link", "d/a b", func(in func(string) string) error {
			return steps(os.Link(in("d/a"), in("c")), write(in, "c", "longer than before"))
		}, "", false},
		{"written through a hard link", "a b=a d/c=a e", func(in func(string) string) error { return write(in, "b", "longer than before") }, "", false},
		{"mode through a hard link", "a b=a d/c=a e", func(in func(string) string) error { return os.Chmod(in("d/c"), 0o600) }, "", false},
		{"a hard link broken", "a b=a e", func(in func(string) string) error {
			return steps(write(in, ".b.new", "longer than before"), os.Rename(in(".b.new"), in("b")))
		}, "a .b.new", false},
		{"a symbolic link", "a", func(in func(string) string) error { return os.Symlink("a", in("l")) }, "", false},
		{"a symbolic link to elsewhere", "a l@a", func(in func(string) string) error {
			return steps(os.Symlink("elsewhere", in(".l")), os.Rename(in(".l"), in("l")))
		}, ".l", false},
		{"a folder in place of a file", "a b", func(in func(string) string) error {
			return steps(os.Remove(in("a")), os.Mkdir(in("a"), 0o755), write(in, "a/x", "x"))
		}, "", false},
		{"a file in place of a folder", "d/a d/s/b", func(in func(string) string) error { return steps(os.RemoveAll(in("d")), write(in, "d", "x")) }, "d/a d/s d/s/b", false},
		{"a link in place of a folder", "d/a d/s/b e", func(in func(string) string) error {
			return steps(os.Rename(in("d"), in("f")), os.Symlink("f", in("d")))
		}, "", false},
		{"line ends and no UTF-8", "a\nb caf\xe9/x", func(in func(string) string) error {
			return steps(os.Remove(in("a\nb")), write(in, "caf\xe9/\xff\n", "x"), os.Chmod(in("caf\xe9"), 0o700))
		}, "", false},
		{"a pipe", "a", func(in func(string) string) error { return syscall.Mkfifo(in("p"), 0o600) }, "", true},
	}
}

// changes makes each listed change once.
func changes(t *testing.T, h Harness) {
	m := start(t, h)
	s := h.Start(t, m)
	for _, c := range listed() {
		t.Run(c.name, func(t *testing.T) {
			top := strings.ReplaceAll(c.name, " ", "-")
			in := func(name string) string { return filepath.Join(m.Tree, top, name) }
			check(t, os.Mkdir(filepath.Join(m.Tree, top), 0o755))
			for _, name := range strings.Split(c.before, " ") {
				grow(t, in, name)
			}
			sync(t, s)
			k := m.mark(t)
			check(t, c.do(in))
			sync(t, s)
			touched := []string{top}
			for _, name := range strings.Fields(c.touched) {
				touched = append(touched, top+"/"+name)
			}
			if n := len(k.announced(t)); c.quiet && c.touched == "" && n > 0 {
				t.Errorf("%d announcements of nothing", n)
			}
			k.check(t, touched...)
		})
	}
}

// grow makes a file; name=other is a hard link, name@target a symbolic link.
func grow(t *testing.T, in func(string) string, name string) {
	t.Helper()
	link, other, hard := strings.Cut(name, "=")
	soft, target, symbolic := strings.Cut(name, "@")
	check(t, os.MkdirAll(filepath.Dir(in(link)), 0o755))
	switch {
	case hard:
		check(t, os.Link(in(other), in(link)))
	case symbolic:
		check(t, os.Symlink(target, in(soft)))
	default:
		check(t, os.WriteFile(in(name), []byte("before"), 0o644))
	}
}

// random shakes a tree, and looks from time to time. With these seeds no file that had one name is changed through a new one which goes again before anybody has
// looked: nobody could tell which file that was.
func random(t *testing.T, h Harness) {
	m := start(t, h)
	for _, name := range []string{"a/b", "b=a/b", "c d/e=a/b", "a-b", "a.b/a=a-b", "c d/b=a-b"} {
		grow(t, m.in, name)
	}
	s := h.Start(t, m)
	sync(t, s)
	for seed := range uint64(6) {
		shaker := NewShaker(t, m.Tree, rand.New(rand.NewPCG(seed, 2)))
		k := m.mark(t)
		for range 5 {
			shaker.Touched = nil
			for range 12 {
				shaker.Step()
			}
			sync(t, s)
			k.check(t, shaker.Touched...)
			if t.Failed() {
				t.Fatalf("seed %d", seed)
			}
		}
	}
}

// stopped changes a tree while no source runs, and kills one that may be in the midst of it.
func stopped(t *testing.T, h Harness) {
	m := start(t, h)
	shaker := NewShaker(t, m.Tree, rand.New(rand.NewPCG(1, 3)))
	k := m.mark(t)
	for range 4 {
		s := h.Start(t, m)
		for range 20 {
			shaker.Step()
		}
		s.Stop()
		seen := Look(t, m.Tree) // a source that lives may have announced what was there for a while
		for range 20 {
			shaker.Step()
		}
		s = h.Start(t, m)
		sync(t, s)
		s.Stop()
		k.check(t, append(seen.differing(k.facts), shaker.Touched...)...)
	}
}

// missed changes a tree unseen.
func missed(t *testing.T, h Harness) {
	if h.Miss == nil {
		t.Skip("this source misses nothing")
	}
	m := start(t, h)
	s := h.Start(t, m)
	shaker := NewShaker(t, m.Tree, rand.New(rand.NewPCG(1, 4)))
	k := m.mark(t)
	for range 4 {
		passing := h.Miss(t, s, func() {
			for range 40 {
				shaker.Step()
			}
		})
		sync(t, s)
		k.check(t, append(passing, shaker.Touched...)...)
	}
}

// announced changes what somebody else announces, by names and by directories: nothing is lost between the two.
func announced(t *testing.T, h Harness) {
	m := start(t, h)
	s := h.Start(t, m)
	in := m.in
	for _, name := range []string{"d/a", "d/b", "d/s/c", "e"} {
		grow(t, in, name)
	}
	sync(t, s)
	for range 3 {
		k := m.mark(t)
		check(t, os.WriteFile(in("e"), []byte(strings.Repeat("e", int(k.serial)+20)), 0o644))
		check(t, os.WriteFile(in("d/new"), []byte(strings.Repeat("n", int(k.serial)+20)), 0o644))
		_, err := m.Hub.Publish(t.Context(), trigger.NewRequest(Module, []trigger.Name{{Path: "e"}, {Path: "d"}}))
		check(t, err)
		later(t, m)
		check(t, os.WriteFile(in("d/a"), []byte(strings.Repeat("a", int(k.serial)+20)), 0o644))
		check(t, os.Remove(in("d/new")))
		sync(t, s)
		if sets := k.announced(t); len(sets) < 2 || !speaks(sets[1:], "d/a") || !speaks(sets[1:], "d/new") {
			t.Errorf("what was touched after it was announced is not announced: %d announcements", len(sets))
		}
		k.check(t, "d", "d/new", "e")
	}
}

// speaks tells whether one of the sets is about path: by its name, or by that of its directory with what is in it.
func speaks(sets []event.PathSet, path string) bool {
	for _, set := range sets {
		for _, r := range set {
			wide := r.Op == event.Level || r.Op == event.Tree || r.Op == event.Gone
			if r.Path == path || wide && event.Under(r.Path, path) {
				return true
			}
		}
	}
	return false
}

// later waits until the file system's clock has gone on.
func later(t *testing.T, m Master) {
	t.Helper()
	probe := filepath.Join(filepath.Dir(m.Tree), "clock")
	stamp := func() int64 {
		check(t, os.WriteFile(probe, nil, 0o644))
		info, err := os.Lstat(probe)
		check(t, err)
		return info.ModTime().UnixMilli()
	}
	for began := stamp(); stamp() < began+20; { //nolint:revive // it waits
	}
}
