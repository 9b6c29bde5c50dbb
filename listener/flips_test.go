package listener_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/listener"
	"github.com/mirrorbus/mirrorbus/listener/rsync"
)

// closed announces a release that nobody may see yet.
func (w *world) closed() {
	w.t.Helper()
	w.write(testenv.Dir("release", 0o700), testenv.File("release/f", "x"))
	w.announce(w.rec(event.Write, "release"), w.rec(event.Write, "release/f"))
}

func TestFlipOvertakesARunningBulk(t *testing.T) {
	w := newWorld(t)
	w.closed()
	w.must(w.adopted().Close())
	a := w.reopen(func(o *listener.Options) {
		o.Modules[0].Runner = listener.Rsync(w.runner(func(c *rsync.Config) { c.Upstream.BWLimitKiB = 400 }))
	})
	start(t, a)
	w.write(testenv.File("big", strings.Repeat("0123456789abcdef", 100_000)))
	w.send(a, w.announce(w.rec(event.Write, "big")))
	w.waitFor(a, "content is transferred", func(s listener.ModuleStatus) bool { return s.Running != nil && s.Running.Stage == "content" })
	w.must(os.Chmod(filepath.Join(w.up, "release"), 0o755))
	w.send(a, w.flip(event.Announcement{}, "release"))
	testenv.WaitFor(t, 2*time.Second, func() error {
		info, err := os.Stat(filepath.Join(w.dest, "release"))
		if err == nil && info.Mode().Perm() != 0o755 {
			err = errors.New("not flipped")
		}
		return err
	})
	if s := w.status(a); s.Applied != 1 || s.State != listener.Syncing {
		t.Errorf("the bulk run is over, this test proves nothing: %+v", s)
	}
	w.waitFor(a, "applied", func(s listener.ModuleStatus) bool { return s.Applied == 3 })
	w.same(a, 3)
}

func TestFlipWaitsForContentBelowIt(t *testing.T) {
	w := newWorld(t)
	w.write(testenv.Dir("release", 0o700), testenv.File("release/f", "x"), testenv.Dir("other", 0o700))
	w.announce(w.rec(event.Write, "release"), w.rec(event.Write, "release/f"), w.rec(event.Write, "other"))
	w.must(w.adopted().Close())
	var g *gated
	a := w.reopen(func(o *listener.Options) { g = newGated(o.Modules[0].Runner); o.Modules[0].Runner = g })
	start(t, a)
	w.write(testenv.File("release/more", "y"))
	w.send(a, w.announce(w.rec(event.Write, "release/more")))
	<-g.started
	for _, dir := range []string{"release", "other"} { // the second is of something else: when it shows, the first has been looked at
		w.must(os.Chmod(filepath.Join(w.up, dir), 0o755))
		w.send(a, w.flip(event.Announcement{}, dir))
	}
	shown := func(dir string) bool {
		info, err := os.Stat(filepath.Join(w.dest, dir))
		w.must(err)
		return info.Mode().Perm() == 0o755
	}
	testenv.WaitFor(t, waitLong, func() error {
		if !shown("other") {
			return errors.New("the other flip is not shown yet")
		}
		return nil
	})
	if shown("release") {
		t.Error("shown before its content was complete")
	}
	close(g.letGo)
	w.waitFor(a, "applied", func(s listener.ModuleStatus) bool { return s.Applied == 4 })
	w.same(a, 4)
}

func TestFlipInTheFutureAndExpiredFlip(t *testing.T) {
	w := newWorld(t)
	clock := time.Now()
	w.now = func() time.Time { return clock }
	w.write(testenv.Dir("release", 0o700), testenv.File("release/f", "x"), testenv.Dir("late", 0o700))
	w.announce(w.rec(event.Write, "release"), w.rec(event.Write, "release/f"), w.rec(event.Write, "late"))
	a := w.adopted()
	expired := event.Record{Op: event.Meta, Mode: event.ModeDir | 0o755, Path: "late"}
	w.send(a, w.put(w.make(event.Announcement{Kind: event.Flip, Expires: time.Minute, At: clock.Add(-time.Hour).UTC().Truncate(time.Second)}, expired)))
	w.must(os.Chmod(filepath.Join(w.up, "release"), 0o755))
	w.send(a, w.flip(event.Announcement{NotBefore: time.Hour}, "release"))
	w.write(testenv.File("after", "x"))
	w.send(a, w.announce(w.rec(event.Write, "after")))
	w.must(a.Reconcile(t.Context(), pub))
	if s := w.status(a); s.Applied != 2 || s.FlipsWait != 1 || w.count(a, event.Ready) != 1 || w.count(a, event.Skipped) != 1 {
		t.Errorf("%+v", s)
	}
	w.same2(a, "release") // the change behind the flip is there, the flip is not
	clock = clock.Add(time.Hour + time.Second)
	w.must(a.Reconcile(t.Context(), pub))
	w.same(a, 4)
	if n := w.count(a, event.Ready); n != 1 {
		t.Errorf("%d ready reports, want 1", n)
	}
}

