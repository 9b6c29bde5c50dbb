package watch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
)

// What the kernel's queue could not hold is found by a scan, and after it events count again.
func TestOverflow(t *testing.T) {
	onEach(t, func(t *testing.T, backend string) {
		events := queueSize(t, backend) + 1000
		r := newRig(t)
		r.mkdir("d")
		var stalled atomic.Bool
		r.watch(Options{Backend: backend, smallQueue: true, stalled: stalled.Load})
		stalled.Store(true)
		for i := range events {
			r.must(os.Symlink("x", r.path(fmt.Sprintf("d/%d", i)))) // one event each
		}
		r.write("unheard/of/file", "x")
		stalled.Store(false)
		r.sync()
		r.check()
		s := r.w.Status()
		if _, scans := r.m.times(); scans != 2 || s.Lost != 1 || s.LostAt.IsZero() || !strings.Contains(s.ScanReason, "overflowed") {
			t.Errorf("%d scans, status %+v", scans, s)
		}
		r.write("unheard/of/file", "heard")
		r.write("unheard/other", "heard")
		r.sync()
		r.check()
		if _, scans := r.m.times(); scans != 2 {
			t.Errorf("it took a scan to hear of what came after the overflow")
		}
	})
}

// A hub that is away delays and loses nothing, however long.
func TestHubDown(t *testing.T) {
	r := newRig(t)
	r.write("a", "a")
	r.watch(Options{Backend: Inotify})
	r.m.set(func() { r.m.down = fault.With(errors.New("nobody answers"), fault.Unavailable, "") })
	r.write("b", "b")
	r.remove("a")
	testenv.WaitFor(t, 10*time.Second, func() error {
		if s := r.w.Status(); s.Trouble != "nobody answers" || s.Waiting != 2 {
			return fmt.Errorf("status %+v", s)
		}
		return nil
	})
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if err := r.w.Sync(ctx); fault.StatusOf(err) != fault.TryAgain || !strings.Contains(err.Error(), "nobody answers") {
		t.Errorf("sync: %v", err)
	}
	r.write("c", "c")
	r.m.set(func() { r.m.down = nil })
	r.sync()
	r.check()
	if s := r.w.Status(); s.Trouble != "" || s.Waiting != 0 {
		t.Errorf("afterwards %+v", s)
	}
	if n := strings.Count(r.log.String(), "nobody answers"); n != 1 {
		t.Errorf("it was said %d times", n)
	}
}

// More names than are kept are found by a scan instead.
func TestTooManyNames(t *testing.T) {
	r := newRig(t)
	r.watch(Options{Backend: Inotify, MaxNames: 100})
	r.m.set(func() { r.m.down = errors.New("no") })
	for i := range 1000 {
		r.write(fmt.Sprint(i), "x")
	}
	testenv.WaitFor(t, 10*time.Second, func() error {
		if s := r.w.Status(); s.Trouble == "" || s.Queued > 0 {
			return fmt.Errorf("status %+v", s)
		}
		return nil
	})
	r.m.set(func() { r.m.down = nil })
	r.sync()
	r.check()
}

// Names that the hub will not have keep no others from being announced, and are announced when it will.
func TestRefusedNames(t *testing.T) {
	r := newRig(t)
	r.watch(Options{Backend: Inotify})
	r.m.set(func() {
		r.m.refuse = func(n Name) error {
			if n.Path == "13" || n.Path == "77" {
				return fmt.Errorf("path %q: permission denied", n.Path)
			}
			return nil
		}
	})
	for i := range 100 {
		r.write(fmt.Sprint(i), "x")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := r.w.Sync(ctx); err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("sync: %v", err)
	}
	if err := r.m.differs(func(p string) bool { return p != "13" && p != "77" }); err != nil {
		t.Error(err)
	}
	if s := r.w.Status(); s.Waiting != 2 || s.Held != 2 || !strings.Contains(s.Trouble, "permission denied") {
		t.Errorf("status %+v", s)
	}
	r.m.set(func() { r.m.refuse = nil })
	r.sync()
	r.check()
}

func TestRootsThatCannotBeWatched(t *testing.T) {
	r := newRig(t)
	r.write("file", "x")
	for _, c := range []struct {
		name string
		o    Options
		want string
		code int
	}{
		{"missing", Options{Root: r.path("none")}, "no such file or directory", fault.Config},
		{"a file", Options{Root: r.path("file")}, "not a directory", fault.Config},
		{"an unknown backend", Options{Root: r.root, Backend: "magic"}, `backend "magic" is unknown`, fault.Usage},
		{"no watches", Options{Root: r.root, Backend: Inotify, maxWatches: 2}, "no watches are left: after 2 directories, each of which takes an inotify watch: fs.inotify.max_user_watches", fault.Unavailable},
	} {
		r.mkdir("a/b/c")
		c.o.Module = "fedora"
		err := New(c.o, r.m, slog.New(slog.DiscardHandler)).Run(context.Background())
		if err == nil || !strings.Contains(err.Error(), c.want) || fault.StatusOf(err) != c.code || fault.HintOf(err) == "" {
			t.Errorf("%s: %v (status %d, hint %q), want %q and %d", c.name, err, fault.StatusOf(err), fault.HintOf(err), c.want, c.code)
		}
	}
}

// Where the watches end the tree is scanned, if no backend was asked for.
func TestWatchesEnd(t *testing.T) {
	r := newRig(t)
	r.mkdir("a")
	at, err := openPlace(r.root)
	r.must(err)
	defer at.close() //nolint:errcheck // only read
	i, err := openInotify(at, nil, 3)
	r.must(err)
	defer i.close() //nolint:errcheck // as above
	r.mkdir("b")
	r.mkdir("c")
	in := &intake{most: 100, now: time.Now, set: newPending(Timing{})}
	testenv.WaitFor(t, 10*time.Second, func() error {
		if _, err := i.read(in); !errors.Is(err, errNoWatches) {
			return fmt.Errorf("got %v", err)
		}
		return nil
	})
}

// Directories that may not be read are said to be, and the rest is watched.
func TestPermissionDeniedBelow(t *testing.T) {
	r := newRig(t)
	r.write("open/a", "a")
	r.mkdir("closed")
	r.must(os.Chmod(r.path("closed"), 0))
	asNobody(t, r.root, r.path("open"), r.path("open/a"), r.path("closed"))
	r.watch(Options{Backend: Auto})
	r.write("open/a", "changed")
	r.sync()
	r.check()
	s := r.w.Status()
	if s.Backend != Inotify || !strings.Contains(s.Reason, "CAP_SYS_ADMIN") || len(s.Notes) != 1 || !strings.Contains(s.Notes[0], "closed") {
		t.Errorf("status %+v", s)
	}
}
