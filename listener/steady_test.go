package listener_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/envelope"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/listener"
	"github.com/mirrorbus/mirrorbus/listener/plan"
	"github.com/mirrorbus/mirrorbus/listener/rsync"
)

// indexed says that what is in dists names the rest.
func indexed(o *listener.Options) { o.Modules[0].Last = []string{"dists/"} }

// A thousand announcements that arrive while one is being applied are one more batch.
func TestBurstOfAThousandAnnouncements(t *testing.T) {
	w := newWorld(t)
	w.must(w.adopted().Close())
	var g *gated
	a := w.reopen(func(o *listener.Options) { g = newGated(o.Modules[0].Runner); o.Modules[0].Runner = g })
	start(t, a)
	w.write(testenv.File("first", "x"))
	w.send(a, w.announce(w.rec(event.Write, "first")))
	<-g.started
	var last announcement
	for i := range 1000 {
		name := fmt.Sprint("f", i%50)
		w.write(testenv.File(name, fmt.Sprint("content ", i)))
		last = w.make(event.Announcement{}, w.rec(event.Write, name))
		said, err := event.Read(last.line)
		w.must(err)
		w.serial, w.last = last.Serial, said.Digest // exporting all but the last would cost more than all the rest
		w.send(a, last)
	}
	w.put(last)
	close(g.letGo)
	w.waitFor(a, "applied", func(s listener.ModuleStatus) bool { return s.Applied == w.serial })
	w.same(a, w.serial)
	if n := g.jobs.Load(); n > 3 {
		t.Errorf("rsync ran %d times for what came together, want twice", n)
	}
}

// A busy runner hears another announcement before every third of its first jobs: to be captured, an index must hold still for two.
type busy struct {
	listener.Runner
	hear func()
	left int
	jobs int
}

func (b *busy) Run(ctx context.Context, stage string, j rsync.Job) (rsync.Result, error) {
	if b.jobs++; b.left > 0 && b.jobs%3 == 0 {
		b.left--
		b.hear()
	}
	return b.Runner.Run(ctx, stage, j)
}

// Announcements that never stop do not put the index off: the batch that brings the content brings it too.
func TestSteadyAnnouncementsDoNotHoldBackTheIndex(t *testing.T) {
	const more = 20
	w := newWorld(t)
	w.must(w.adopted().Close())
	var a *listener.Agent
	var b *busy
	n, seen := 0, 0
	round := func() []event.Record {
		n++
		pool := fmt.Sprint("pool/", n)
		w.write(testenv.File(pool, "x"), testenv.File("dists/Release", fmt.Sprint("names ", pool)))
		return []event.Record{w.rec(event.Write, pool), w.rec(event.Write, "dists/Release")}
	}
	a = w.reopen(indexed, func(o *listener.Options) {
		b = &busy{Runner: o.Modules[0].Runner, left: more, hear: func() { w.send(a, w.announce(round()...)) }}
		o.Modules[0].Runner = b
		o.Modules[0].Post = []string{"sh", "-c", `echo $MIRRORBUS_SERIAL $MIRRORBUS_OUTCOME >>` + w.state + `/batches`}
	})
	w.send(a, w.announce(round()...))
	w.must(a.Reconcile(t.Context(), pub))
	w.same(a, w.serial)
	said, err := os.ReadFile(filepath.Join(w.state, "batches"))
	w.must(err)
	var serial int
	var outcome string
	for line := range strings.Lines(string(said)) {
		if _, err := fmt.Sscan(line, &serial, &outcome); err != nil || outcome != "applied" {
			t.Errorf("batch %q: %v", line, err)
		}
		seen++
	}
	if seen < 3 || b.left > 0 {
		t.Errorf("%d batches while %d announcements came: the index waited for all of them", seen, more-b.left)
	}
}

