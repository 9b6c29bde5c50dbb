package listener_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/listener"
)

// TestKindsOfRecords applies each kind of record with the real rsync.
func TestKindsOfRecords(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"level/a", "level/b", "level/sub/c", "tree/a", "tree/deep/er/b", "old/x", "old/y/z", "type/f", "gone/a/b"} {
		w.write(testenv.File(name, name))
	}
	w.write(testenv.File("index.db", "1"), testenv.File("odd \n\xff-name", "x"), testenv.File("-dash", "x"))
	w.announce(w.rec(event.Write, "index.db"))
	a := w.adopted(func(o *listener.Options) { o.Modules[0].Last = []string{"*.db"} })
	in := func(p string) string { return filepath.Join(w.up, p) }
	for _, step := range []struct {
		name   string
		change func()
		make   func() []event.Record
	}{
		{"level", func() { w.must(os.Remove(in("level/a"))); w.write(testenv.File("level/new", "n")) },
			func() []event.Record { return []event.Record{w.rec(event.Level, "level")} }},
		{"tree", func() {
			w.must(os.RemoveAll(in("tree/deep")))
			w.write(testenv.File("tree/new/deep/f", "n"), testenv.File("tree/i.db", "n"))
		},
			func() []event.Record { return []event.Record{w.rec(event.Tree, "tree")} }},
		{"rename", func() { w.must(os.Rename(in("old"), in("new"))) }, func() []event.Record {
			r := w.rec(event.Renamed, "new")
			r.From = "old"
			return []event.Record{r}
		}},
		{"type change", func() { w.must(os.RemoveAll(in("type"))); w.write(testenv.Symlink("type", "new")) },
			func() []event.Record { return []event.Record{w.rec(event.Write, "type")} }},
		{"deletion and index", func() { w.must(os.RemoveAll(in("gone"))); w.write(testenv.File("index.db", "two")) },
			func() []event.Record {
				return []event.Record{{Op: event.Gone, Path: "gone"}, w.rec(event.Write, "index.db")}
			}},
		{"odd names", func() { w.write(testenv.File("odd \n\xff-name", "changed"), testenv.File("-dash", "changed")) },
			func() []event.Record {
				return []event.Record{w.rec(event.Write, "odd \n\xff-name"), w.rec(event.Write, "-dash")}
			}},
		{"mode of a directory", func() { w.must(os.Chmod(in("level"), 0o750)) },
			func() []event.Record { return []event.Record{w.rec(event.Meta, "level")} }},
	} {
		step.change()
		w.send(a, w.announce(step.make()...))
		if err := a.Reconcile(t.Context(), pub); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		w.same(a, w.serial)
		if t.Failed() {
			t.Fatalf("after %s", step.name)
		}
	}
}

// TestLevelAsksTheUpstreamFirst: the result of reading a directory proves nothing about the serial.
func TestLevelAsksTheUpstreamFirst(t *testing.T) {
	w := newWorld(t)
	w.write(testenv.File("d/a", "x"))
	w.announce(w.rec(event.Write, "d/a"))
	a := w.adopted()
	w.write(testenv.File("d/b", "x"))
	x := w.make(event.Announcement{}, w.rec(event.Level, "d")) // the upstream's head does not know it yet
	w.send(a, x)
	if err := a.Reconcile(t.Context(), pub); err == nil || w.status(a).State != listener.Waiting {
		t.Fatalf("%v %+v", err, w.status(a))
	}
	if _, err := os.Stat(filepath.Join(w.dest, "d/b")); !os.IsNotExist(err) {
		t.Error("fetched before the upstream was ready", err)
	}
	w.put(x)
	w.must(a.SyncNow(t.Context(), pub))
	w.must(a.Reconcile(t.Context(), pub))
	w.same(a, 2)
}
