package manifest_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/sqlite"
	"github.com/mirrorbus/mirrorbus/trigger/manifest"
)

func TestBuildFindsTheTree(t *testing.T) {
	root := t.TempDir()
	put(t, root, "a", "a-b/c", "d/a/x", "d/a-b", "d/a.c/y", "d/a b", ".mirrorbus/head", "odd\nname", "caf\xe9")
	check(t, os.Symlink("nowhere", filepath.Join(root, "link")))
	check(t, os.Link(filepath.Join(root, "a"), filepath.Join(root, "again")))
	check(t, os.Mkdir(filepath.Join(root, "empty"), 0o700))
	check(t, unix.Mkfifo(filepath.Join(root, "fifo"), 0o600))
	m := open(t, filepath.Join(t.TempDir(), "manifest.db"), manifest.Options{})
	var seen manifest.Progress
	p, err := m.Build(t.Context(), root, epoch, 7, func(p manifest.Progress) { seen = p })
	check(t, err)
	all := records(t, m, "")
	want := []string{"+a@7", "+a-b@7", "+a-b/c@7", "+again@7", "+caf\xe9@7", "+d@7", "+d/a@7", "+d/a b@7", "+d/a-b@7", "+d/a.c@7", "+d/a.c/y@7", "+d/a/x@7",
		"+empty@7", "+link@7", "+odd\nname@7"}
	if d := cmp.Diff(want, summary(all)); d != "" {
		t.Error(d)
	}
	if p.Entries != int64(len(want)) || p.Special != 1 || seen.Entries != p.Entries || p.Waiting != 0 || p.Dirs != 6 {
		t.Errorf("progress %+v, last reported %+v", p, seen)
	}
	if a, again := all[0], all[3]; a.Link == 0 || a.Link != again.Link || a.Size != 1 || a.Mode != event.ModeFile|0o644 {
		t.Errorf("hard links: %+v and %+v", a, again)
	}
	count, err := m.Count(t.Context())
	if err != nil || count.Entries != int64(len(want)) || count.Bytes != p.Bytes || count.Tombstones != 0 {
		t.Errorf("count %+v, %v", count, err)
	}
	pos, err := m.Position(t.Context())
	if want := (manifest.Position{Epoch: epoch, Serial: 7, Floor: 7}); err != nil || pos != want {
		t.Errorf("position %+v, %v", pos, err)
	}
}

func TestRecordsBelow(t *testing.T) {
	root := t.TempDir()
	put(t, root, "d/a/x", "d/a-b", "d/a.c/y", "d/ab", "e")
	m := build(t, root, manifest.Options{})
	for prefix, want := range map[string][]string{
		"d/a": {"+d/a@0", "+d/a/x@0"}, "d": {"+d@0", "+d/a@0", "+d/a-b@0", "+d/a.c@0", "+d/a.c/y@0", "+d/a/x@0", "+d/ab@0"}, "e": {"+e@0"}, "none": {},
	} {
		if d := cmp.Diff(want, summary(records(t, m, prefix))); d != "" {
			t.Errorf("%s: %s", prefix, d)
		}
	}
	if r, ok, err := m.Get(t.Context(), "d/a.c/y"); err != nil || !ok || r.Path != "d/a.c/y" || r.Size != 7 {
		t.Errorf("got %+v, %v, %v", r, ok, err)
	}
	if _, ok, err := m.Get(t.Context(), "d/a.c/z"); err != nil || ok {
		t.Errorf("got %v, %v", ok, err)
	}
}

