package trigger_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mirrorbus/mirrorbus/internal/envelope"
	"github.com/mirrorbus/mirrorbus/trigger"
)

// A linker makes links, and publishes names as they are found.
type linker struct {
	*master
	h     *trigger.Hub
	parts *trigger.Parts
	size  int
}

func newLinker(t *testing.T, files ...string) *linker {
	m := newMaster(t)
	m.write(files...)
	h, parts := m.running()
	return &linker{master: m, h: h, parts: parts, size: 10}
}

func (l *linker) in(name string) string { return filepath.Join(l.tree, name) }

func (l *linker) link(old, name string) {
	l.t.Helper()
	check(l.t, os.MkdirAll(filepath.Dir(l.in(name)), 0o755))
	check(l.t, os.Link(l.in(old), l.in(name)))
}

// rewrite writes a file through one of its names.
func (l *linker) rewrite(name string) {
	l.t.Helper()
	l.size++
	check(l.t, os.WriteFile(l.in(name), []byte(strings.Repeat("w", l.size)), 0o644))
}

// announce publishes names, and compares what is announced; a number after a name is that of its link group.
func (l *linker) announce(want string, names ...string) {
	l.t.Helper()
	r := request(names...)
	r.AsFound = true
	_, err := l.h.Publish(l.t.Context(), r)
	check(l.t, err)
	a, err := l.parts.Journal.Latest(l.t.Context(), "m")
	check(l.t, err)
	set, err := envelope.PathSet(a.Set, a.Announcement.Set)
	check(l.t, err)
	var all []string
	for _, rec := range set {
		s := fmt.Sprintf("%c%s", rec.Op, rec.Path)
		if rec.Link != 0 {
			s += fmt.Sprint("@", rec.Link)
		}
		all = append(all, s)
	}
	if got := strings.Join(all, " "); got != want {
		l.t.Errorf("announced %s, want %s", got, want)
	}
}

// A file that had one name gets another one: nobody names the old one, and both are announced.
func TestNewLinkToAFileOfOneName(t *testing.T) {
	l := newLinker(t, "a", "b", "d/c")
	l.link("a", "q")
	l.announce("+a@1 +q@1", "q")
	check(t, os.Chmod(l.in("q"), 0o600))
	l.announce("+a@1 +q@1", "q")
	l.rewrite("q")
	check(t, os.Remove(l.in("q")))
	l.announce("+a -q", "q")

	check(t, os.Symlink("b", l.in("s")))
	l.announce("+s", "s")
	l.link("s", "d/s")
	l.announce("+d/s@1 +s@1", "d/s")

	l.link("b", "x")
	l.link("d/c", "y")
	l.announce("+b@1 +d/c@2 +x@1 +y@2", "x", "y")
}

// Where a file lies by now tells what was announced, whether or not the manifest has it already.
func TestNewLinkToAFileThatWasRenamed(t *testing.T) {
	l := newLinker(t, "a", "d/b", "d/c", "d/d")
	check(t, os.Rename(l.in("a"), l.in("a2")))
	l.announce("-a +a2", "a", "a2")
	l.link("a2", "e")
	l.announce("+a2@1 +e@1", "e")

	check(t, os.Rename(l.in("d"), l.in("f")))
	r := trigger.NewRequest("m", []trigger.Name{{Op: '>', Path: "f", From: "d"}})
	r.AsFound = true
	l.check(l.h, l.parts, r, ">f")
	l.link("f/b", "e2")
	l.announce("+e2@1 +f/b@1", "e2")

	l.rewrite("new") // what is another file by now is no name of the old one
	l.announce("+new", "new")
	check(t, os.Rename(l.in("f/c"), l.in("old")))
	check(t, os.Rename(l.in("new"), l.in("f/c")))
	l.link("old", "old2")
	l.announce("+old@1 +old2@1", "old", "old2")
}

// A directory that is announced with what is below it brings a new name of a file; nobody has told of the old one.
func TestNewLinkInADirectory(t *testing.T) {
	l := newLinker(t, "a", "b", "c")
	l.link("a", "t/u/a")
	l.link("b", "t/u/b")
	l.link("c", "t/c")
	l.announce("rt", "r:t")
	check(t, os.Chmod(l.in("t/u/a"), 0o600))
	l.announce("+a@1 +t/u/a@1", "t/u/a")
	check(t, os.Chmod(l.in("b"), 0o600))
	l.announce("+b@1 +t/u/b@1", "b")
	l.rewrite("c") // and now the old name goes
	check(t, os.Remove(l.in("c")))
	l.announce("-c +t/c", "c")
}

// A name outside the module is nobody's business, however often the file is announced and scanned.
func TestNewLinkOutsideTheModule(t *testing.T) {
	l := newLinker(t, "a", "b")
	check(t, os.Link(l.in("a"), filepath.Join(filepath.Dir(l.tree), "away")))
	if s := scan(t, l.h, trigger.ScanRequest{}); s.Published != nil {
		t.Errorf("%+v", s)
	}
	l.announce("+a", "a")
	l.link("a", "q")
	l.announce("+a@1 +q@1", "q")
	check(t, os.Remove(l.in("q")))
	l.announce("-q", "q")
	l.rewrite("a")
	l.announce("+a", "a")
	if s := scan(t, l.h, trigger.ScanRequest{}); s.Published != nil {
		t.Errorf("%+v", s)
	}
}