// What arrives when a batch is done but for its hook, its export and its report, is not lost with it.
func TestAnnouncementInTheTailOfABatch(t *testing.T) {
	w := newWorld(t)
	w.must(w.adopted().Close())
	dir := t.TempDir()
	a := w.reopen(func(o *listener.Options) {
		o.Modules[0].Post = []string{"sh", "-c", "cd " + dir + "; echo x >>tail; until [ -e go ]; do sleep 0.02; done"}
	})
	start(t, a)
	w.write(testenv.File("a", "1"))
	w.send(a, w.announce(w.rec(event.Write, "a")))
	testenv.WaitFor(t, waitLong, func() error { _, err := os.Stat(filepath.Join(dir, "tail")); return err })
	w.write(testenv.File("b", "2"))
	w.send(a, w.announce(w.rec(event.Write, "b")))
	w.must(os.WriteFile(filepath.Join(dir, "go"), nil, 0o600))
	w.waitFor(a, "applied", func(s listener.ModuleStatus) bool { return s.Applied == 3 })
	w.same(a, 3)
}

// A file is rewritten all the time, in place and by renaming, and announced each time: in the end the mirror has the newest.
func TestAFileThatNeverHoldsStill(t *testing.T) {
	w := newWorld(t)
	a := w.adopted()
	start(t, a)
	for i := range 30 {
		content := strings.Repeat(fmt.Sprintf("version %04d ", i), 20_000)
		if i%2 == 0 {
			w.write(testenv.File("f", content))
		} else {
			f, err := os.OpenFile(filepath.Join(w.up, "f"), os.O_WRONLY|os.O_TRUNC, 0)
			w.must(err)
			_, err = f.WriteString(content)
			w.must(err)
			w.must(f.Close())
		}
		w.send(a, w.announce(w.rec(event.Write, "f")))
	}
	w.waitFor(a, "applied", func(s listener.ModuleStatus) bool { return s.Applied == w.serial })
	w.same(a, w.serial)
}

// A file is announced and written once more before a mirror comes for it. The mirror brings what is there; the announcement that follows costs nothing.
func TestContentWrittenAfterItsAnnouncement(t *testing.T) {
	w := newWorld(t)
	a := w.adopted()
	w.write(testenv.File("f", "half"))
	x := w.announce(w.rec(event.Write, "f"))
	w.write(testenv.File("f", "the whole content"))
	w.send(a, x)
	w.must(a.Reconcile(t.Context(), pub))
	w.same(a, 2)
	w.send(a, w.announce(w.rec(event.Write, "f")))
	w.must(a.Reconcile(t.Context(), pub))
	w.same(a, 3)
	if r := w.reports(a)[len(w.reports(a))-1]; r.Files != 0 {
		t.Errorf("%d files were transferred again", r.Files)
	}
}

// Permissions are changed on the upstream before anybody says so, as on the day before a release. A mirror that comes for what was announced has those
// that were announced.
func TestPermissionsThatNobodyHasAnnouncedYet(t *testing.T) {
	w := newWorld(t)
	a := w.adopted()
	w.write(testenv.File("release/f", "x").Perm(0o640), testenv.Dir("release", 0o750), testenv.File("tool", "x").Perm(0o755))
	x := w.announce(w.rec(event.Write, "release"), w.rec(event.Write, "release/f"), w.rec(event.Write, "tool"))
	for path, perm := range map[string]os.FileMode{"release": 0o755, "release/f": 0o644, "tool": 0o700} {
		w.must(os.Chmod(filepath.Join(w.up, path), perm))
	}
	w.send(a, x)
	w.must(a.Reconcile(t.Context(), pub))
	if s := w.status(a); s.Applied != w.serial {
		t.Fatalf("%+v", s)
	}
	for path, perm := range map[string]os.FileMode{"release": 0o750, "release/f": 0o640, "tool": 0o755} {
		if info, err := os.Stat(filepath.Join(w.dest, path)); err != nil || info.Mode().Perm() != perm {
			t.Errorf("%s is %v, %v, want %v", path, info.Mode(), err, perm)
		}
	}
	w.send(a, w.announce(w.rec(event.Meta, "release"), w.rec(event.Meta, "release/f"), w.rec(event.Meta, "tool")))
	w.must(a.Reconcile(t.Context(), pub))
	w.same(a, w.serial)
}