// A flip's time comes while a batch brings what was announced after it, from an upstream that has not flipped yet: what rsync copies from there does not
// take the flip back.
func TestARunningBatchDoesNotTakeAFlipBack(t *testing.T) {
	w := newWorld(t)
	var ahead atomic.Int64
	begin := time.Now()
	w.now = func() time.Time { return begin.Add(time.Duration(ahead.Load())) }
	w.closed()
	w.must(w.adopted().Close())
	var g *gated
	a := w.reopen(func(o *listener.Options) { g = newGated(o.Modules[0].Runner); o.Modules[0].Runner = g })
	start(t, a)
	shown := event.Record{Op: event.Meta, Mode: event.ModeDir | 0o755, Path: "release"}
	w.send(a, w.put(w.make(event.Announcement{Kind: event.Flip, NotBefore: time.Hour}, shown)))
	w.write(testenv.File("release/g", "y"))
	w.send(a, w.announce(w.rec(event.Write, "release/g")))
	<-g.started
	ahead.Store(int64(time.Hour + time.Second))
	w.write(testenv.File("other", "z"))
	w.send(a, w.announce(w.rec(event.Write, "other"))) // wakes the flips
	flipped := func() error {
		info, err := os.Stat(filepath.Join(w.dest, "release"))
		if err == nil && info.Mode().Perm() != 0o755 {
			err = fmt.Errorf("release has mode %v", info.Mode())
		}
		return err
	}
	testenv.WaitFor(t, waitLong, flipped)
	close(g.letGo)
	w.waitFor(a, "applied", func(s listener.ModuleStatus) bool { return s.Applied == 4 })
	w.must(flipped())
	if all := w.reports(a); all[len(all)-1].Applied != 4 {
		t.Errorf("reported %+v", all[len(all)-1])
	}
}

// A flip that is done while the rest of the agent looks whether there is something to do is reported as applied like any other.
func TestFlipBesideAnIdlePass(t *testing.T) {
	w := newWorld(t)
	w.closed()
	a := w.adopted()
	start(t, a)
	for i := range 60 {
		w.must(os.Chmod(filepath.Join(w.up, "release"), []os.FileMode{0o755, 0o700}[i%2]))
		w.send(a, w.flip(event.Announcement{}, "release"))
		testenv.WaitFor(t, waitLong, func() error {
			all := w.reports(a)
			if last := all[len(all)-1]; last.Applied != w.serial {
				return fmt.Errorf("at serial %d: %+v", w.serial, last)
			}
			return nil
		})
	}
	w.same(a, w.serial)
}

func (w *world) same2(a *listener.Agent, flipped string) {
	w.t.Helper()
	d := testenv.Diff(w.t, w.up, w.dest, event.ExportDir)
	if len(d) != 1 || !strings.HasPrefix(d[0], fmt.Sprintf("%q: mode", flipped)) {
		w.t.Errorf("differs: %q, want only the mode of %s", d, flipped)
	}
}

