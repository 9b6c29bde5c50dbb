package manifest_test

import (
	"errors"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/trigger/manifest"
)

// What somebody touches after it was announced by its directory, and before the manifest has looked, was never announced.
func TestTouchedAfterItsAnnouncement(t *testing.T) {
	for _, set := range []string{"rd", "dd"} {
		root := t.TempDir()
		put(t, root, "d/a", "d/b", "d/c", "e/f")
		m := build(t, root, manifest.Options{})
		announced := time.Now()
		ch := manifest.Change{Serial: 1, Set: say(t, set), Before: announced.Add(-time.Minute), At: announced}
		testenv.WaitFor(t, 10*time.Second, func() error { // file systems keep times by a clock that ticks
			put(t, root, "tick")
			info, err := os.Lstat(within(root, "tick"))
			if err == nil && !info.ModTime().After(announced.Add(time.Millisecond)) {
				err = errors.New("the clock of the file system stands still")
			}
			return err
		})
		check(t, os.Remove(within(root, "tick")))
		put(t, root, "d/a", "d/new")
		check(t, os.Remove(within(root, "d/b")))
		_, err := m.Apply(t.Context(), ch, root)
		check(t, err)
		if got := said(compare(t, m, root).Set); !slices.Equal(got, []string{"dd", "+d/a", "+d/new"}) {
			t.Errorf("%s: %q", set, got)
		}
		may, err := m.MayHold(t.Context(), []string{"d/b", "e/f", "e/g", "e/h"})
		if err != nil || !may["d/b"] || !may["e/f"] {
			t.Errorf("%s: a mirror may hold what is there, and what went too late: %v, %v", set, may, err)
		}
		if may["e/g"] || may["e/h"] {
			t.Errorf("%s: a mirror may not hold what never was: %v", set, may)
		}
		_, err = m.Apply(t.Context(), manifest.Change{Serial: 2, Set: say(t, "dd"), Before: announced, At: time.Now()}, root)
		check(t, err)
		if got := said(compare(t, m, root).Set); len(got) > 0 {
			t.Errorf("%s: announced again, and still %q", set, got)
		}
	}
}

// A directory that goes after its announcement is gone without a word.
func TestGoneAfterItsAnnouncement(t *testing.T) {
	root := t.TempDir()
	put(t, root, "a", "d/b")
	m := build(t, root, manifest.Options{})
	info, err := os.Lstat(within(root, "d"))
	check(t, err)
	set := event.PathSet{{Op: event.Tree, Mode: event.ModeDir | 0o755, MTime: event.StampOf(info.ModTime()), Path: "d"}}
	check(t, os.RemoveAll(within(root, "d")))
	_, err = m.Apply(t.Context(), manifest.Change{Serial: 1, Set: set, At: time.Now()}, root)
	check(t, err)
	if got := said(compare(t, m, root).Set); !slices.Equal(got, []string{"-d"}) {
		t.Errorf("got %q", got)
	}
}
