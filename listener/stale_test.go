package listener_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/export"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/listener"
)

// putRaw writes a head file as it is, past all that the export takes care of.
func (w *world) putRaw(b []byte) {
	w.t.Helper()
	w.must(os.WriteFile(filepath.Join(w.up, event.ExportDir, export.HeadFile), b, 0o644))
}

func (w *world) seal(m event.Texter) []byte {
	w.t.Helper()
	line, err := event.Seal(m, signer(w.t, 1))
	w.must(err)
	return line
}

// What stands in the place of the head and is none is one clear error. Nothing comes of it, and with the next good head all goes on.
func TestHeadsThatAreNone(t *testing.T) {
	for name, c := range map[string]struct {
		is   func(*world) []byte
		says string
	}{
		"cut short":          {func(w *world) []byte { h := w.head(); return h[:len(h)/2] }, "must be one line"},
		"a line cut short":   {func(w *world) []byte { h := w.head(); return append(h[:len(h)/2:len(h)/2], '\n') }, "the upstream's head"},
		"one byte is wrong":  {func(w *world) []byte { h := w.head(); h[len(h)-20] ^= 1; return append(h, '\n') }, "the upstream's head"},
		"empty":              {func(*world) []byte { return nil }, "must be one line"},
		"a page":             {func(*world) []byte { return []byte("<!DOCTYPE html>\n<title>404 Not Found</title>\n") }, "must be one line"},
		"a page in one line": {func(*world) []byte { return []byte("<html><title>Moved</title></html>\n") }, "the upstream's head"},
		"a long page":        {func(*world) []byte { return []byte("<html>" + strings.Repeat("<p>Our mirrors", 3000)) }, "bytes long, at most"},
		"of another module":  {func(w *world) []byte { return append(w.seal(w.headOf("other", w.serial+5)), '\n') }, "of module other"},
		"an announcement": {func(w *world) []byte {
			return append(w.make(event.Announcement{}, w.rec(event.Write, "README")).line, '\n')
		}, "is a change of module pub"},
		"signed by a mirror": {func(w *world) []byte {
			line, err := event.Seal(w.headOf(pub, w.serial+5), signer(w.t, 2))
			w.must(err)
			return append(line, '\n')
		}, "the upstream's head"},
		"two heads, one file": {func(w *world) []byte { h := append(w.head(), '\n'); return append(h, h...) }, "must be one line"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			a := w.adopted()
			unchanged := w.snapshot(w.dest)
			w.putRaw(c.is(w))
			w.must(a.SyncNow(t.Context(), pub))
			err := a.Reconcile(t.Context(), pub)
			s := w.status(a)
			if err == nil || s.State != listener.Retrying || !strings.Contains(s.Error, c.says) || s.Look != listener.CannotTell || s.Applied != 1 || s.Head != 1 {
				t.Errorf("%v %+v", err, s)
			}
			unchanged()
			w.write(testenv.File("a", "x"))
			w.announce(w.rec(event.Write, "a"))
			w.must(a.SyncNow(t.Context(), pub))
			w.must(a.Reconcile(t.Context(), pub))
			w.same(a, 2)
			if s := w.status(a); s.State != listener.Current || s.Look == listener.CannotTell {
				t.Errorf("%+v", s)
			}
		})
	}
}

func (w *world) headOf(m event.Module, n event.Serial) event.Head {
	return event.Head{Module: m, Epoch: w.epoch, Serial: n, At: w.now().UTC().Truncate(time.Second), TTL: 15 * time.Minute, Last: event.Sum([]byte(m))}
}

// A head that has expired says nothing of now: the mirror says that its upstream is stale, and is current again with the next fresh one.
func TestAFrozenUpstreamIsStale(t *testing.T) {
	w := newWorld(t)
	clock := time.Now()
	w.now = func() time.Time { return clock }
	a := w.adopted()
	w.must(a.SyncNow(t.Context(), pub))
	w.must(a.Reconcile(t.Context(), pub))
	if s := w.status(a); s.State != listener.Current || s.Look != listener.NoNews || s.LookedAt.IsZero() || !s.NextLook.After(clock) {
		t.Errorf("%+v", s)
	}
	unchanged := w.snapshot(w.dest)
	clock = clock.Add(72 * time.Hour)
	w.must(a.SyncNow(t.Context(), pub))
	w.must(a.Reconcile(t.Context(), pub))
	if s := w.status(a); s.State != listener.Stale || s.Look != listener.OldNews || !strings.Contains(s.Error, "has expired") || s.Applied != 1 {
		t.Errorf("%+v", s)
	}
	unchanged()
	w.must(w.out.PutHead(w.head()))
	w.must(a.SyncNow(t.Context(), pub))
	w.must(a.Reconcile(t.Context(), pub))
	if s := w.status(a); s.State != listener.Current || s.Look != listener.NoNews || s.Error != "" {
		t.Errorf("%+v", s)
	}
}

