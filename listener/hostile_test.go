package listener_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/envelope"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/listener"
)

// unchecked announces a path set as it stands, as who has the key could.
func (w *world) unchecked(records ...event.Record) announcement {
	w.t.Helper()
	set := event.PathSet(records)
	a := event.Announcement{Kind: event.Change, Module: pub, Epoch: w.epoch, Serial: w.serial + 1, Prev: w.last, Set: set.Digest(), Count: len(set),
		At: w.now().UTC().Truncate(time.Second)}
	line, err := event.Seal(a, signer(w.t, 1))
	w.must(err)
	return w.put(announcement{a, line, envelope.Encode(line, envelope.Compress(set.Encode()))})
}

// snapshot copies a folder; the function it returns fails the test if the folder has changed since, other than in the times of directories.
func (w *world) snapshot(dir string) (unchanged func()) {
	w.t.Helper()
	into := filepath.Join(w.t.TempDir(), "was")
	if out, err := exec.Command("cp", "-a", dir, into).CombinedOutput(); err != nil {
		w.t.Fatalf("%v %s", err, out)
	}
	return func() {
		w.t.Helper()
		d := testenv.Diff(w.t, into, dir, event.ExportDir)
		of := world{t: w.t, dest: dir}
		if d = slices.DeleteFunc(d, of.dirTime); len(d) > 0 {
			w.t.Errorf("changed: %q", d)
		}
	}
}

// Who has the key can sign any path. One that leads elsewhere makes the whole announcement worthless: nothing of it is done, and status says so.
func TestSignedPathsThatLeadElsewhereAreRefused(t *testing.T) {
	ops := []event.Op{event.Write, event.Gone, event.Tree, event.Meta}
	for i, path := range []string{"../victim", "a/../../victim", "/etc/victim", "..", ".", "./x", "a//b", "a/./b", "a/", "", ".mirrorbus/head", ".mirrorbus",
		strings.Repeat("x", 5000)} {
		w := newWorld(t)
		w.write(testenv.File("good", "1"))
		w.announce(w.rec(event.Write, "good"))
		a := w.adopted()
		testenv.WriteTree(t, filepath.Dir(w.dest), testenv.File("victim", "x"))
		unchanged := w.snapshot(filepath.Dir(w.dest))
		w.write(testenv.File("good", "changed"))
		r := event.Record{Op: ops[i%len(ops)], Path: path}
		if r.Op == event.Write || r.Op == event.Meta {
			r.Mode = event.ModeFile | 0o644
		}
		records := []event.Record{r, w.rec(event.Write, "good")}
		slices.SortFunc(records, func(a, b event.Record) int { return strings.Compare(a.Path, b.Path) })
		w.send(a, w.unchecked(records...))
		err := a.Reconcile(t.Context(), pub)
		if s := w.status(a); err == nil || s.Applied != 1 || s.State == listener.Current || s.Error == "" {
			t.Errorf("%c %.20q: %v %+v", r.Op, path, err, s)
		}
		unchanged()
		w.must(a.Close())
	}
}

// A path is clean, and leads through a link that only this mirror has: out of the tree, or to another place in it.
func TestPathsThroughLinksOfTheMirrorLeadNowhere(t *testing.T) {
	w := newWorld(t)
	w.write(testenv.File("README", "x"))
	a := w.adopted()
	outside := t.TempDir()
	testenv.WriteTree(t, outside, testenv.File("f", "victim"))
	testenv.WriteTree(t, w.dest, testenv.File("real/f", "victim"), testenv.Symlink("in", "real"), testenv.Symlink("out", outside))
	inside, away := w.snapshot(filepath.Join(w.dest, "real")), w.snapshot(outside)
	w.write(testenv.File("in/f", "evil"), testenv.File("out/f", "evil"), testenv.File("good", "x"))
	w.send(a, w.announce(w.rec(event.Write, "in/f"), w.rec(event.Write, "out/f"), w.rec(event.Write, "good")))
	for range 2 {
		err := a.Reconcile(t.Context(), pub)
		if s := w.status(a); err == nil || s.Applied != 1 || s.State != listener.Retrying || !strings.Contains(s.Error, "symbolic link") {
			t.Errorf("%v %+v", err, s)
		}
		inside()
		away()
		w.send(a, w.announce(event.Record{Op: event.Gone, Path: "in/f"}, event.Record{Op: event.Gone, Path: "out/f"}))
		w.must(a.SyncNow(t.Context(), pub))
	}
	for _, link := range []string{"in", "out"} {
		if info, err := os.Lstat(filepath.Join(w.dest, link)); err != nil || info.Mode().Type() != os.ModeSymlink {
			t.Errorf("%s: %v %v", link, info, err)
		}
	}
}

