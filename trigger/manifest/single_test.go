package manifest_test

import (
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/trigger/manifest"
)

func TestStill(t *testing.T) {
	root := t.TempDir()
	put(t, root, "a", "b", "c")
	m := build(t, root, manifest.Options{})
	put(t, root, "new")
	check(t, os.Chmod(within(root, "a"), 0o600))
	check(t, os.Remove(within(root, "b")))
	set := compare(t, m, root).Set
	if want := []string{"=a", "-b", "+new"}; !slices.Equal(said(set), want) {
		t.Fatalf("%q", said(set))
	}
	apply(t, m, root, 1, "-b")
	check(t, os.Chmod(within(root, "a"), 0o644))
	still, err := m.Still(t.Context(), root, set)
	if err != nil || !slices.Equal(said(still), []string{"+new"}) {
		t.Errorf("%q, %v", said(still), err)
	}
}

// The names of an inode are known however they came into the manifest, and not those that went.
func TestLinked(t *testing.T) {
	root := t.TempDir()
	put(t, root, "a", "b", "c", "d/x", "d/y", "d/z", "gone", "below/gone")
	m := build(t, root, manifest.Options{})
	inos := map[string]uint64{}
	for _, name := range []string{"a", "b", "c", "d/x", "gone", "below/gone"} {
		inos[name] = inoOf(t, root, name)
	}
	known := func(name, want string) {
		t.Helper()
		names, err := m.Linked(t.Context(), inos[name])
		if got := strings.Join(names, " "); err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", name, got, err, want)
		}
	}
	known("a", "a")
	check(t, os.Rename(within(root, "a"), within(root, "a2")))
	check(t, os.Rename(within(root, "d"), within(root, "e")))
	check(t, os.Link(within(root, "b"), within(root, "e/b2")))
	check(t, os.Link(within(root, "c"), within(root, "c2")))
	check(t, os.Link(within(root, "gone"), within(root, "..", "gone")))
	check(t, os.Remove(within(root, "gone")))
	check(t, os.RemoveAll(within(root, "below")))
	put(t, root, "new")
	inos["new"] = inoOf(t, root, "new")
	set := say(t, "-a", ">e<d", "-gone", "-below")
	set = append(set, stated(t, root, "a2"), stated(t, root, "c2"), stated(t, root, "new")) // as publish tells of single names
	set, err := event.NewPathSet(set)
	check(t, err)
	_, err = m.Apply(t.Context(), manifest.Change{Serial: 1, Set: set}, root)
	check(t, err)
	known("a", "a2")
	known("b", "b e/b2")
	known("c", "c c2")
	known("d/x", "e/x")
	known("new", "new")
	known("gone", "")
	known("below/gone", "")
	for _, r := range live(t, m) {
		if want := r.Path == "e/b2"; (r.Link != 0) != want {
			t.Errorf("%s: mirrors were told of a group %d", r.Path, r.Link)
		}
	}
	// Where the tree lies elsewhere by now, all numbers are others.
	check(t, os.Rename(root, root+".old"))
	check(t, exec.Command("cp", "-a", root+".old", root).Run())
	d, err := m.Compare(t.Context(), root, manifest.CompareOptions{Moved: true}, nil)
	check(t, err)
	check(t, m.Settle(t.Context(), d))
	inos["moved"] = inoOf(t, root, "a2")
	known("moved", "a2")
	known("a", "")
}

func inoOf(t testing.TB, root, name string) uint64 {
	t.Helper()
	info, err := os.Lstat(within(root, name))
	check(t, err)
	return info.Sys().(*syscall.Stat_t).Ino
}

// stated is the record of a file as it is.
func stated(t *testing.T, root, name string) event.Record {
	t.Helper()
	info, err := os.Lstat(within(root, name))
	check(t, err)
	return event.Record{Op: event.Write, Mode: event.ModeFile | uint32(info.Mode().Perm()), Size: info.Size(), MTime: event.StampOf(info.ModTime()), Path: name}
}

func TestMates(t *testing.T) {
	root := t.TempDir()
	grow(t, root, []string{"a", "alone"}, time.Unix(1_500_000_000, 0))
	put(t, root, "d/x", "d-e")
	grow(t, root, []string{"b=a", "d/c=a", "d/c2=a", "d/x2=d/x"}, time.Time{})
	m := build(t, root, manifest.Options{})
	own := inoOf(t, root, "a")
	for _, c := range []struct {
		path string
		ino  uint64
		want string
	}{
		{"a", 0, "b d/c d/c2"}, {"a", own, ""}, {"a", own + 1, "b d/c d/c2"}, {"d", 0, "a b"}, {"d/x", 0, "d/x2"}, {"alone", 0, ""}, {"never/was", 0, ""},
	} {
		names, err := m.Mates(t.Context(), map[string]uint64{c.path: c.ino})
		if got := strings.Join(slices.Sorted(maps.Keys(names)), " "); err != nil || got != c.want {
			t.Errorf("%s: %q, %v, want %q", c.path, got, err, c.want)
		}
	}
	tree, err := os.OpenRoot(root)
	check(t, err)
	defer tree.Close() //nolint:errcheck // only read
	check(t, os.Remove(within(root, "d/x2")))
	check(t, os.Chmod(within(root, "b"), 0o600))
	put(t, root, "new")
	for path, want := range map[string]bool{"a": true, "d/c": true, "alone": false, "d/x": false, "d/x2": true, "new": true, "never": false} {
		if changed, err := m.Changed(t.Context(), tree, path); err != nil || changed != want {
			t.Errorf("%s: changed %t, %v", path, changed, err)
		}
	}
}
