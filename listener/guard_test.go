package listener_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/listener"
)

func TestMassDeletionIsHeldAndConfirmed(t *testing.T) {
	w := newWorld(t)
	for i := range 30 {
		w.write(testenv.File(fmt.Sprint("f", i), "x"))
	}
	w.announce(w.rec(event.Write, "f0"))
	a := w.adopted(func(o *listener.Options) { o.Modules[0].MaxDelete = 10 })
	var gone []event.Record
	for i := range 20 {
		w.must(os.Remove(filepath.Join(w.up, fmt.Sprint("f", i))))
		gone = append(gone, event.Record{Op: event.Gone, Path: fmt.Sprint("f", i)})
	}
	w.send(a, w.announce(gone...))
	err := a.Reconcile(t.Context(), pub)
	s := w.status(a)
	if err == nil || s.State != listener.Held || !s.Next.IsZero() || w.count(a, event.Blocked) != 1 {
		t.Fatalf("%v %+v", err, s)
	}
	if _, err := os.Stat(filepath.Join(w.dest, "f0")); err != nil {
		t.Error("deleted although held", err)
	}
	w.must(a.Confirm(t.Context(), pub))
	w.must(a.Reconcile(t.Context(), pub))
	w.same(a, 2)
	if err := a.Confirm(t.Context(), pub); err == nil {
		t.Error("confirmed twice")
	}
}

func TestRemovedDirectoryIsHeldForWhatIsBelowIt(t *testing.T) {
	w := newWorld(t)
	for i := range 20 {
		w.write(testenv.File(fmt.Sprint("old/f", i), "x"), testenv.File(fmt.Sprint("renamed/f", i), "x"))
	}
	w.announce(w.rec(event.Tree, "old"))
	a := w.adopted(func(o *listener.Options) { o.Modules[0].MaxDelete = 10 })
	w.must(os.Rename(filepath.Join(w.up, "renamed"), filepath.Join(w.up, "new")))
	renamed := w.rec(event.Renamed, "new")
	renamed.From = "renamed"
	w.send(a, w.announce(renamed))
	w.must(a.Reconcile(t.Context(), pub)) // what was renamed is no deletion
	w.same(a, 2)

	w.must(os.RemoveAll(filepath.Join(w.up, "old")))
	w.send(a, w.announce(event.Record{Op: event.Gone, Path: "old"}))
	err := a.Reconcile(t.Context(), pub)
	if s := w.status(a); err == nil || s.State != listener.Held || !strings.Contains(s.Error, "more than 10 names") {
		t.Fatalf("%v %+v", err, s)
	}
	left, err := os.ReadDir(filepath.Join(w.dest, "old"))
	if err != nil || len(left) != 20 {
		t.Errorf("%d names left although held, %v", len(left), err)
	}
	w.must(a.Confirm(t.Context(), pub))
	w.must(a.Reconcile(t.Context(), pub))
	w.same(a, 3)
}

// run subscribes to a topic until the test ends, and returns when the subscription stands.

// What is known of a module's size is of the last comparison with a manifest. A module that has grown since is not held for what is a small part of it
// now, whether its deletions are named or found by reading a directory; one that has not is.
func TestGrownModuleIsNotHeldForItsOldSize(t *testing.T) {
	w := newWorld(t)
	w.write(testenv.File("pool/first", "x"))
	w.publishManifest()
	a := w.adopted()
	add := func(prefix string) (all []event.Record) {
		for i := range 100 {
			name := fmt.Sprintf("pool/%s%d", prefix, i)
			w.write(testenv.File(name, "x"))
			all = append(all, w.rec(event.Write, name))
		}
		return all
	}
	remove := func(prefix string, from, to int) (all []event.Record) {
		for i := from; i < to; i++ {
			name := fmt.Sprintf("pool/%s%d", prefix, i)
			w.must(os.Remove(filepath.Join(w.up, name)))
			all = append(all, event.Record{Op: event.Gone, Path: name})
		}
		return all
	}
	w.send(a, w.announce(add("a")...))
	w.must(a.Reconcile(t.Context(), pub))
	for _, n := range []announcement{w.announce(remove("a", 0, 15)...), w.announce(add("b")...)} {
		w.send(a, n)
		w.must(a.Reconcile(t.Context(), pub))
	}
	remove("b", 0, 25)
	w.send(a, w.announce(w.rec(event.Level, "pool")))
	w.must(a.Reconcile(t.Context(), pub))
	w.same(a, w.serial)
	w.send(a, w.announce(remove("b", 25, 80)...))
	if err := a.Reconcile(t.Context(), pub); err == nil || w.status(a).State != listener.Held {
		t.Errorf("%v: %+v", err, w.status(a))
	}
}

// Names that came and went while a mirror was away are none that it would delete.
func TestNamesThatWereNeverHereDoNotCountAsDeletions(t *testing.T) {
	w := newWorld(t)
	w.write(testenv.File("pool/first", "x"))
	w.publishManifest()
	a := w.adopted()
	var gone []event.Record
	for i := range 50 {
		gone = append(gone, event.Record{Op: event.Gone, Path: fmt.Sprint("pool/", i)})
	}
	w.send(a, w.announce(gone...))
	w.must(a.Reconcile(t.Context(), pub))
	w.same(a, w.serial)
}
