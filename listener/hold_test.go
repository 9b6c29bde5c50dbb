package listener_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/listener"
)

// compose exports a head that says for how long a compose is under way, 0 for none, and says so from then on. It is of a later second than the one before.
func (w *world) compose(hold time.Duration) []byte {
	w.t.Helper()
	w.signed++
	w.held = hold
	line := w.head()
	w.must(w.out.PutHead(line))
	return line
}

// waits checks that the module waits for a compose, and has nothing of a file.
func (w *world) waits(a *listener.Agent, file string) {
	w.t.Helper()
	err := a.Reconcile(w.t.Context(), pub)
	if err == nil || fault.StatusOf(err) != fault.TryAgain || !strings.Contains(err.Error(), "in the middle of a compose, until ") {
		w.t.Errorf("reconciled with %v", err)
	}
	if s := w.status(a); s.State != listener.Composing || s.Held.IsZero() || s.Running != nil {
		w.t.Errorf("%+v", s)
	}
	if _, err := os.Lstat(filepath.Join(w.dest, file)); err == nil {
		w.t.Errorf("%s was fetched", file)
	}
}

// A head that says so keeps what was announced before from being fetched; what is announced after it, or a head that does not say so, lets it go on.
func TestComposeHoldsWorkBack(t *testing.T) {
	for name, end := range map[string]func(*world, *listener.Agent){
		"a change": func(w *world, a *listener.Agent) {
			w.write(testenv.File("more", "x"))
			w.held = 0
			w.send(a, w.announce(w.rec(event.Write, "more")))
		},
		"a head":               func(w *world, a *listener.Agent) { w.deliver(a, w.compose(0)) },
		"a head that it reads": func(w *world, a *listener.Agent) { w.compose(0); w.must(a.SyncNow(w.t.Context(), pub)) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			a := w.adopted()
			w.write(testenv.File("a", "x"))
			before := w.announce(w.rec(event.Write, "a"))
			w.deliver(a, w.compose(time.Hour))
			w.send(a, before)
			w.waits(a, "a")
			w.must(a.SyncNow(t.Context(), pub)) // which reads the same head
			w.waits(a, "a")
			end(w, a)
			w.must(a.Reconcile(t.Context(), pub))
			w.same(a, w.serial)
			if s := w.status(a); s.State != listener.Current || !s.Held.IsZero() {
				t.Errorf("%+v", s)
			}
		})
	}
}

// The message that a compose has begun is lost. A mirror that asks its upstream before it works learns of it, whatever it asks for.
func TestComposeIsNoticedAtTheUpstream(t *testing.T) {
	t.Run("a new mirror", func(t *testing.T) {
		w := newWorld(t)
		w.write(testenv.File("README", "hello"))
		w.announce(w.rec(event.Write, "README"))
		w.publishManifest()
		w.compose(time.Hour)
		a := w.agent()
		w.waits(a, "README")
		w.compose(0)
		w.must(a.SyncNow(t.Context(), pub))
		w.must(a.Reconcile(t.Context(), pub))
		w.same(a, w.serial)
	})
	t.Run("an index that names what is not there yet", func(t *testing.T) {
		w := newWorld(t)
		w.write(testenv.File("repodata/lists.xml", "one"))
		w.announce(w.rec(event.Write, "repodata/lists.xml"))
		w.must(w.adopted().Close())
		a := w.reopen(func(o *listener.Options) { o.Modules[0].Last = []string{"repodata/"} })
		w.write(testenv.File("repodata/lists.xml", "one and two"))
		before := w.announce(w.rec(event.Write, "repodata/lists.xml"))
		w.compose(time.Hour)
		w.write(testenv.File("repodata/lists.xml", "one and two and three, which is missing")) // nobody has told of it
		w.send(a, before)
		err := a.Reconcile(t.Context(), pub)
		if s := w.status(a); err == nil || s.State != listener.Composing || s.Applied != 1 {
			t.Errorf("%+v, %v", s, err)
		}
		if text, err := os.ReadFile(filepath.Join(w.dest, "repodata/lists.xml")); err != nil || string(text) != "one" {
			t.Errorf("a reader finds %q, %v", text, err)
		}
		if n := w.count(a, event.Failed); n != 0 {
			t.Errorf("the master is told %d times that it failed", n)
		}
		w.write(testenv.File("three", "x"))
		w.held = 0
		w.send(a, w.announce(w.rec(event.Write, "repodata/lists.xml"), w.rec(event.Write, "three")))
		w.must(a.Reconcile(t.Context(), pub))
		w.same(a, w.serial)
	})
}

