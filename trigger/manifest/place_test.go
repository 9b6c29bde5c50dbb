package manifest_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/trigger/manifest"
)

func refusedCompare(t *testing.T, name string, m *manifest.Manifest, root string, status int, text string, dirs ...string) error {
	t.Helper()
	d, err := m.Compare(t.Context(), root, manifest.CompareOptions{Dirs: dirs}, nil)
	if err == nil || !strings.Contains(err.Error(), text) || len(d.Set) > 0 || fault.StatusOf(err) != status {
		t.Errorf("%s: %v (%d), want %q (%d); set %q", name, err, fault.StatusOf(err), text, status, said(d.Set))
	}
	return err
}

func TestCompareRefuses(t *testing.T) {
	root := t.TempDir()
	put(t, root, "a", "d/b")
	check(t, os.Symlink("d", within(root, "l")))
	m := build(t, root, manifest.Options{})
	refusedCompare(t, "outside", m, root, fault.Usage, `has a component ".."`, "../x")
	refusedCompare(t, "absolute", m, root, fault.Usage, "must be relative", "/etc")
	refusedCompare(t, "a file", m, root, fault.Usage, `"a" is no directory`, "a")
	refusedCompare(t, "below a file", m, root, fault.Usage, `"a" is no directory`, "a/b")
	refusedCompare(t, "through a link", m, root, fault.Usage, `"l" is no directory`, "l/b")
	refusedCompare(t, "no tree", m, within(root, "none"), fault.Failed, "no such file")
	unbuilt := open(t, within(t.TempDir(), "manifest.db"), manifest.Options{})
	if err := refusedCompare(t, "no manifest", unbuilt, root, fault.Failed, "not built"); !errors.Is(err, manifest.ErrNotBuilt) {
		t.Error(err)
	}
	check(t, os.RemoveAll(within(root, "d")))
	check(t, os.Remove(within(root, "a")))
	check(t, os.Remove(within(root, "l")))
	if err := refusedCompare(t, "empty", m, root, fault.Failed, "is empty"); !errors.Is(err, manifest.ErrElsewhere) {
		t.Error(err)
	}
}

// The same names in another folder are another tree until somebody says that it has moved.
func TestCompareKnowsItsTree(t *testing.T) {
	root := t.TempDir()
	grow(t, root, []string{"a", "d/b"}, time.Unix(1_700_000_000, 0))
	m := build(t, root, manifest.Options{})
	check(t, os.Rename(root, root+".away"))
	check(t, os.Mkdir(root, 0o755))
	grow(t, root, []string{"a"}, time.Unix(1_700_000_000, 0))
	if err := refusedCompare(t, "another folder", m, root, fault.Failed, "another folder"); !errors.Is(err, manifest.ErrElsewhere) || !strings.Contains(fault.HintOf(err), "--moved") {
		t.Error(err, fault.HintOf(err))
	}
	d, err := m.Compare(t.Context(), root, manifest.CompareOptions{Moved: true}, nil)
	check(t, err)
	if !d.Unsettled || !slices.Equal(said(d.Set), []string{"-d"}) {
		t.Errorf("moved: %+v", d)
	}
	check(t, m.Settle(t.Context(), d))
	if d := compare(t, m, root); d.Unsettled || len(d.Set) != 1 {
		t.Errorf("settled: %+v", d)
	}
}

// What is below a file system that was mounted or unmounted since is not gone.
func TestCompareKnowsItsMounts(t *testing.T) {
	testenv.NeedRoot(t)
	root := t.TempDir()
	put(t, root, "a", "full/x", "free/.keep", "was/.keep")
	check(t, os.Remove(within(root, "free/.keep")))
	mount := func(dir string) (unmount func()) {
		if err := unix.Mount("tmpfs", within(root, dir), "tmpfs", 0, "size=1m"); err != nil {
			testenv.Missing(t, "cannot mount a tmpfs: "+err.Error())
		}
		done := false
		unmount = func() {
			if !done {
				done = true
				check(t, unix.Unmount(within(root, dir), unix.MNT_DETACH))
			}
		}
		t.Cleanup(unmount)
		return unmount
	}
	unmountWas := mount("was")
	m := build(t, root, manifest.Options{})
	put(t, root, "was/in it")
	if got := said(compare(t, m, root).Set); len(got) > 0 {
		t.Errorf("in a mount: %q", got)
	}
	refusedCompare(t, "inside a mount", m, root, fault.Usage, `another file system is mounted at "was"`, "was")
	unmountFull := mount("full")
	if err := refusedCompare(t, "mounted over", m, root, fault.Failed, `mounted on "full", over names that mirrors have`); !errors.Is(err, manifest.ErrElsewhere) {
		t.Error(err)
	}
	refusedCompare(t, "mounted over, asked for", m, root, fault.Usage, `mounted at "full"`, "full")
	unmountFull()
	check(t, os.Chmod(within(root, "free"), 0o755))
	unmountFree := mount("free")
	check(t, os.Chmod(within(root, "free"), 0o755))
	if got := said(compare(t, m, root).Set); len(got) > 0 {
		t.Errorf("mounted where nothing was: %q", got)
	}
	unmountFree()
	unmountWas()
	if err := refusedCompare(t, "unmounted", m, root, fault.Failed, `nothing is mounted on "was" any more`); !errors.Is(err, manifest.ErrElsewhere) {
		t.Error(err)
	}
	check(t, os.RemoveAll(within(root, "was")))
	refusedCompare(t, "mount point gone", m, root, fault.Failed, `the mount point "was" is gone`)
	if d, err := m.Compare(t.Context(), root, manifest.CompareOptions{Moved: true}, nil); err != nil || !slices.Equal(said(d.Set), []string{"-was"}) {
		t.Errorf("meant: %q, %v", said(d.Set), err)
	}
}

func TestCompareWithoutPermission(t *testing.T) {
	root := t.TempDir()
	put(t, root, "a", "d/b", "shut/c")
	m := build(t, root, manifest.Options{})
	put(t, root, "d/new")
	check(t, os.Chmod(within(root, "shut"), 0))
	t.Cleanup(func() { check(t, os.Chmod(within(root, "shut"), 0o755)) })
	asNobody(t, root, func() {
		if err := refusedCompare(t, "shut", m, root, fault.Failed, "shut: permission denied"); !errors.Is(err, os.ErrPermission) {
			t.Error(err)
		}
		if got := said(compare(t, m, root, "d").Set); !slices.Equal(got, []string{"+d/new"}) {
			t.Errorf("beside it: %q", got)
		}
	})
}

// asNobody runs f as a user to whom modes apply. root and the folder above it are opened for that.
func asNobody(t *testing.T, root string, f func()) {
	t.Helper()
	if os.Geteuid() == 0 {
		check(t, os.Chmod(filepath.Dir(root), 0o755))
		check(t, syscall.Setresuid(-1, 65534, -1))
		defer func() { check(t, syscall.Setresuid(-1, 0, -1)) }()
		if _, err := os.Lstat(root); err != nil {
			testenv.Unable(t, "another user does not reach "+root)
		}
	}
	f()
}
