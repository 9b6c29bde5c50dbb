package trigger_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What is written through one name of a file, which is then removed or replaced, is announced for the others, and only then.
func TestOtherNamesOfWhatWasWrittenThroughALostName(t *testing.T) {
	m := newMaster(t)
	m.write("a", "x")
	in := func(name string) string { return filepath.Join(m.tree, name) }
	size := 10
	write := func(name string) {
		t.Helper()
		size++
		check(t, os.WriteFile(in(name), []byte(strings.Repeat("w", size)), 0o644))
	}
	link := func(old string, names ...string) {
		t.Helper()
		for _, name := range names {
			check(t, os.MkdirAll(filepath.Dir(in(name)), 0o755))
			check(t, os.Link(in(old), in(name)))
		}
	}
	link("a", "b", "d/c")
	link("x", "y/z", "y/z2")
	h, parts := m.running()
	announce := func(want string, names ...string) {
		t.Helper()
		r := request(names...)
		r.AsFound = true
		m.check(h, parts, r, want)
	}

	write("a")
	check(t, os.Remove(in("a")))
	announce("-a +b +d/c", "a")

	write("b")
	write("new")
	check(t, os.Rename(in("new"), in("b")))
	announce("+b +d/c", "b")

	write("y/z")
	check(t, os.RemoveAll(in("y")))
	announce("+x -y", "y")

	link("d/c", "e", "f") // the manifest does not know them yet
	announce("+d/c +e +f", "d/c", "e", "f")
	check(t, os.Remove(in("e")))
	announce("-e", "e")
	write("f")
	check(t, os.Remove(in("f")))
	announce("+d/c -f", "f")
}
