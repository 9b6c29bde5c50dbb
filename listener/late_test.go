package listener_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/listener"
)

// Nothing comes over any transport, and nobody says that they are down. The mirror looks by itself; if the upstream has no news either, it says that
// it is stale rather than current.
func TestSilenceIsMadeUpForByLooking(t *testing.T) {
	w := newWorld(t)
	clock := time.Now()
	w.now = func() time.Time { return clock }
	a := w.adopted()
	w.write(testenv.File("a", "x"))
	w.announce(w.rec(event.Write, "a"))
	clock = clock.Add(9 * time.Minute)
	w.must(a.Reconcile(t.Context(), pub))
	if s := w.status(a); s.Applied != 1 {
		t.Errorf("looked before its time: %+v", s)
	}
	clock = clock.Add(2 * time.Minute)
	w.must(a.Reconcile(t.Context(), pub))
	w.same(a, 2)
	if s := w.status(a); s.State != listener.Current || s.Via != "upstream" {
		t.Errorf("%+v", s)
	}
	clock = clock.Add(time.Hour) // the master signs no head any more: it is gone, or somebody holds them back
	w.must(a.Reconcile(t.Context(), pub))
	if s := w.status(a); s.State != listener.Stale || s.Applied != 2 {
		t.Errorf("%+v", s)
	}
	w.daemon.Stop()
	clock = clock.Add(time.Hour)
	if err := a.Reconcile(t.Context(), pub); err == nil || w.status(a).State != listener.Retrying {
		t.Errorf("%v %+v", err, w.status(a))
	}
	w.daemon.Start()
	w.write(testenv.File("b", "x"))
	w.announce(w.rec(event.Write, "b"))
	clock = clock.Add(time.Hour)
	w.must(w.out.PutHead(w.head()))
	w.must(a.Reconcile(t.Context(), pub))
	w.same(a, 3)
}

// Mail may take three days. A change that comes so late is as good as one that comes at once, if it is still to be done; what it says is gone is not
// removed if it is there again. So it is too if nobody has signed a head since, and nothing but the messages leads on.
func TestMessagesThatComeThreeDaysLate(t *testing.T) {
	for name, signed := range map[string]bool{"the master lives": true, "no head is signed any more": false} {
		t.Run(name, func(t *testing.T) { messagesThreeDaysLate(t, signed) })
	}
}

func messagesThreeDaysLate(t *testing.T, signed bool) {
	w := newWorld(t)
	clock := time.Now()
	w.now = func() time.Time { return clock }
	w.write(testenv.File("back", "1"), testenv.File("f", "1"))
	a := w.adopted()
	w.must(os.Remove(filepath.Join(w.up, "back")))
	two := w.announce(event.Record{Op: event.Gone, Path: "back"})
	w.write(testenv.File("back", "again"), testenv.File("f", "2"))
	three := w.announce(w.rec(event.Write, "back"), w.rec(event.Write, "f"))
	late := w.head()
	closing := w.rec(event.Meta, "f")
	closing.Mode = event.ModeFile | 0o600
	four := w.put(w.make(event.Announcement{Kind: event.Flip, Expires: time.Hour}, closing))

	clock = clock.Add(72 * time.Hour)
	if signed {
		w.must(w.out.PutHead(w.head()))
	}
	w.send(a, two) // the others are still on their way
	if err := a.Reconcile(t.Context(), pub); signed && err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(filepath.Join(w.dest, "back")); err != nil || signed && string(b) != "again" {
		t.Errorf("removed although it is there again: %v, %q", err, b)
	}
	w.deliver(a, late)
	w.send(a, four, three)
	w.must(a.SyncNow(t.Context(), pub))
	w.must(a.Reconcile(t.Context(), pub))
	if s := w.status(a); s.Applied != 4 || w.count(a, event.Skipped) != 1 {
		t.Errorf("%+v, %d skipped", s, w.count(a, event.Skipped))
	}
	if info, err := os.Stat(filepath.Join(w.dest, "f")); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("an expired flip was done: %v %v", info.Mode(), err)
	}
	reports := len(w.reports(a))
	w.send(a, two, three, four)
	w.deliver(a, late)
	w.must(a.Reconcile(t.Context(), pub))
	if s := w.status(a); s.Applied != 4 || len(w.reports(a)) != reports {
		t.Errorf("repeated: %+v, %d more reports", s, len(w.reports(a))-reports)
	}
}

// A flip that has come before its time is done at its time by what is here: master, hub and upstream may be away. A mirror that was away itself does
// it when it is back.
func TestATimedFlipNeedsNobodyAtItsTime(t *testing.T) {
	w := newWorld(t)
	clock := time.Now()
	w.now = func() time.Time { return clock }
	w.write(testenv.Dir("release", 0o700), testenv.File("release/f", "x"))
	w.announce(w.rec(event.Write, "release"), w.rec(event.Write, "release/f"))
	prepared := w.adopted()
	away := w.another()
	b := away.agent()
	w.must(b.Reconcile(t.Context(), pub))
	w.must(os.Chmod(filepath.Join(w.up, "release"), 0o755))
	flip := w.flip(event.Announcement{NotBefore: time.Hour, Expires: 3 * time.Hour}, "release")
	w.send(prepared, flip)
	w.must(prepared.Reconcile(t.Context(), pub))
	if n := w.count(prepared, event.Ready); n != 1 {
		t.Fatalf("%d ready reports", n)
	}
	mode := func(x *world) os.FileMode {
		info, err := os.Stat(filepath.Join(x.dest, "release"))
		w.must(err)
		return info.Mode().Perm()
	}
	w.daemon.Stop()
	clock = clock.Add(time.Hour - time.Second)
	if err := prepared.Reconcile(t.Context(), pub); mode(w) != 0o700 {
		t.Errorf("shown before its time: %v", err)
	}
	clock = clock.Add(2 * time.Second)
	if err := prepared.Reconcile(t.Context(), pub); mode(w) != 0o755 || w.count(prepared, event.Applied) != 2 {
		t.Errorf("not shown at its time: %v, %v", mode(w), err)
	}
	w.daemon.Start()
	clock = clock.Add(time.Hour)
	w.must(w.out.PutHead(w.head()))
	if mode(away) != 0o700 {
		t.Error("the one that was away has flipped")
	}
	w.must(b.SyncNow(t.Context(), pub))
	w.must(b.Reconcile(t.Context(), pub))
	away.same(b, 2)
}