// What a newer announcement hides, which the mirror has not heard of yet, is not shown once more by the batch before it.
func TestWhatIsHiddenByNowIsNotShownOnceMore(t *testing.T) {
	w := newWorld(t)
	w.must(w.adopted().Close())
	a := w.reopen(func(o *listener.Options) {
		o.Modules[0].Post = []string{"sh", "-c", `stat -c %a ` + w.dest + `/f >>` + w.state + `/modes`}
	})
	w.write(testenv.File("f", "x").Perm(0o644))
	first := w.announce(w.rec(event.Write, "f"))
	w.must(os.Chmod(filepath.Join(w.up, "f"), 0o640))
	w.announce(w.rec(event.Meta, "f"))
	w.send(a, first)
	w.must(a.Reconcile(t.Context(), pub))
	w.same(a, w.serial)
	if modes, err := os.ReadFile(filepath.Join(w.state, "modes")); err != nil || strings.Contains(string(modes), "644") {
		t.Errorf("after the batches f had the permissions %q, %v", modes, err)
	}
}

// What a batch cannot bring, since it is gone by now and newer announcements say so, is left to them. The batch does not begin again with all of them: where
// changes come faster than a slow mirror works it would never end.
func TestABatchLeavesToNewerAnnouncementsWhatTheySpeakOf(t *testing.T) {
	w := newWorld(t)
	w.must(w.adopted().Close())
	w.write(testenv.File("a", "1"), testenv.File("b", "1"))
	a := w.reopen(func(o *listener.Options) {
		m := &o.Modules[0]
		meddled := false
		m.Runner = meddler{m.Runner, func(stage string, _ rsync.Job) {
			if stage == string(plan.Content) && !meddled {
				meddled = true
				w.must(os.Remove(filepath.Join(w.up, "a")))
				w.announce(event.Record{Op: event.Gone, Path: "a"})
			}
		}, func() {}}
		m.Post = []string{"sh", "-c", `echo $MIRRORBUS_SERIAL $MIRRORBUS_OUTCOME >>` + w.state + `/batches`}
	})
	first := w.announce(w.rec(event.Write, "a"), w.rec(event.Write, "b"))
	at := w.serial
	w.send(a, first)
	w.must(a.Reconcile(t.Context(), pub))
	w.same(a, at+1)
	said, err := os.ReadFile(filepath.Join(w.state, "batches"))
	w.must(err)
	if want := fmt.Sprintf("%d applied\n%d applied\n", at, at+1); string(said) != want {
		t.Errorf("batches %q, want %q", said, want)
	}
}

// another is the place of one more mirror of the same master.
func (w *world) another() *world {
	w.t.Helper()
	x, base := *w, w.t.TempDir()
	x.dest, x.state = filepath.Join(base, "mirror", "dest"), filepath.Join(base, "state")
	w.must(os.MkdirAll(x.dest, 0o755))
	return &x
}

// The connection breaks off while content is brought: the index stays as it was, until all that it names is there. Each attempt brings more of it.
func TestContentThatIsCutOffHoldsTheIndexBack(t *testing.T) {
	w := newWorld(t)
	installed, err := features()
	w.must(err)
	clock := time.Now()
	w.now = func() time.Time { return clock }
	proxy := testenv.StartProxy(t, w.daemon.Port)
	w.write(testenv.File("pool/a", "1"), testenv.File("dists/Release", "1"), testenv.File("pool/old", "x"))
	w.announce(w.rec(event.Write, "pool/a"))
	w.publishManifest()
	a := w.agentOf(w.runnerOf(proxy.URL("pub")), indexed)
	w.must(a.Reconcile(t.Context(), pub))
	unchanged := w.snapshot(w.dest)
	w.write(testenv.File("pool/big", testenv.Noise(1<<20)), testenv.File("dists/Release", "names pool/big, not pool/old"))
	w.must(os.Remove(filepath.Join(w.up, "pool/old")))
	w.send(a, w.announce(w.rec(event.Write, "pool/big"), w.rec(event.Write, "dists/Release"), event.Record{Op: event.Gone, Path: "pool/old"}))
	proxy.CutAfter(400_000)
	for attempt := 1; ; attempt++ {
		if attempt == 8 {
			proxy.CutAfter(0) // this rsync begins each time from the beginning
		}
		if err := a.Reconcile(t.Context(), pub); err == nil {
			if attempt < 3 || attempt > 5 && installed.Resumes {
				t.Errorf("applied at attempt %d", attempt)
			}
			break
		}
		if s := w.status(a); s.State != listener.Retrying || s.Applied != 1 || s.Next.IsZero() {
			t.Errorf("%+v", s)
		}
		unchanged()
		clock = clock.Add(6 * time.Minute)
	}
	w.same(a, 2)
}