// An upstream that was set back to an epoch which has been replaced is not followed there, whatever else is heard meanwhile.
func TestAnUpstreamOfAReplacedEpochIsStale(t *testing.T) {
	w := newWorld(t)
	clock := time.Now()
	w.now = func() time.Time { return clock }
	a := w.adopted()
	old := w.head()
	clock = clock.Add(time.Minute)
	w.epoch, w.serial, w.last, w.manifest = "00000001", 0, event.Digest{}, event.Digest{}
	w.write(testenv.File("c", "x"))
	w.announce(w.rec(event.Write, "c"))
	w.publishManifest()
	w.must(a.SyncNow(t.Context(), pub))
	w.must(a.Reconcile(t.Context(), pub))
	w.same(a, 1)
	unchanged := w.snapshot(w.dest)

	w.putRaw(append(old, '\n'))
	w.must(a.SyncNow(t.Context(), pub))
	err := a.Reconcile(t.Context(), pub)
	if s := w.status(a); err == nil || s.State != listener.Stale || s.Look != listener.OldNews || !strings.Contains(s.Error, "which epoch 00000001 has replaced") || s.Epoch != "00000001" || s.Next.IsZero() {
		t.Errorf("%v %+v", err, s)
	}
	d := testenv.File("d", "x").At(clock.Add(-time.Hour).Truncate(time.Second))
	w.write(d)
	two := w.make(event.Announcement{}, w.rec(event.Write, "d"))
	w.must(os.Remove(filepath.Join(w.up, "d"))) // which this upstream does not have
	w.send(a, two)
	for range 3 {
		clock = clock.Add(time.Minute)
		if err := a.Reconcile(t.Context(), pub); err == nil {
			t.Error("nothing is in the way")
		}
	}
	if s := w.status(a); s.State != listener.Stale || s.Applied != 1 {
		t.Errorf("%+v", s)
	}
	unchanged()
	w.write(d)
	w.put(two)
	clock = clock.Add(time.Hour)
	w.must(w.out.PutHead(w.head()))
	w.must(a.SyncNow(t.Context(), pub))
	w.must(a.Reconcile(t.Context(), pub))
	w.same(a, 2)
}

// A tree that is here, and newer, is not brought to what an upstream has that was frozen days ago, just because this mirror remembers nothing.
func TestANewMirrorDoesNotBeginWithAFrozenUpstream(t *testing.T) {
	w := newWorld(t)
	clock := time.Now().Add(-72 * time.Hour)
	w.now = func() time.Time { return clock }
	w.write(testenv.File("f", "old"))
	w.announce(w.rec(event.Write, "f"))
	w.publishManifest()
	clock = clock.Add(72 * time.Hour)
	testenv.WriteTree(t, w.dest, testenv.File("f", "newer"), testenv.File("g", "newer"))
	unchanged := w.snapshot(w.dest)
	a := w.agent()
	err := a.Reconcile(t.Context(), pub)
	if s := w.status(a); err == nil || s.State != listener.Stale || !strings.Contains(s.Error, "expired long ago") || s.Epoch != "" {
		t.Errorf("%v %+v", err, s)
	}
	unchanged()
	w.must(w.out.PutHead(w.head())) // the master lives, and says that it is so
	w.must(a.SyncNow(t.Context(), pub))
	w.must(a.Reconcile(t.Context(), pub))
	w.same(a, 1)
}