// Between mirror and upstream somebody serves an older tree, with the newest head and journal beside it.
func TestAnUpstreamThatServesOldContentIsNotBelieved(t *testing.T) {
	w := newWorld(t)
	past := time.Now().Add(-time.Hour)
	w.write(testenv.File("pool/a", "one").At(past), testenv.File("dists/Release", "1").At(past), testenv.File("pool/gone", "x"))
	w.announce(w.rec(event.Write, "pool/a"))
	a := w.adopted(func(o *listener.Options) { o.Modules[0].Last = []string{"dists/"} })
	unchanged := w.snapshot(w.dest)
	old := filepath.Join(t.TempDir(), "old")
	if out, err := exec.Command("cp", "-a", w.up, old).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	w.write(testenv.File("pool/a", "two"), testenv.File("dists/Release", "2"))
	w.must(os.Remove(filepath.Join(w.up, "pool/gone")))
	x := w.announce(w.rec(event.Write, "pool/a"), w.rec(event.Write, "dists/Release"), event.Record{Op: event.Gone, Path: "pool/gone"})
	w.must(os.RemoveAll(filepath.Join(old, event.ExportDir)))
	if out, err := exec.Command("cp", "-a", filepath.Join(w.up, event.ExportDir), old).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	w.must(os.Rename(w.up, w.up+".true"))
	w.must(os.Rename(old, w.up))
	w.send(a, x)
	err := a.Reconcile(t.Context(), pub)
	if s := w.status(a); err == nil || s.Applied != 1 || s.Path != "dists/Release" || w.count(a, event.Failed) != 1 {
		t.Errorf("%v %+v", err, s)
	}
	unchanged()
	w.must(os.Rename(w.up, old))
	w.must(os.Rename(w.up+".true", w.up))
	w.must(a.SyncNow(t.Context(), pub))
	w.must(a.Reconcile(t.Context(), pub))
	w.same(a, 2)
}

// An upstream whose export and tree were set back serves what was true once, signed as it was then.
func TestAnUpstreamThatWasSetBackSetsNothingBack(t *testing.T) {
	w := newWorld(t)
	clock := time.Now()
	w.now = func() time.Time { return clock }
	w.write(testenv.File("f", "one"))
	two := w.announce(w.rec(event.Write, "f"))
	w.publishManifest()
	oldHead := w.head()
	old := filepath.Join(t.TempDir(), "old")
	if out, err := exec.Command("cp", "-a", w.up, old).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	clock = clock.Add(time.Minute)
	w.write(testenv.File("f", "three"))
	w.announce(w.rec(event.Write, "f"))
	a := w.adopted()
	unchanged := w.snapshot(w.dest)
	w.must(os.RemoveAll(w.up))
	w.must(os.Rename(old, w.up))
	w.deliver(a, oldHead)
	w.send(a, two)
	for range 4 {
		clock = clock.Add(11 * time.Minute)
		a.Receiver("mem").Connected()
		if err := a.Reconcile(t.Context(), pub); err != nil {
			t.Log(err)
		}
	}
	s := w.status(a)
	if s.Applied != 2 || s.Head != 2 || s.State != listener.Stale {
		t.Errorf("%+v", s)
	}
	unchanged()
}

// Whatever is said to a mirror, and by whom, it asks its upstream no more than its budgets allow.
func TestNoMessageMakesAMirrorHammerItsUpstream(t *testing.T) {
	w := newWorld(t)
	clock := time.Now()
	w.now = func() time.Time { return clock }
	w.must(w.adopted().Close())
	proxy := testenv.StartProxy(t, w.daemon.Port)
	a := w.agentOf(w.runnerOf(proxy.URL("pub")))
	good := w.make(event.Announcement{}, w.rec(event.Write, "README"))
	seal := func(m event.Texter) []byte {
		line, err := event.Seal(m, signer(t, 1))
		w.must(err)
		return line
	}
	hammer := func() {
		for i := range 60 {
			far, strange := good.Announcement, good.Announcement
			far.Serial, strange.Epoch = 1_000_000+event.Serial(i), event.Epoch(fmt.Sprintf("%08x", i))
			head := event.Head{Module: pub, Epoch: w.epoch, Serial: w.serial + event.Serial(i), At: clock.UTC().Truncate(time.Second), TTL: time.Minute, Last: event.Sum([]byte{byte(i)})}
			other := head
			other.Epoch, other.At = strange.Epoch, head.At.Add(time.Duration(i)*time.Second)
			for _, body := range [][]byte{seal(far), seal(strange), seal(other), seal(head)} {
				w.deliver(a, body)
				a.Receiver("mem").Connected()
				if err := a.Reconcile(t.Context(), pub); errors.Is(err, t.Context().Err()) && err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	hammer()
	first := proxy.Accepted()
	if first == 0 || first > 10 {
		t.Errorf("%d connections to the upstream, want some and no more than the 10 that may be made at once", first)
	}
	clock = clock.Add(time.Minute)
	hammer()
	if n := proxy.Accepted() - first; n > 7 {
		t.Errorf("%d more within the next minute, want 6", n)
	}
	if s := w.status(a); s.Applied != 1 {
		t.Errorf("%+v", s)
	}
	w.same(a, 1)
}
