package watch

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
)

// A root that another directory replaces is watched anew.
func TestRootReplaced(t *testing.T) {
	onEach(t, func(t *testing.T, backend string) {
		r := newRig(t)
		r.write("a", "a")
		r.watch(Options{Backend: backend})
		r.must(os.Rename(r.root, r.root+".old"))
		r.mkdir("")
		r.write("b", "b")
		testenv.WaitFor(t, 10*time.Second, func() error { return r.m.differs(everyName) })
		_, scans := r.m.times()
		r.write("c", "c")
		r.sync()
		r.check()
		if _, now := r.m.times(); now != scans || !strings.Contains(r.log.String(), "the tree is not watched") {
			t.Errorf("%d scans more, log %s", now-scans, r.log.String())
		}
	})
}

// A root that is a symbolic link is watched where it leads, whenever that changes.
func TestRootIsALink(t *testing.T) {
	onEach(t, func(t *testing.T, backend string) {
		r := newRig(t)
		r.rename("", "../one")
		r.must(os.Mkdir(r.root+".two", 0o755))
		r.must(os.WriteFile(r.root+".two/b", []byte("b"), 0o644))
		r.must(os.Symlink("one", r.root))
		r.write("a", "a")
		r.watch(Options{Backend: backend})
		r.write("a", "changed")
		r.sync()
		r.check()
		r.must(os.Symlink(filepath.Base(r.root)+".two", r.root+".new"))
		r.must(os.Rename(r.root+".new", r.root))
		testenv.WaitFor(t, 10*time.Second, func() error { return r.m.differs(everyName) })
		r.write("c", "c")
		r.sync()
		r.check()
	})
}

// A file system that is unmounted while it is watched is not taken for an empty one; when it is back it is scanned.
func TestUnmounted(t *testing.T) {
	onEach(t, func(t *testing.T, backend string) {
		r := newRig(t)
		mountAt(t, r.root, "fedora")
		r.write("a", "a")
		r.watch(Options{Backend: backend})
		r.must(syscall.Unmount(r.root, 0)) // the watcher keeps nobody from it
		testenv.WaitFor(t, 10*time.Second, func() error {
			if s := r.w.Status(); s.State != Away || !strings.Contains(s.Trouble, "unmounted") {
				return fmt.Errorf("status %+v", s)
			}
			return nil
		})
		r.must(os.WriteFile(r.path("underneath"), nil, 0o644))
		if n, scans := r.m.times(); n != 0 || scans != 1 {
			t.Errorf("%d announcements, %d scans", n, scans)
		}
		mountAt(t, r.root, "fedora")
		r.write("b", "b")
		testenv.WaitFor(t, 20*time.Second, func() error { return r.m.differs(everyName) })
		r.write("c", "c")
		r.sync()
		r.check()
		if s := r.w.Status(); s.State != Watching || s.Trouble != "" {
			t.Errorf("status %+v", s)
		}
	})
}

// Names over which something was mounted wait until it is gone again.
func TestMountedOver(t *testing.T) {
	onEach(t, func(t *testing.T, backend string) {
		r := newRig(t)
		r.write("pool/a", "a")
		r.write("pool/sub/b", "b")
		r.watch(Options{Backend: backend, Timing: Timing{Quiet: 2 * time.Second}})
		r.write("pool/sub/b", "changed before")
		mountAt(t, r.path("pool/sub"), "over")
		r.write("pool/a", "changed")
		testenv.WaitFor(t, 20*time.Second, func() error {
			return r.m.differs(func(p string) bool { return p == "pool/a" })
		})
		r.m.set(func() {
			if r.m.known["pool/sub/b"] == "" {
				t.Error("what is hidden is taken for gone")
			}
		})
		r.must(syscall.Unmount(r.path("pool/sub"), 0))
		testenv.WaitFor(t, 20*time.Second, func() error { return r.m.differs(everyName) })
		r.m.set(func() {
			if len(r.m.scope) != 2 || fmt.Sprint(r.m.scope[1]) != "[pool/sub]" {
				t.Errorf("scanned %v", r.m.scope)
			}
		})
	})
}

// A file system that lay below the tree when it was first watched, and is unmounted, uncovers other names: those are scanned, and watched from then on.
func TestUnmountedBelow(t *testing.T) {
	onEach(t, func(t *testing.T, backend string) {
		r := newRig(t)
		r.write("pool/sub/deep/under", "u")
		r.write("pool/a", "a")
		mountAt(t, r.path("pool/sub"), "below")
		r.watch(Options{Backend: backend})
		r.must(syscall.Unmount(r.path("pool/sub"), 0))
		testenv.WaitFor(t, 20*time.Second, func() error {
			var scope [][]string
			r.m.set(func() { scope = r.m.scope })
			if fmt.Sprint(scope) != "[[] [pool/sub]]" {
				return fmt.Errorf("scanned %v", scope)
			}
			return r.m.differs(everyName)
		})
		r.write("pool/sub/new", "n")
		r.write("pool/sub/deep/under", "changed")
		r.sync()
		r.check()
	})
}
