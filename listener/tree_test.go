package listener

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
)

func opened(t *testing.T, dir string, links ...string) *tree {
	t.Helper()
	tr, err := openTree(dir, links)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tr.close(); err != nil {
			t.Error(err)
		}
	})
	return tr
}

func meta(path string, mode uint32) event.Record {
	return event.Record{Op: event.Meta, Mode: mode, Path: path}
}

func modeOf(t *testing.T, path string) uint32 {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return unixMode(info.Mode())
}

func TestFlipChangesTheNamedInodesOnly(t *testing.T) {
	dir := t.TempDir()
	at := time.Unix(1_700_000_000, 0)
	testenv.WriteTree(t, dir, testenv.Dir("d", 0o700), testenv.File("d/f", "x").Perm(0o600).At(at), testenv.File("d/g", "x").Perm(0o600))
	tr := opened(t, dir)
	file := meta("d/f", event.ModeFile|0o4755)
	file.Size, file.MTime = 1, event.StampOf(at)
	f, err := tr.prepareFlip(event.PathSet{meta("d", event.ModeDir|0o755), file}, nil, 0o6000)
	if err != nil || len(f.own) != 2 || len(f.change) != 2 || f.absent != nil {
		t.Fatalf("%+v %v", f, err)
	}
	if err := errors.Join(tr.applyFlip(f.change, 0o6000), tr.keep(f.change)); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]uint32{"d": 0o755, "d/f": 0o755, "d/g": 0o600} {
		if got := modeOf(t, filepath.Join(dir, path)); got != want {
			t.Errorf("%s: %o, want %o", path, got, want)
		}
	}
}

func TestFlipNeedsItsContent(t *testing.T) {
	dir := t.TempDir()
	at := time.Unix(1_700_000_000, 0)
	testenv.WriteTree(t, dir, testenv.File("f", "short").At(at))
	good := event.Record{Op: event.Meta, Mode: event.ModeFile | 0o600, Size: 5, MTime: event.StampOf(at), Path: "f"}
	long, early, other, missing := good, good, good, good
	long.Size, early.MTime, other.Mode, missing.Path = 9, event.StampOf(at.Add(time.Second)), event.ModeDir|0o700, "nothing"
	late := good
	late.MTime = event.StampOf(at.Add(-time.Second))
	tr := opened(t, dir)
	for name, test := range map[string]struct {
		r      event.Record
		absent bool
	}{"good": {good, false}, "other size": {long, true}, "older": {early, true}, "other type": {other, true}, "missing": {missing, true}, "newer here": {late, false}} {
		f, err := tr.prepareFlip(event.PathSet{test.r}, nil, 0)
		if name == "other type" && err == nil && f.absent == nil {
			continue // newer than the record's time of 1970, so written again since
		}
		if err != nil || (f.absent != nil) != test.absent {
			t.Errorf("%s: %+v %v", name, f, err)
		}
	}
	if _, err := tr.prepareFlip(event.PathSet{{Op: event.Gone, Path: "f"}}, nil, 0); err == nil {
		t.Error("a flip deleted something")
	}
}

func TestNoPathLeadsOutOfTheTree(t *testing.T) {
	base := t.TempDir()
	testenv.WriteTree(t, base, testenv.Dir("tree", 0o755), testenv.File("outside/f", "x").Perm(0o600), testenv.Symlink("tree/out", "../outside"),
		testenv.Symlink("tree/link", "file"), testenv.File("tree/file", "x").Perm(0o600))
	tr := opened(t, filepath.Join(base, "tree"))
	for _, path := range []string{"out/f", "../outside/f", "/etc/passwd", "link", "out"} {
		if err := tr.chmod(path, 0o777); err == nil {
			t.Errorf("changed %s", path)
		}
	}
	for _, path := range []string{"outside/f", "tree/file"} {
		if got := modeOf(t, filepath.Join(base, path)); got != 0o600 {
			t.Errorf("%s is now %o", path, got)
		}
	}
	if _, err := tr.lstat("out/f"); err == nil {
		t.Error("looked out of the tree")
	}
	linked := opened(t, filepath.Join(base, "tree"), "out")
	if err := linked.chmod("out/f", 0o640); err != nil || modeOf(t, filepath.Join(base, "outside/f")) != 0o640 {
		t.Errorf("a configured link: %v", err)
	}
	if info, err := linked.lstat("out"); err != nil || !info.IsDir() {
		t.Errorf("a configured link is not the directory behind it: %v %v", info, err)
	}
}

// Behind a link that only this mirror has is another path of the module, which was not announced.
func TestFlipDoesNotFollowLinksOfTheMirror(t *testing.T) {
	dir := t.TempDir()
	at := time.Unix(1_700_000_000, 0)
	testenv.WriteTree(t, dir, testenv.File("real/f", "x").Perm(0o600).At(at), testenv.Symlink("in", "real"))
	tr := opened(t, dir)
	r := meta("in/f", event.ModeFile|0o644)
	r.Size, r.MTime = 1, event.StampOf(at)
	if f, err := tr.prepareFlip(event.PathSet{r}, nil, 0); err == nil || len(f.change) > 0 {
		t.Errorf("%+v %v", f, err)
	}
	configured := opened(t, dir, "in")
	if f, err := configured.prepareFlip(event.PathSet{r}, nil, 0); err != nil || len(f.change) != 1 {
		t.Errorf("a configured link: %+v %v", f, err)
	}
}

func TestLinkTreeSparesATransfer(t *testing.T) {
	dir := t.TempDir()
	testenv.WriteTree(t, dir, testenv.File("old/a", "x"), testenv.File("old/sub/b", "y"))
	tr := opened(t, dir)
	if err := tr.linkTree("old", "new"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "sub/b"} {
		one, err1 := os.Stat(filepath.Join(dir, "old", name))
		two, err2 := os.Stat(filepath.Join(dir, "new", name))
		if err := errors.Join(err1, err2); err != nil || !os.SameFile(one, two) {
			t.Errorf("%s is not the same file: %v", name, err)
		}
	}
}

func TestLoopWakesByTimeAndByToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		wake := make(chan struct{}, 1)
		began := time.Now()
		var passes []time.Duration
		pass := func(context.Context) time.Time {
			passes = append(passes, time.Since(began))
			switch len(passes) {
			case 1:
				return time.Now().Add(7 * time.Second)
			case 2:
				return time.Now().Add(-time.Hour) // overdue
			case 5:
				cancel()
			}
			return time.Time{} // only when woken, but looked at each minute
		}
		time.AfterFunc(17*time.Second, func() { token(wake) })
		if err := loop(ctx, wake, pass, time.Now); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		want := []time.Duration{0, 7 * time.Second, 7*time.Second + time.Millisecond, 17 * time.Second, 77 * time.Second}
		if !slices.Equal(passes, want) {
			t.Errorf("%v, want %v", passes, want)
		}
	})
}
