package rsync

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
)

// linkedWorld is a mirror whose iso is a link to a directory elsewhere, and whose old is a link within the tree.
func linkedWorld(t *testing.T) (w *world, iso string) {
	w = newWorld(t)
	w.upstream(testenv.Dir("iso", 0o750), testenv.File("iso/x/f", "new"), testenv.File("iso/x/g", "g"), testenv.File("old/f", "f"), testenv.File("top", "t"))
	iso = filepath.Join(t.TempDir(), "data", "iso")
	testenv.WriteTree(t, iso, testenv.File("x/gone", "x"), testenv.File("x/f", "old content"))
	w.mirror(testenv.Symlink("iso", iso), testenv.Dir("real", 0o755), testenv.Symlink("old", "real"))
	return w, iso
}

func (w *world) stillLinked(path string) {
	w.t.Helper()
	if w.perm(path)&fs.ModeSymlink == 0 {
		w.t.Errorf("%s is no link any more", path)
	}
}

func TestAPathThroughALinkIsRefusedAndTheOthersAreNot(t *testing.T) {
	w, iso := linkedWorld(t)
	for _, mode := range []Mode{Content, Index, Level, Recursive, Flip, Verify, Delete} {
		e := w.fails(Job{Mode: mode, Paths: []string{"iso/x", "top"}, MaxDelete: 5}, Partial)
		w.onePath(e, "iso/x", Loop, true)
		w.stillLinked("iso")
	}
	w.onePath(w.fails(Job{Mode: Content, Paths: []string{"old/f"}}, Partial), "old/f", Loop, true)
	w.stillLinked("old")
	if w.read("top") != "t" {
		t.Error("top was not brought")
	}
	if b, err := os.ReadFile(filepath.Join(iso, "x/f")); err != nil || string(b) != "old content" {
		t.Errorf("%q %v", b, err)
	}
}

func TestConfiguredLinksAreFollowed(t *testing.T) {
	w, iso := linkedWorld(t)
	w.cfg.Links = []Link{{Path: "iso"}, {Path: "old"}}
	res := w.run(Job{Mode: Content, Paths: []string{"iso/x/f", "old/f", "top"}})
	if res.Runs != 3 || w.read("iso/x/f") != "new" || w.read("real/f") != "f" {
		t.Errorf("%+v", res)
	}
	if info, err := os.Stat(iso); err != nil || info.Mode().Perm() != 0o750 {
		t.Errorf("the directory behind the link is %v %v, want the upstream's permissions", info.Mode(), err)
	}
	w.run(Job{Mode: Delete, Paths: []string{"iso/x/gone"}, MaxDelete: 1})
	w.run(Job{Mode: Level, Paths: []string{"iso/x"}})
	if d := testenv.Diff(t, filepath.Join(w.up, "iso"), iso); len(d) > 0 {
		t.Errorf("%q", d)
	}
	w.stillLinked("iso")
	w.stillLinked("old")
}

func TestAConfiguredLinkAsThePathItself(t *testing.T) {
	w, iso := linkedWorld(t)
	w.cfg.Links = []Link{{Path: "iso"}}
	for _, mode := range []Mode{Flip, Content} {
		if err := os.Chmod(iso, 0o700); err != nil {
			t.Fatal(err)
		}
		w.run(Job{Mode: mode, Paths: []string{"iso"}})
		if info, err := os.Stat(iso); err != nil || info.Mode().Perm() != 0o750 {
			t.Errorf("%s: %v %v", mode, info.Mode(), err)
		}
		if w.exists("iso/x/g") {
			t.Errorf("%s read the directory", mode)
		}
	}
	w.onePath(w.fails(Job{Mode: Delete, Paths: []string{"iso"}, MaxDelete: 9}, Partial), "iso", Loop, true)
	w.run(Job{Mode: Recursive, Paths: []string{"iso"}, MaxDelete: 9})
	w.stillLinked("iso")
	if d := testenv.Diff(t, filepath.Join(w.up, "iso"), iso); len(d) > 0 {
		t.Errorf("%q", d)
	}
}