func TestApply(t *testing.T) {
	long := time.Now().Add(-time.Hour)
	for name, c := range map[string]struct {
		before []string
		change func(root string)
		set    []string
		want   []string
	}{
		"write": {[]string{"a"}, func(root string) { put(t, root, "b") }, []string{"+b"}, []string{"+a@0", "+b@1"}},
		"write below a new directory": {[]string{"a"}, func(root string) { put(t, root, "x/y/z") }, []string{"+x/y/z"},
			[]string{"+a@0", "+x@1", "+x/y@1", "+x/y/z@1"}},
		"metadata": {[]string{"a", "b"}, func(root string) { check(t, os.Chmod(filepath.Join(root, "a"), 0o600)) }, []string{"=a"}, []string{"+a@1", "+b@0"}},
		"gone with what is below": {[]string{"a", "d/e/f", "d-x"}, func(root string) { check(t, os.RemoveAll(filepath.Join(root, "d"))) }, []string{"-d"},
			[]string{"+a@0", "-d@1", "+d-x@0", "-d/e@1", "-d/e/f@1"}},
		"gone and never known": {[]string{"a"}, func(string) {}, []string{"-b"}, []string{"+a@0", "-b@1"}},
		"level": {[]string{"d/a", "d/b", "d/sub/c"}, func(root string) {
			put(t, root, "d/new", "d/sub/unseen")
			check(t, os.Remove(filepath.Join(root, "d/a")))
		}, []string{"dd"}, []string{"+d@1", "-d/a@1", "+d/b@0", "+d/new@1", "+d/sub@1", "+d/sub/c@0"}},
		"tree": {[]string{"d/a", "d/sub/c", "e"}, func(root string) {
			put(t, root, "d/sub/new/x", "e")
			check(t, os.Remove(filepath.Join(root, "d/a")))
		}, []string{"rd"}, []string{"+d@1", "-d/a@1", "+d/sub@1", "+d/sub/c@0", "+d/sub/new@1", "+d/sub/new/x@1", "+e@0"}},
		"tree that is gone again": {[]string{"d/a"}, func(root string) { check(t, os.RemoveAll(filepath.Join(root, "d"))) }, []string{"rd"},
			[]string{"-d@1", "-d/a@1"}},
		"renamed": {[]string{"old/a", "old/s/b"}, func(root string) { check(t, os.Rename(filepath.Join(root, "old"), filepath.Join(root, "new"))) }, []string{">new<old"},
			[]string{"+new@1", "+new/a@1", "+new/s@1", "+new/s/b@1", "-old@1", "-old/a@1", "-old/s@1", "-old/s/b@1"}},
		"file in place of a directory": {[]string{"d/a"}, func(root string) { check(t, os.RemoveAll(filepath.Join(root, "d"))); put(t, root, "d") }, []string{"+d"},
			[]string{"+d@1", "-d/a@1"}},
		"directory in place of a file": {[]string{"d"}, func(root string) { check(t, os.Remove(filepath.Join(root, "d"))); put(t, root, "d/a") }, []string{"rd"},
			[]string{"+d@1", "+d/a@1"}},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			put(t, root, c.before...)
			for _, p := range c.before {
				check(t, os.Chtimes(filepath.Join(root, p), long, long))
			}
			m := build(t, root, manifest.Options{})
			c.change(root)
			apply(t, m, root, 1, c.set...)
			if d := cmp.Diff(c.want, summary(records(t, m, ""))); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestApplyAnythingMayHaveChanged(t *testing.T) {
	root := t.TempDir()
	put(t, root, "a", "d/b")
	m := build(t, root, manifest.Options{})
	put(t, root, "d/c")
	check(t, os.Remove(filepath.Join(root, "a")))
	_, err := m.Apply(t.Context(), manifest.Change{Serial: 1, Before: time.Now().Add(time.Hour)}, root)
	check(t, err)
	if d := cmp.Diff([]string{"-a@1", "+d@1", "+d/b@0", "+d/c@1"}, summary(records(t, m, ""))); d != "" {
		t.Error(d)
	}
}

// What was touched after the announcement before may be missing on a mirror at that serial, though this manifest knew it already.
func TestApplyTakesWhatWasTouchedSince(t *testing.T) {
	root := t.TempDir()
	put(t, root, "d/a")
	m := build(t, root, manifest.Options{})
	_, err := m.Apply(t.Context(), manifest.Change{Serial: 1, Set: say(t, "dd"), Before: time.Now().Add(-time.Minute)}, root)
	check(t, err)
	if d := cmp.Diff([]string{"+d@1", "+d/a@1"}, summary(records(t, m, ""))); d != "" {
		t.Error(d)
	}
}

func TestApplyInOrderAndOnce(t *testing.T) {
	root := t.TempDir()
	put(t, root, "a")
	m := build(t, root, manifest.Options{})
	if _, err := m.Apply(t.Context(), manifest.Change{Serial: 2, Set: say(t, "+a")}, root); err == nil || !strings.Contains(err.Error(), "is at serial 0") {
		t.Errorf("got %v", err)
	}
	apply(t, m, root, 1, "+a")
	if done := apply(t, m, root, 1, "+a"); done != (manifest.Applied{}) {
		t.Errorf("again: %+v", done)
	}
}

func TestForget(t *testing.T) {
	root := t.TempDir()
	put(t, root, "a", "b", "c")
	m := build(t, root, manifest.Options{})
	apply(t, m, root, 1, "-a")
	apply(t, m, root, 2, "-b")
	check(t, m.Forget(t.Context(), 1))
	if d := cmp.Diff([]string{"-b@2", "+c@0"}, summary(records(t, m, ""))); d != "" {
		t.Error(d)
	}
	if pos, err := m.Position(t.Context()); err != nil || pos.Floor != 1 || pos.Serial != 2 {
		t.Errorf("%+v, %v", pos, err)
	}
}

func TestInterruptedBuildIsNoManifest(t *testing.T) {
	root := t.TempDir()
	put(t, root, "a", "d/b")
	m := build(t, root, manifest.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	_, err := m.Build(ctx, root, epoch, 1, func(manifest.Progress) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if _, err := m.Position(t.Context()); !errors.Is(err, manifest.ErrNotBuilt) {
		t.Errorf("got %v", err)
	}
	_, err = m.Build(t.Context(), root, epoch, 1, nil)
	check(t, err)
	if n := len(records(t, m, "")); n != 3 {
		t.Errorf("%d records", n)
	}
}

func TestBuildOfNothing(t *testing.T) {
	m := open(t, filepath.Join(t.TempDir(), "manifest.db"), manifest.Options{})
	missing := filepath.Join(t.TempDir(), "missing")
	if _, err := m.Build(t.Context(), missing, epoch, 0, nil); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), missing) {
		t.Errorf("got %v", err)
	}
	root := t.TempDir()
	_, err := m.Build(t.Context(), root, epoch, 0, nil)
	check(t, err)
	w, _ := writer(t)
	ix, d, err := m.Export(t.Context(), w, event.Digest{})
	check(t, err)
	put(t, root, "a")
	apply(t, m, root, 1, "+a")
	next, _, err := m.Export(t.Context(), w, d)
	if err != nil || ix.Entries != 0 || next.Entries != 1 {
		t.Errorf("%+v, %+v, %v", ix, next, err)
	}
}

func TestDamagedManifestNamesTheFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "manifest.db")
	check(t, os.WriteFile(file, []byte(strings.Repeat("garbage ", 1000)), 0o600))
	if _, err := manifest.Open(t.Context(), file, module, manifest.Options{}); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("got %v", err)
	}
}

func TestManifestFromANewerVersion(t *testing.T) {
	file := filepath.Join(t.TempDir(), "manifest.db")
	newer := []sqlite.Component{{Name: "manifest", Steps: []string{"", "", "", ""}}}
	db, err := sqlite.Open(t.Context(), file, sqlite.Options{Durability: sqlite.Normal, Schema: newer})
	check(t, err)
	check(t, db.Close())
	if _, err := manifest.Open(t.Context(), file, module, manifest.Options{}); !errors.Is(err, sqlite.ErrNewer) {
		t.Errorf("got %v", err)
	}
}