func TestFlipsPassInACompose(t *testing.T) {
	w := newWorld(t)
	w.write(testenv.Dir("release", 0o700), testenv.File("release/f", "x"))
	w.announce(w.rec(event.Write, "release"), w.rec(event.Write, "release/f"))
	a := w.adopted()
	w.write(testenv.File("a", "x"))
	before := w.announce(w.rec(event.Write, "a"))
	w.deliver(a, w.compose(time.Hour))
	w.send(a, before)
	w.must(os.Chmod(filepath.Join(w.up, "release"), 0o755))
	w.send(a, w.flip(event.Announcement{}, "release"))
	w.waits(a, "a")
	if info, err := os.Stat(filepath.Join(w.dest, "release")); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("not flipped: %v, %v", info.Mode(), err)
	}
	w.deliver(a, w.compose(time.Hour)) // signed anew, at the flip's serial
	w.waits(a, "a")
	w.deliver(a, w.compose(0))
	w.must(a.Reconcile(t.Context(), pub))
	w.same(a, w.serial)
}

// A master that is gone does not stop a mirror for good: when the time is over it goes on, also one that was restarted meanwhile or has a wrong clock.
func TestComposeEndsWithItsTime(t *testing.T) {
	for name, off := range map[string]time.Duration{"right": 0, "fast by 3 minutes": 3 * time.Minute, "slow by 2 hours": -2 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.must(w.adopted().Close())
			clock := time.Now().Add(off)
			now := func(o *listener.Options) { o.Now = func() time.Time { return clock } }
			a := w.reopen(now)
			w.write(testenv.File("a", "x"))
			before := w.announce(w.rec(event.Write, "a"))
			w.deliver(a, w.compose(time.Hour))
			w.send(a, before)
			w.waits(a, "a")
			w.must(a.Close())
			clock = clock.Add(55 * time.Minute)
			a = w.reopen(now)
			w.waits(a, "a")
			clock = clock.Add(5*time.Minute + time.Second)
			w.must(a.Reconcile(t.Context(), pub))
			w.same(a, w.serial)
		})
	}
}

// Who can only repeat what was said cannot hold a mirror back: an older head is no news, and a time that is over is over.
func TestOldHeadsOfAComposeHoldNothingBack(t *testing.T) {
	w := newWorld(t)
	a := w.adopted()
	old := w.compose(time.Hour)
	w.deliver(a, w.compose(0))
	w.deliver(a, old)
	w.write(testenv.File("a", "x"))
	w.send(a, w.announce(w.rec(event.Write, "a")))
	w.deliver(a, old)
	w.must(a.Reconcile(t.Context(), pub))
	w.same(a, w.serial)
	forged, err := event.Seal(event.Head{Module: pub, Epoch: w.epoch, Serial: w.serial, At: w.now().UTC().Truncate(time.Second).Add(time.Hour), TTL: 15 * time.Minute, Last: w.last,
		Hold: time.Hour}, signer(t, 3))
	w.must(err)
	w.deliver(a, forged)
	w.must(a.Reconcile(t.Context(), pub))
	if s := w.status(a); !s.Held.IsZero() || s.State != listener.Current {
		t.Errorf("%+v", s)
	}
}

// A batch that runs when a compose begins ends as it would have, and the next one waits.
func TestComposeLetsARunningBatchEnd(t *testing.T) {
	w := newWorld(t)
	w.must(w.adopted().Close())
	var g *gated
	a := w.reopen(func(o *listener.Options) { g = newGated(o.Modules[0].Runner); o.Modules[0].Runner = g })
	start(t, a)
	w.write(testenv.File("a", "x"))
	w.send(a, w.announce(w.rec(event.Write, "a")))
	<-g.started
	w.write(testenv.File("b", "x"))
	next := w.announce(w.rec(event.Write, "b"))
	w.deliver(a, w.compose(time.Hour))
	w.send(a, next)
	close(g.letGo)
	w.waitFor(a, "the batch ends", func(s listener.ModuleStatus) bool { return s.Applied == 2 && s.State == listener.Composing })
	if _, err := os.Lstat(filepath.Join(w.dest, "b")); err == nil {
		t.Error("the next one does not wait")
	}
	w.deliver(a, w.compose(0))
	w.waitFor(a, "all is applied", func(s listener.ModuleStatus) bool { return s.Applied == 3 })
	w.same(a, 3)
}

// A tier below reads of the compose at the tier above, which carries the head on, and of its end.
func TestComposeIsCarriedOnToTheTierBelow(t *testing.T) {
	w := newWorld(t)
	a := w.adopted()
	below := newWorld(t)
	d := testenv.StartRsyncd(t, testenv.RsyncdOptions{}, testenv.Module{Name: "pub", Path: w.dest})
	w.deliver(a, w.compose(time.Hour))
	w.must(a.Reconcile(t.Context(), pub))
	b := below.agentOf(below.runnerOf(d.URL("pub", "")))
	below.waits(b, "README")
	w.deliver(a, w.compose(0))
	w.must(a.Reconcile(t.Context(), pub))
	below.must(b.SyncNow(t.Context(), pub))
	below.must(b.Reconcile(t.Context(), pub))
	if s := below.status(b); s.Applied != w.serial {
		t.Errorf("%+v", s)
	}
}