func TestRecursionGoesOnBehindAConfiguredLink(t *testing.T) {
	for _, mode := range []Mode{Recursive, Full} {
		w := newWorld(t)
		data := filepath.Join(t.TempDir(), "b")
		w.upstream(testenv.File("a/b/new", "x"), testenv.File("a/f", "x"))
		testenv.WriteTree(t, data, testenv.File("extra", "x"))
		w.mirror(testenv.Symlink("a/b", data), testenv.File("a/extra", "x"))
		w.cfg.Links = []Link{{Path: "a/b"}}
		job := Job{Mode: mode, MaxDelete: 2}
		if mode == Recursive {
			job.Paths = []string{"a"}
		}
		w.run(job)
		w.stillLinked("a/b")
		if !w.exists("a/b/new") || w.exists("a/b/extra") || w.exists("a/extra") || !w.exists("a/f") {
			t.Errorf("%s: %q", mode, testenv.Diff(t, w.up, w.dest))
		}
	}
}

func TestTemporaryFolderInsideTheTreeIsLeftAlone(t *testing.T) {
	w := newWorld(t)
	w.cfg.TempDir = filepath.Join(w.dest, TempPrefix)
	w.upstream(testenv.File("d/f", "x"))
	w.mirror(testenv.File("extra", "x"))
	w.run(Job{Mode: Content, Paths: []string{"d/f"}})
	w.run(Job{Mode: Full, MaxDelete: Unlimited})
	w.same(TempPrefix)
	if !w.exists(TempPrefix + "/run") {
		t.Error("the temporary folder was deleted")
	}
}

func TestRename(t *testing.T) {
	w := newWorld(t)
	w.upstream(testenv.File("new/place/f", "same"))
	w.mirror(testenv.File("old/f", "same"), testenv.File("taken", "x"), testenv.Symlink("out", t.TempDir()))
	r := w.runner()
	if err := r.Rename("old", "new/place"); err != nil {
		t.Fatal(err)
	}
	if w.exists("old") || w.read("new/place/f") != "same" || w.perm("new").Perm() != 0o700 {
		t.Errorf("%v", w.perm("new"))
	}
	if res := w.run(Job{Mode: Recursive, Paths: []string{"new"}}); res.Bytes != 0 {
		t.Errorf("%d bytes travelled", res.Bytes)
	}
	w.same("taken", "out")
	if err := r.Rename("taken", "new/place"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over something: %v", err)
	}
	if err := r.Rename("none", "x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of nothing: %v", err)
	}
	for _, to := range []string{"../x", "/x", "out/x", "."} {
		if err := r.Rename("taken", to); err == nil || !w.exists("taken") {
			t.Errorf("to %q: %v", to, err)
		}
	}
	if err := r.Sync(); err != nil {
		t.Error(err)
	}
}

// An absolute path to the temporary folder costs rsync as much as all else that it does with a small file.
func TestTemporaryFolderInsideTheTreeIsNamedFromThere(t *testing.T) {
	inside, beside := root{real: "/srv/m", temp: "/srv/m/" + TempPrefix}, root{real: "/srv/m", temp: "/srv/" + TempPrefix + "-m"}
	for _, c := range []struct {
		root root
		job  Job
		want string
	}{
		{inside, Job{Mode: Content}, TempPrefix + "/run"},
		{inside, Job{Mode: Flip}, TempPrefix + "/flip"},
		{inside, Job{Mode: Index, Way: Aside}, "/srv/m/" + TempPrefix + "/run"}, // the destination is another
		{beside, Job{Mode: Content}, "/srv/" + TempPrefix + "-m/run"},
	} {
		if got := c.root.tempArg(c.job); got != c.want {
			t.Errorf("%s %s: %s, not %s", c.job.Mode, c.job.Way, got, c.want)
		}
	}
}