// A flip that waits for its time is called off by announcing the permissions that the paths shall keep. So is the part of it that a later announcement,
// of whatever kind, speaks of. Who was away, and learns of it from the manifest, leaves it too.
func TestATimedFlipIsCalledOff(t *testing.T) {
	for name, off := range map[string]func(w *world, a *listener.Agent){
		"by a flip": func(w *world, a *listener.Agent) { w.send(a, w.flip(event.Announcement{}, "release")) },
		"by a flip that has expired": func(w *world, a *listener.Agent) {
			at := w.now().Add(-time.Hour).UTC().Truncate(time.Second)
			w.send(a, w.put(w.make(event.Announcement{Kind: event.Flip, At: at, Expires: time.Minute}, w.rec(event.Meta, "release"))))
		},
		"by a change": func(w *world, a *listener.Agent) { w.send(a, w.announce(w.rec(event.Meta, "release"))) },
		"by its deletion": func(w *world, a *listener.Agent) {
			w.must(os.RemoveAll(filepath.Join(w.up, "release")))
			w.send(a, w.announce(event.Record{Op: event.Gone, Path: "release"}))
		},
		"by a later flip": func(w *world, a *listener.Agent) {
			w.send(a, w.flip(event.Announcement{NotBefore: 50 * time.Minute}, "release"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			clock := time.Now()
			w.now = func() time.Time { return clock }
			w.write(testenv.Dir("release", 0o700), testenv.File("release/f", "x"), testenv.Dir("other", 0o700))
			w.announce(w.rec(event.Write, "release"), w.rec(event.Write, "release/f"), w.rec(event.Write, "other"))
			a := w.adopted()
			for _, dir := range []string{"release", "other"} {
				w.must(os.Chmod(filepath.Join(w.up, dir), 0o755))
			}
			w.send(a, w.flip(event.Announcement{NotBefore: 30 * time.Minute}, "release", "other"))
			w.must(a.Reconcile(t.Context(), pub))
			w.must(os.Chmod(filepath.Join(w.up, "release"), 0o700))
			off(w, a)
			w.must(a.Reconcile(t.Context(), pub))
			clock = clock.Add(31 * time.Minute)
			w.deliver(a, w.compose(0)) // a head of this time, or the clock would seem wrong
			w.must(a.Reconcile(t.Context(), pub))
			if d := testenv.Diff(t, w.up, w.dest, event.ExportDir); len(d) > 0 {
				t.Errorf("at its time it differs: %q", d)
			}
			clock = clock.Add(20 * time.Minute)
			w.deliver(a, w.compose(0))
			w.must(a.Reconcile(t.Context(), pub))
			w.same(a, 3)
		})
	}
}

// A flip is called off at once, though a batch runs.
func TestATimedFlipIsCalledOffBesideABatch(t *testing.T) {
	w := newWorld(t)
	w.closed()
	w.must(w.adopted().Close())
	var g *gated
	a := w.reopen(func(o *listener.Options) { g = newGated(o.Modules[0].Runner); o.Modules[0].Runner = g })
	start(t, a)
	w.write(testenv.File("other", "y"))
	w.send(a, w.announce(w.rec(event.Write, "other")))
	<-g.started
	shown := w.rec(event.Meta, "release")
	shown.Mode = event.ModeDir | 0o755
	w.send(a, w.put(w.make(event.Announcement{Kind: event.Flip, NotBefore: time.Hour, Was: 0o700}, shown)))
	w.waitFor(a, "the flip waits", func(s listener.ModuleStatus) bool { return s.FlipsWait == 1 && w.count(a, event.Ready) == 1 })
	w.send(a, w.flip(event.Announcement{}, "release"))
	w.waitFor(a, "called off", func(s listener.ModuleStatus) bool { return s.FlipsWait == 0 && w.count(a, event.Skipped) == 1 })
	close(g.letGo)
	w.waitFor(a, "applied", func(s listener.ModuleStatus) bool { return s.Applied == 4 })
	w.same(a, 4)
}

// The master itself keeps a directory closed until the time: what is announced in it, or of it as it is, neither shows it early nor calls the flip off.
func TestATimedFlipOfWhatTheMasterKeepsClosed(t *testing.T) {
	w := newWorld(t)
	clock := time.Now()
	w.now = func() time.Time { return clock }
	w.closed()
	a := w.adopted()
	shown := w.rec(event.Meta, "release")
	shown.Mode = event.ModeDir | 0o755
	w.send(a, w.put(w.make(event.Announcement{Kind: event.Flip, NotBefore: 30 * time.Minute, Was: 0o700}, shown)))
	w.must(a.Reconcile(t.Context(), pub))
	w.write(testenv.File("release/g", "y"))
	for _, r := range []event.Record{w.rec(event.Write, "release/g"), w.rec(event.Level, "release"), w.rec(event.Meta, "release")} {
		w.send(a, w.announce(r))
		w.must(a.Reconcile(t.Context(), pub))
		if d := testenv.Diff(t, w.up, w.dest, event.ExportDir); len(d) > 0 {
			t.Errorf("before its time it differs: %q", d)
		}
	}
	if s := w.status(a); s.FlipsWait != 1 {
		t.Errorf("%+v", s)
	}
	clock = clock.Add(31 * time.Minute)
	w.deliver(a, w.compose(0))
	w.must(a.Reconcile(t.Context(), pub))
	w.same2(a, "release")
	w.must(os.Chmod(filepath.Join(w.up, "release"), 0o755))
	w.send(a, w.flip(event.Announcement{}, "release"))
	w.must(a.Reconcile(t.Context(), pub))
	w.same(a, 6)
}

// While a flip waits for its time, others that are done go on being done again, and must not take back what was announced after them.
func TestAFlipThatIsDoneDoesNotTakeBackWhatCameAfterIt(t *testing.T) {
	w := newWorld(t)
	clock := time.Now()
	w.now = func() time.Time { return clock }
	w.write(testenv.Dir("release", 0o700), testenv.Dir("later", 0o700))
	w.announce(w.rec(event.Write, "release"), w.rec(event.Write, "later"))
	a := w.adopted()
	w.must(os.Chmod(filepath.Join(w.up, "later"), 0o755))
	w.send(a, w.flip(event.Announcement{NotBefore: time.Hour}, "later"))
	w.must(os.Chmod(filepath.Join(w.up, "release"), 0o755))
	w.send(a, w.flip(event.Announcement{}, "release"))
	w.must(a.Reconcile(t.Context(), pub))
	w.must(os.Chmod(filepath.Join(w.up, "release"), 0o700))
	w.send(a, w.announce(w.rec(event.Meta, "release")))
	w.must(a.Reconcile(t.Context(), pub))
	w.same2(a, "later")
	w.write(testenv.File("more", "x"))
	w.send(a, w.announce(w.rec(event.Write, "more")))
	w.must(a.Reconcile(t.Context(), pub))
	w.same2(a, "later")
	clock = clock.Add(time.Hour + time.Second)
	w.must(a.Reconcile(t.Context(), pub))
	w.same(a, 5)
}
