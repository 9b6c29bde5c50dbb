package rsync

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
)

// asidePath is where a captured path lies.
func (w *world) asidePath(path string) string {
	return filepath.Join(filepath.Dir(w.dest), TempPrefix+"-dest", "aside", "tree", path)
}

func TestIndexesAreSetAsideAndPutInPlaceLater(t *testing.T) {
	w := newWorld(t)
	w.upstream(testenv.File("repodata/a", "new a"), testenv.HardLink("repodata/b", "repodata/a"), testenv.File("repodata/same", "s"), testenv.Symlink("latest", "repodata"),
		testenv.File("#top", "x"), testenv.File(`repodata/odd\[`, "o"), testenv.File("was-dir", "file"), testenv.File("new/repodata/c", "c"), testenv.Dir("new", 0o750))
	w.mirror(testenv.File("repodata/a", "old a is longer"), testenv.File("repodata/same", "s"), testenv.File("was-dir/x", "y"))
	at := time.Unix(1_700_000_000, 5)
	for _, p := range []string{filepath.Join(w.up, "repodata/same"), filepath.Join(w.dest, "repodata/same")} {
		if err := os.Chtimes(p, at, at); err != nil {
			t.Fatal(err)
		}
	}
	names := []string{"repodata/a", "repodata/b", "repodata/same", "latest", "#top", `repodata/odd\[`, "was-dir", "new/repodata/c"}
	before := testenv.Diff(t, w.up, w.dest)
	res := w.run(Job{Mode: Index, Way: Aside, Paths: names, Sums: func(p string) bool { return p == "#top" }})
	if after := testenv.Diff(t, w.up, w.dest); !slices.Equal(before, after) {
		t.Errorf("the destination changed: %q", after)
	}
	if len(res.Captured) != len(names) || res.Files < 5 {
		t.Errorf("captured %d of %d, %d files", len(res.Captured), len(names), res.Files)
	}
	for _, c := range res.Captured {
		if (c.Path == "#top") == c.Sum.IsZero() {
			t.Errorf("%s: digest %v", c.Path, c.Sum)
		}
	}
	if peek := w.run(Job{Mode: Index, Way: Peek, Paths: names}); peek.Changes != 0 || peek.Files != 0 {
		t.Errorf("nothing changed, and peek says %v", peek.Items)
	}
	w.upstream(testenv.File("repodata/a", "newest").At(at.Add(time.Second)))
	if peek := w.run(Job{Mode: Index, Way: Peek, Paths: names}); !slices.Contains(paths(peek.Items), "repodata/a") {
		t.Errorf("peek does not see the change: %v", peek.Items)
	}
	if res = w.run(Job{Mode: Index, Way: Place, Paths: append(names, "never"), MaxDelete: 1}); w.read("repodata/a") != "new a" {
		t.Errorf("repodata/a is %q: %+v", w.read("repodata/a"), res)
	}
	a, errA := os.Stat(filepath.Join(w.dest, "repodata/a"))
	b, errB := os.Stat(filepath.Join(w.dest, "repodata/b"))
	if errA != nil || errB != nil || !os.SameFile(a, b) || w.perm("new").Perm() != 0o750 || w.read("#top") != "x" || w.read("was-dir") != "file" {
		t.Errorf("links %v, new is %v", os.SameFile(a, b), w.perm("new"))
	}
	w.run(Job{Mode: Discard})
	if entries, err := os.ReadDir(w.asidePath("")); err != nil || len(entries) > 0 {
		t.Errorf("left aside: %v %v", entries, err)
	}
	w.clean()
}

func TestWhatIsGoneUpstreamIsNotKeptAside(t *testing.T) {
	w := newWorld(t)
	w.upstream(testenv.File("repodata/a", "a"), testenv.File("repodata/b", "b"))
	job := Job{Mode: Index, Way: Aside, Paths: []string{"repodata/a", "repodata/b"}}
	w.run(job)
	if err := os.Remove(filepath.Join(w.up, "repodata/a")); err != nil {
		t.Fatal(err)
	}
	res, err := w.runner().Run(t.Context(), job)
	w.onePath(w.failure(err, Partial), "repodata/a", NotFound, false)
	if len(res.Captured) != 1 || res.Captured[0].Path != "repodata/b" {
		t.Errorf("captured %+v", res.Captured)
	}
	if _, err := os.Lstat(w.asidePath("repodata/a")); !os.IsNotExist(err) {
		t.Errorf("still aside: %v", err)
	}
}

func TestWhatIsAsideInADirectoryThatIsAFileNow(t *testing.T) {
	w := newWorld(t)
	w.upstream(testenv.File("repodata/sub/a", "a"))
	w.run(Job{Mode: Index, Way: Aside, Paths: []string{"repodata/sub/a"}})
	if err := os.RemoveAll(filepath.Join(w.up, "repodata/sub")); err != nil {
		t.Fatal(err)
	}
	w.upstream(testenv.File("repodata/sub", "now a file"))
	res, err := w.runner().Run(t.Context(), Job{Mode: Index, Way: Aside, Paths: []string{"repodata/sub", "repodata/sub/a"}})
	failed := w.failure(err, Partial)
	if failed.Cause != nil || len(res.Captured) != 1 || res.Captured[0].Path != "repodata/sub" {
		t.Errorf("captured %+v: %v", res.Captured, err)
	}
}

func TestSurveyChangesNothingAndRemoveOnlyWhatItIsTold(t *testing.T) {
	w := newWorld(t)
	w.upstream(testenv.File("d/new", "n"), testenv.File("d/sub/kept", "k"), testenv.Dir("e", 0o755))
	w.mirror(testenv.File("d/extra", "x"), testenv.File("d/gone/f", "x"), testenv.File("d/sub/kept.iso", "x"), testenv.File("e/x", "x"), testenv.File("e/late", "x"))
	var extra []string
	job := Job{Mode: Recursive, Way: Survey, Paths: []string{"d"}, Filters: []string{"- *.iso"}, Item: func(it Item) {
		if it.Op == Deleted {
			extra = append(extra, it.Path)
		}
	}}
	res := w.run(job)
	if slices.Sort(extra); !slices.Equal(extra, []string{"d/extra", "d/gone", "d/gone/f"}) || res.Deleted != 0 || w.exists("d/new") || !w.exists("d/extra") {
		t.Fatalf("extra %q, %+v", extra, res)
	}
	w.fails(Job{Mode: Remove, Paths: extra, MaxDelete: 2}, MaxDelete)
	if !w.exists("d/extra") {
		t.Error("some went although all may not")
	}
	if res := w.run(Job{Mode: Remove, Paths: append(extra, "e", "never"), MaxDelete: 9}); res.Deleted != 3 || w.exists("d/extra") || w.exists("d/gone") || !w.exists("e/late") {
		t.Errorf("removed %d: %v", res.Deleted, res.Items)
	}
	up, upErr := os.Stat(filepath.Join(w.up, "d"))
	here, err := os.Stat(filepath.Join(w.dest, "d"))
	if err != nil || upErr != nil || !up.ModTime().Equal(here.ModTime()) {
		t.Errorf("the time of d: %v %v", here.ModTime(), up.ModTime())
	}
}

func TestWaysFitTheirModes(t *testing.T) {
	w := newWorld(t)
	for _, j := range []Job{{Mode: Content, Way: Aside, Paths: []string{"a"}}, {Mode: Index, Way: Survey, Paths: []string{"a"}}, {Mode: Index, Way: "other", Paths: []string{"a"}}, {Mode: Discard, Paths: []string{"a"}}} {
		w.fails(j, BadJob)
	}
}