// A host wakes with a clock two hours fast, fails, and has its clock set. It does not wait for two hours until the time that it had noted.
func TestAClockThatIsSetBackHoldsNothingUp(t *testing.T) {
	w := newWorld(t)
	real := time.Now()
	clock := real
	w.now = func() time.Time { return clock }
	a := w.adopted()
	clock = real.Add(2 * time.Hour)
	w.daemon.Stop()
	w.write(testenv.File("a", "x"))
	w.send(a, w.announce(w.rec(event.Write, "a")))
	if err := a.Reconcile(t.Context(), pub); err == nil {
		t.Fatal("applied without an upstream")
	}
	w.daemon.Start()
	clock = real.Add(time.Second)
	w.must(a.Reconcile(t.Context(), pub))
	w.same(a, 2)

	// Nor does the look at an upstream, after a time without messages.
	clock = real.Add(5 * time.Hour)
	w.must(a.SyncNow(t.Context(), pub))
	w.must(a.Reconcile(t.Context(), pub))
	clock = real.Add(time.Hour)
	w.write(testenv.File("b", "x"))
	w.announce(w.rec(event.Write, "b"))
	clock = clock.Add(11 * time.Minute)
	w.must(a.Reconcile(t.Context(), pub))
	w.same(a, 3)

	// Nor a rate that was used up.
	clock = real.Add(9 * time.Hour)
	for i := range 25 {
		w.write(testenv.File("c", strings.Repeat("x", i)))
		w.send(a, w.announce(w.rec(event.Write, "c")))
		w.must(noLimit(a.Reconcile(t.Context(), pub)))
	}
	if s := w.status(a); s.Applied == w.serial {
		t.Fatal("the rate is not used up, this test proves nothing")
	}
	clock = real.Add(2 * time.Hour)
	w.must(a.Reconcile(t.Context(), pub))
	w.same(a, w.serial)
}

// The state folder is a backup of some days ago, or was lost. The tree is what counts: it is not set back, nothing in it is removed, and what is missing is
// found out from the upstream.
func TestStateOlderThanTheTree(t *testing.T) {
	for name, lost := range map[string]bool{"restored": false, "lost": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			a := w.adopted()
			w.must(a.Close())
			backup := filepath.Join(t.TempDir(), "backup")
			w.must(os.CopyFS(backup, os.DirFS(w.state)))
			a = w.agent()
			for _, name := range []string{"a", "b"} {
				w.write(testenv.File(name, "x"))
				w.send(a, w.announce(w.rec(event.Write, name)))
				w.must(a.Reconcile(t.Context(), pub))
			}
			w.same(a, 3)
			w.must(a.Close())
			unchanged := w.snapshot(w.dest)
			w.must(os.RemoveAll(w.state))
			if lost {
				w.publishManifest()
			} else {
				w.must(os.Rename(backup, w.state))
			}
			a = w.agent()
			if s := w.status(a); s.Applied >= 3 {
				t.Errorf("%+v", s)
			}
			w.must(a.SyncNow(t.Context(), pub))
			w.must(a.Reconcile(t.Context(), pub))
			w.same(a, 3)
			unchanged()
			if r := w.reports(a)[len(w.reports(a))-1]; r.Applied != 3 || r.Files != 0 {
				t.Errorf("%+v", r)
			}
		})
	}
}

// The master puts something older in the place of a file, and the upstream, a tier above, does not have it yet: what is newer here is not taken for what was
// written since.
func TestAnOlderFileThatTheUpstreamDoesNotHaveYet(t *testing.T) {
	for _, here := range []bool{true, false} {
		t.Run(fmt.Sprintf("here=%t", here), func(t *testing.T) {
			w := newWorld(t)
			w.write(testenv.File("f", "new"))
			a := w.adopted()
			old := testenv.File("f", "older").At(time.Now().Add(-1000 * time.Hour))
			w.write(old)
			rec := w.rec(event.Write, "f")
			w.write(testenv.File("f", "new"))
			if !here {
				w.must(os.Remove(filepath.Join(w.dest, "f")))
			}
			two := w.make(event.Announcement{}, rec)
			w.send(a, two)
			w.must(errOrNil(a.Reconcile(t.Context(), pub)))
			if s := w.status(a); s.Applied != 1 || s.State != listener.Waiting {
				t.Errorf("before the upstream has it: %+v", s)
			}
			w.write(old)
			w.put(two)
			w.must(a.SyncNow(t.Context(), pub))
			w.must(errOrNil(a.Reconcile(t.Context(), pub)))
			w.same(a, 2)
		})
	}
}
