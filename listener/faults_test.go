package listener_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/listener"
	"github.com/mirrorbus/mirrorbus/listener/inbox"
)

func TestEquivocationQuarantinesUntilReleased(t *testing.T) {
	w := newWorld(t)
	a := w.adopted()
	w.write(testenv.File("a", "1"), testenv.File("b", "1"))
	evil := w.make(event.Announcement{}, w.rec(event.Write, "b"))
	w.send(a, w.announce(w.rec(event.Write, "a")), evil)
	if err := a.Reconcile(t.Context(), pub); err == nil || !strings.Contains(err.Error(), "quarantined") {
		t.Errorf("%v", err)
	}
	if s := w.status(a); s.State != listener.Quarantined || s.Applied != 1 || s.Error == "" {
		t.Errorf("%+v", s)
	}
	if _, err := os.Stat(filepath.Join(w.dest, "a")); !os.IsNotExist(err) {
		t.Error("something ran", err)
	}
	w.publishManifest()
	w.must(a.Release(t.Context(), pub))
	w.must(a.Reconcile(t.Context(), pub))
	w.same(a, 2)
	if err := a.Release(t.Context(), pub); err == nil {
		t.Error("released twice")
	}
}

func TestRefusedMessagesHaveNoEffect(t *testing.T) {
	w := newWorld(t)
	a := w.adopted()
	w.write(testenv.File("a", "1"))
	good := w.make(event.Announcement{}, w.rec(event.Write, "a"))
	seal := func(m event.Texter, seed int) []byte {
		line, err := event.Seal(m, signer(t, seed))
		w.must(err)
		return line
	}
	other := good.Announcement
	other.Module = "other"
	for name, body := range map[string][]byte{
		"garbage":       []byte("hello"),
		"empty line":    []byte("\n"),
		"unsigned":      good.Text(),
		"another's key": seal(good.Announcement, 3),
		"other module":  seal(other, 1),
		"changed":       bytes.Replace(good.body, []byte("n=1 "), []byte("n=2 "), 1),
		"a report":      seal(event.Report{Module: pub, Mirror: "master", Epoch: w.epoch, Outcome: event.Have}, 1),
		"namespace":     bytes.Replace(w.head(), []byte(" head "), []byte(" change "), 1),
	} {
		before := total(w, a)
		w.deliver(a, body)
		if total(w, a) != before+1 {
			t.Errorf("%s: not counted", name)
		}
	}
	far := good.Announcement
	far.Serial += 1_000_000
	w.deliver(a, seal(far, 1))
	w.must(a.Reconcile(t.Context(), pub))
	if s := w.status(a); s.Applied != 1 || s.Heard != 1 || s.State != listener.Current {
		t.Errorf("%+v", s)
	}
}

func total(w *world, a *listener.Agent) (n uint64) {
	s, err := a.Status(w.t.Context())
	w.must(err)
	for _, c := range s.Refused {
		n += c
	}
	return n
}

func TestPathSetThatDoesNotBelongIsFetchedAnew(t *testing.T) {
	w := newWorld(t)
	a := w.adopted()
	w.write(testenv.File("a", "1"))
	x := w.announce(w.rec(event.Write, "a"))
	w.deliver(a, append(append(bytes.Clone(x.line), '\n'), "no path set at all"...))
	w.must(a.Reconcile(t.Context(), pub))
	w.same(a, 2)
}

func TestUpstreamBehindThenThere(t *testing.T) {
	w := newWorld(t)
	clock := time.Now()
	w.now = func() time.Time { return clock }
	a := w.adopted()
	at := time.Unix(1_900_000_000, 0)
	w.write(testenv.File("a", "new").At(at))
	x := w.make(event.Announcement{}, w.rec(event.Write, "a"))
	w.write(testenv.File("a", "old").At(at.Add(-time.Hour))) // a tier that has not got it yet
	w.send(a, x)
	err := a.Reconcile(t.Context(), pub)
	s := w.status(a)
	if err == nil || s.State != listener.Waiting || !strings.Contains(s.Error, "upstream is behind (at 1") || s.Path != "a" || s.Next.IsZero() {
		t.Fatalf("%v %+v", err, s)
	}
	if n := w.count(a, event.Failed); n != 1 {
		t.Errorf("%d failed reports, want 1", n)
	}
	w.write(testenv.File("a", "new").At(at))
	w.put(x)
	clock = clock.Add(time.Minute)
	w.must(a.Reconcile(t.Context(), pub))
	w.same(a, 2)
}

func TestVanishedPathIsExplainedByALaterSerial(t *testing.T) {
	w := newWorld(t)
	a := w.adopted()
	w.write(testenv.File("a", "x"), testenv.File("b", "x"))
	w.send(a, w.announce(w.rec(event.Write, "a"), w.rec(event.Write, "b")))
	w.must(os.Remove(filepath.Join(w.up, "a")))
	w.announce(w.rec(event.Gone, "a")) // not heard
	w.must(a.Reconcile(t.Context(), pub))
	w.same(a, 3)
}

func TestGapIsFilledFromTheJournal(t *testing.T) {
	w := newWorld(t)
	a := w.adopted()
	for i := range 70 { // more than one bucket
		name := fmt.Sprint("f", i)
		w.write(testenv.File(name, name))
		w.announce(w.rec(event.Write, name))
	}
	w.deliver(a, w.head())
	w.must(a.Reconcile(t.Context(), pub))
	w.same(a, 71)
}