// A head that tells of more than is known, and expired days ago, may be what somebody kept who wants this mirror to bring what was withdrawn since: it leads
// nowhere, and the mirror says so. One that expired some hours ago is followed, as clocks may be so wrong, and so is the next fresh one.
func TestAFrozenHeadLeadsNowhere(t *testing.T) {
	for name, c := range map[string]struct {
		age      time.Duration
		followed bool
	}{"for hours": {20 * time.Hour, true}, "for days": {72 * time.Hour, false}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			clock := time.Now()
			w.now = func() time.Time { return clock }
			a := w.adopted()
			w.write(testenv.File("a", "x"))
			w.announce(w.rec(event.Write, "a"))
			unchanged := w.snapshot(w.dest)
			clock = clock.Add(c.age)
			w.must(a.SyncNow(t.Context(), pub))
			w.must(a.Reconcile(t.Context(), pub))
			s := w.status(a)
			if s.State != listener.Stale || s.Look != listener.OldNews || s.Error == "" || !strings.Contains(s.LookText, "has expired") {
				t.Errorf("%+v", s)
			}
			if c.followed {
				w.same(a, 2)
				return
			}
			if s.Applied != 1 || s.Heard != 1 || !strings.Contains(s.LookText, "serial 2, which it tells of, is not fetched") {
				t.Errorf("%+v", s)
			}
			unchanged()
			w.must(w.out.PutHead(w.head()))
			w.must(a.SyncNow(t.Context(), pub))
			w.must(a.Reconcile(t.Context(), pub))
			w.same(a, 2)
			if s := w.status(a); s.State != listener.Current || s.Look == listener.OldNews {
				t.Errorf("%+v", s)
			}
		})
	}
}

// It leads nowhere by whatever way it comes, nor where only a comparison with the manifest would help. What was announced does not expire: that is brought, and no
// more than that.
func TestAFrozenHeadKeepsNothingBackThatWasHeard(t *testing.T) {
	w := newWorld(t)
	clock := time.Now()
	w.now = func() time.Time { return clock }
	a := w.adopted()
	var all []announcement
	for _, name := range []string{"a", "b", "c", "d"} {
		w.write(testenv.File(name, "x"))
		all = append(all, w.announce(w.rec(event.Write, name)))
	}
	w.publishManifest()
	late := w.head()
	clock = clock.Add(72 * time.Hour)
	w.deliver(a, late)
	w.must(a.Reconcile(t.Context(), pub))
	if s := w.status(a); s.Applied != 1 || s.Heard != 1 || s.State != listener.Stale {
		t.Errorf("%+v", s)
	}
	w.send(a, all[1]) // the one before is in the journal
	w.must(a.Reconcile(t.Context(), pub))
	if s := w.status(a); s.Applied != 3 || s.Heard != 3 || s.State != listener.Stale {
		t.Errorf("%+v", s)
	}
	if _, err := os.Lstat(filepath.Join(w.dest, "c")); err == nil {
		t.Error("what only the frozen head tells of was fetched")
	}
	w.must(os.RemoveAll(filepath.Join(w.up, event.ExportDir, export.JournalDir)))
	w.deliver(a, all[2].line) // its path set is nowhere: only the manifest tells, which is that of serial 5
	err := a.Reconcile(t.Context(), pub)
	if s := w.status(a); err == nil || s.Applied != 3 || s.Heard != 4 || s.State != listener.Stale || !strings.Contains(s.Error, "it is not followed") {
		t.Errorf("%v %+v", err, s)
	}
	w.must(w.out.PutHead(w.head()))
	w.must(a.SyncNow(t.Context(), pub))
	w.must(a.Reconcile(t.Context(), pub))
	w.same(a, 5)
}

// Nor into another epoch.
func TestAFrozenHeadOfAnotherEpochIsNotFollowed(t *testing.T) {
	w := newWorld(t)
	clock := time.Now()
	w.now = func() time.Time { return clock }
	a := w.adopted()
	clock = clock.Add(time.Minute)
	w.epoch, w.serial, w.last, w.manifest = "00000001", 0, event.Digest{}, event.Digest{}
	w.write(testenv.File("c", "x"))
	w.announce(w.rec(event.Write, "c"))
	w.publishManifest()
	unchanged := w.snapshot(w.dest)
	clock = clock.Add(72 * time.Hour)
	for range 3 {
		w.must(a.SyncNow(t.Context(), pub))
		err := a.Reconcile(t.Context(), pub)
		if s := w.status(a); err == nil || s.State != listener.Stale || s.Look != listener.OldNews || s.Epoch == "00000001" || !strings.Contains(s.Error, "it is of epoch 00000001, and not followed there") {
			t.Errorf("%v %+v", err, s)
		}
		clock = clock.Add(time.Minute)
	}
	unchanged()
	w.must(w.out.PutHead(w.head()))
	w.must(a.SyncNow(t.Context(), pub))
	w.must(a.Reconcile(t.Context(), pub))
	w.same(a, 1)
}