// A file that the upstream may not read, or that is not there, is named; the index that names it is not brought.
func TestContentThatCannotBeReadHoldsTheIndexBack(t *testing.T) {
	testenv.NeedRoot(t) // the daemon changes to another user
	w := newWorld(t, func(m *testenv.Module) { m.Extra = []string{"uid = nobody", "gid = nogroup"} })
	w.write(testenv.File("pool/a", "1"), testenv.File("dists/Release", "1"))
	w.announce(w.rec(event.Write, "pool/a"))
	a := w.adopted(indexed)
	w.write(testenv.File("pool/b", "closed").Perm(0o600), testenv.File("pool/c", "x"), testenv.File("dists/Release", "names pool/b and pool/c"))
	w.send(a, w.announce(w.rec(event.Write, "pool/b"), w.rec(event.Write, "pool/c"), w.rec(event.Write, "dists/Release")))
	err := a.Reconcile(t.Context(), pub)
	if s := w.status(a); err == nil || s.Applied != 1 || s.Path != "pool/b" || !strings.Contains(s.Error, "permission denied on the upstream") {
		t.Errorf("%v %+v", err, s)
	}
	if b, err := os.ReadFile(filepath.Join(w.dest, "dists/Release")); err != nil || string(b) != "1" {
		t.Errorf("the index says %q, %v", b, err)
	}
	w.must(os.Chmod(filepath.Join(w.up, "pool/b"), 0o644))
	w.send(a, w.announce(w.rec(event.Write, "pool/b")))
	w.must(a.SyncNow(t.Context(), pub))
	w.must(a.Reconcile(t.Context(), pub))
	w.same(a, 3)
}

// A second-tier mirror hears of changes before its upstream has them. Where they never cease there is always one that the upstream lacks; what it has is
// not held up by that.
func TestAnUpstreamThatIsAlwaysBehindHoldsNothingUpThatItHas(t *testing.T) {
	w := newWorld(t)
	a := w.adopted()
	for round := range event.Serial(3) {
		name := fmt.Sprintf("late-%d", round)
		w.write(testenv.File("early", name), testenv.File(name, "x"))
		early := w.announce(w.rec(event.Write, "early"))
		late := w.make(event.Announcement{}, w.rec(event.Write, name))
		w.must(os.Remove(filepath.Join(w.up, name)))
		w.send(a, early, late)
		err := a.SyncNow(t.Context(), pub)
		if err == nil {
			err = a.Reconcile(t.Context(), pub)
		}
		if s := w.status(a); err == nil || s.State != listener.Waiting || s.Applied != 2+2*round {
			t.Fatalf("round %d: applied %d, %s, %v", round, s.Applied, s.State, err)
		}
		w.write(testenv.File(name, "x"))
		w.must(os.Chtimes(filepath.Join(w.up, name), time.Now(), late.At))
		w.put(late)
	}
	w.must(a.SyncNow(t.Context(), pub))
	w.must(a.Reconcile(t.Context(), pub))
	w.same(a, 7)
}

// An index is announced, and again by an announcement whose path set has not come along: too large for the transport. The index on the upstream is that
// of the second, so the first cannot be applied without it; and it is fetched.
func TestWhatExplainsAnIndexIsFetched(t *testing.T) {
	w := newWorld(t)
	clock := time.Now()
	w.now = func() time.Time { return clock }
	a := w.adopted(indexed)
	w.write(testenv.File("dists/Release", "1"))
	two := w.announce(w.rec(event.Write, "dists/Release"))
	w.write(testenv.File("dists/Release", "second"))
	three := w.announce(w.rec(event.Write, "dists/Release"))
	w.send(a, two)
	w.deliver(a, envelope.Encode(three.line, nil))
	for attempt := 0; w.status(a).Applied < 3; attempt++ {
		if attempt == 10 {
			t.Fatalf("%+v", w.status(a))
		}
		a.Reconcile(t.Context(), pub) //nolint:errcheck // it has to wait, and says so
		clock = clock.Add(time.Minute)
	}
	w.same(a, 3)
}