func TestForgottenJournalAndNewEpochNeedTheManifest(t *testing.T) {
	w := newWorld(t)
	a := w.adopted()
	w.write(testenv.File("a", "x"))
	w.announce(w.rec(event.Write, "a"))
	w.write(testenv.File("b", "x"))
	w.announce(w.rec(event.Write, "b"))
	w.must(os.RemoveAll(filepath.Join(w.up, event.ExportDir, "journal")))
	w.publishManifest()
	w.deliver(a, w.head())
	w.must(a.Reconcile(t.Context(), pub))
	w.same(a, 3)

	w.epoch, w.serial, w.last = "00000001", 0, event.Digest{}
	w.write(testenv.File("c", "x"))
	x := w.announce(w.rec(event.Write, "c"))
	w.publishManifest()
	w.send(a, x)
	w.must(a.SyncNow(t.Context(), pub))
	w.must(a.Reconcile(t.Context(), pub))
	w.same(a, 1)
	if s := w.status(a); s.Epoch != "00000001" {
		t.Errorf("%+v", s)
	}
}

func TestUpstreamWithoutManifestIsFetchedWhole(t *testing.T) {
	w := newWorld(t)
	w.write(testenv.File("d/a", "x"), testenv.File("b", "y"))
	w.announce(w.rec(event.Write, "b"))
	a := w.agent()
	w.must(a.Reconcile(t.Context(), pub))
	w.same(a, 1)
}

func TestStateFolderOfAnotherAgent(t *testing.T) {
	w := newWorld(t)
	w.agent()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond) // it would wait longer for the other to end
	defer cancel()
	if _, err := listener.Open(ctx, w.options(w.runner())); !errors.Is(err, inbox.ErrInUse) {
		t.Errorf("%v", err)
	}
}

func TestDiskFullBlocksAndResumesByItself(t *testing.T) {
	testenv.NeedRoot(t)
	w := newWorld(t)
	if err := unix.Mount("tmpfs", filepath.Dir(w.dest), "tmpfs", 0, "size=4m"); err != nil {
		testenv.Missing(t, "cannot mount a tmpfs: "+err.Error())
	}
	t.Cleanup(func() { w.must(unix.Unmount(filepath.Dir(w.dest), 0)) })
	w.must(os.Mkdir(w.dest, 0o755))
	clock := time.Now()
	w.now = func() time.Time { return clock }
	a := w.adopted()
	w.write(testenv.File("big", strings.Repeat("x", 6<<20)))
	w.send(a, w.announce(w.rec(event.Write, "big")))
	err := a.Reconcile(t.Context(), pub)
	if s := w.status(a); err == nil || s.State != listener.Blocked || s.Applied != 1 || s.Next.IsZero() || w.count(a, event.Blocked) != 1 {
		t.Fatalf("%v %+v", err, s)
	}
	clock = clock.Add(31 * time.Second)
	if err := a.Reconcile(t.Context(), pub); err == nil || !strings.Contains(err.Error(), "6.0 MiB needed") {
		t.Fatalf("%v", err)
	}
	w.must(unix.Mount("tmpfs", filepath.Dir(w.dest), "tmpfs", unix.MS_REMOUNT, "size=32m"))
	clock = clock.Add(31 * time.Second)
	w.must(a.Reconcile(t.Context(), pub))
	w.same(a, 2)
}

func TestBusyUnreachableAndBack(t *testing.T) {
	w := newWorld(t)
	clock := time.Now()
	w.now = func() time.Time { return clock }
	a := w.adopted()
	w.daemon.Stop()
	w.write(testenv.File("a", "x"))
	w.send(a, w.announce(w.rec(event.Write, "a")))
	for range 5 {
		if err := a.Reconcile(t.Context(), pub); err == nil {
			t.Fatal("applied without an upstream")
		}
		clock = clock.Add(time.Hour)
	}
	if s := w.status(a); s.State != listener.Retrying || s.Attempts != 5 || w.count(a, event.Failed) != 1 {
		t.Errorf("%+v, %d failed reports", s, w.count(a, event.Failed))
	}
	w.daemon.Start()
	w.must(a.Reconcile(t.Context(), pub))
	w.same(a, 2)
}

func TestClockTwoHoursOff(t *testing.T) {
	for _, off := range []time.Duration{2 * time.Hour, -2 * time.Hour} {
		w := newWorld(t)
		a := w.adopted(func(o *listener.Options) { o.Now = func() time.Time { return time.Now().Add(off) } })
		w.write(testenv.File("a", "x"))
		w.send(a, w.announce(w.rec(event.Write, "a")))
		w.must(a.Reconcile(t.Context(), pub))
		w.same(a, 2)
		w.deliver(a, w.head())
		s := w.status(a)
		if d := s.Skew - off.Seconds(); d > 60 || d < -60 || !strings.Contains(s.Error, "clock") {
			t.Errorf("%v off: %+v", off, s)
		}
	}
}

// A mirror that has nothing yet of a master that has announced nothing yet does not claim serial 0 of it, whatever goes wrong.
func TestAMirrorWithoutACopyClaimsNothing(t *testing.T) {
	w := newWorld(t)
	w.write(testenv.File("README", "hello"))
	a := w.agent(func(o *listener.Options) { o.Patience = time.Hour })
	w.deliver(a, w.head())
	if err := a.Reconcile(t.Context(), pub); err == nil {
		t.Fatal("an upstream that exports nothing is no trouble")
	}
	all := w.reports(a)
	if len(all) == 0 {
		t.Fatal("it reports nothing")
	}
	for _, r := range all {
		if r.Outcome == event.Failed && r.Epoch != inbox.NoEpoch {
			t.Errorf("it says %+v", r)
		}
	}
	if w.count(a, event.Failed) != 1 {
		t.Errorf("reports are %+v, want one of a failure", all)
	}
}