// In the place of the head stands something of 5 GB: it is not fetched, and said to be too large, with where it is.
func TestAHeadOf5GB(t *testing.T) {
	w := newWorld(t)
	a := w.adopted()
	unchanged := w.snapshot(w.dest)
	w.must(os.Truncate(filepath.Join(w.up, event.ExportDir, export.HeadFile), 5_000_000_000))
	w.must(a.SyncNow(t.Context(), pub))
	err := a.Reconcile(t.Context(), pub)
	want := w.daemon.URL("pub", event.ExportDir, export.HeadFile) + ": malformed: it is larger than"
	if s := w.status(a); err == nil || s.State != listener.Retrying || s.Look != listener.CannotTell || !strings.Contains(s.Error, want) || s.Applied != 1 {
		t.Errorf("%v %+v, want %q", err, s, want)
	}
	unchanged()
	w.must(w.out.PutHead(w.head()))
	w.must(a.SyncNow(t.Context(), pub))
	w.must(a.Reconcile(t.Context(), pub))
	w.same(a, 1)
}

// A head beyond what the upstream's journal and manifest have: what there is, is taken, and the rest waited for.
func TestAHeadFromTheFuture(t *testing.T) {
	w := newWorld(t)
	clock := time.Now()
	w.now = func() time.Time { return clock }
	a := w.adopted()
	unchanged := w.snapshot(w.dest)
	far := w.headOf(pub, 900)
	far.Manifest = w.manifest
	w.putRaw(append(w.seal(far), '\n'))
	w.must(a.SyncNow(t.Context(), pub))
	err := a.Reconcile(t.Context(), pub)
	if s := w.status(a); err == nil || s.State != listener.Waiting || s.Applied != 1 || !strings.Contains(s.Error, "announced is 900") {
		t.Errorf("%v %+v", err, s)
	}
	unchanged()
}

// The export of an upstream that had one goes away. Nothing is missing as far as is known, but nobody can tell.
func TestAnUpstreamThatExportsNothingAnyMore(t *testing.T) {
	w := newWorld(t)
	a := w.adopted()
	w.must(os.RemoveAll(filepath.Join(w.up, event.ExportDir, export.HeadFile)))
	w.must(a.SyncNow(t.Context(), pub))
	w.must(a.Reconcile(t.Context(), pub))
	if s := w.status(a); s.Look != listener.CannotTell || s.LookText == "" || s.Applied != 1 {
		t.Errorf("%+v", s)
	}
}

// Looks follow the news: soon after some that only a look has found, ever later without.
func TestLooksFollowTheNews(t *testing.T) {
	w := newWorld(t)
	clock := time.Now()
	w.now = func() time.Time { return clock }
	a := w.adopted(func(o *listener.Options) { o.LookEvery, o.LookLeast = 8*time.Minute, time.Minute })
	next := func() time.Duration {
		t.Helper()
		s := w.status(a)
		return s.NextLook.Sub(s.LookedAt)
	}
	look := func() {
		t.Helper()
		clock = w.status(a).NextLook.Add(time.Second)
		w.must(w.out.PutHead(w.head())) // as the master does; it is no news
		w.must(a.Reconcile(t.Context(), pub))
	}
	look()
	if d := next(); d < 6*time.Minute || d > 8*time.Minute {
		t.Errorf("in silence the next look is after %v", d)
	}
	w.write(testenv.File("a", "x"))
	w.announce(w.rec(event.Write, "a"))
	look()
	w.same(a, 2)
	if d := next(); d < 45*time.Second || d > time.Minute {
		t.Errorf("after news the next look is after %v", d)
	}
	var waits []time.Duration
	for range 5 {
		look()
		waits = append(waits, next())
	}
	if waits[0] > 2*time.Minute || waits[0] < time.Minute || waits[4] < 4*time.Minute || waits[4] > 8*time.Minute {
		t.Errorf("then after %v", waits)
	}
}
