package manifest_test

import (
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

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

func TestMates(t *testing.T) {
	root := t.TempDir()
	grow(t, root, []string{"a", "alone"}, time.Unix(1_500_000_000, 0))
	put(t, root, "d/x", "d-e")
	grow(t, root, []string{"b=a", "d/c=a", "d/c2=a", "d/x2=d/x"}, time.Time{})
	m := build(t, root, manifest.Options{})
	info, err := os.Lstat(within(root, "a"))
	check(t, err)
	own := info.Sys().(*syscall.Stat_t).Ino
	for _, c := range []struct {
		path string
		ino  uint64
		want string
	}{
		{"a", 0, "b d/c d/c2"}, {"a", own, ""}, {"a", own + 1, "b d/c d/c2"}, {"d", 0, "a b"}, {"d/x", 0, "d/x2"}, {"alone", 0, ""}, {"never/was", 0, ""},
	} {
		names, err := m.Mates(t.Context(), c.path, c.ino)
		if got := strings.Join(names, " "); err != nil || got != c.want {
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
