package listener_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/envelope"
	"github.com/mirrorbus/mirrorbus/internal/export"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/listener"
	"github.com/mirrorbus/mirrorbus/listener/catchup"
)

// reaching exports a manifest that knows what was touched after a serial: the named paths. It returns its shard's file.
func (w *world) reaching(floor event.Serial, touched map[string]bool) (shardFile string) {
	w.t.Helper()
	records := walk(w.t, w.up)
	for i := range records {
		records[i].Serial = min(1, w.serial)
		if touched[records[i].Path] {
			records[i].Serial = w.serial
		}
	}
	shard, b := export.EncodeShard(records)
	ix := export.Index{Module: pub, Epoch: w.epoch, Serial: w.serial, Floor: floor, Entries: int64(len(records)), Shards: []export.Shard{shard}}
	digest, err := w.out.PutManifest(ix, w.manifest, func(export.Shard) ([]byte, error) { return b, nil })
	w.must(err)
	w.manifest = digest
	w.must(w.out.PutHead(w.head()))
	return filepath.Join(w.up, event.ExportDir, export.ShardFile(shard.Digest))
}

// missing announces many changes of a few files, and returns which.
func (w *world) missing(n int) map[string]bool {
	w.t.Helper()
	touched := map[string]bool{}
	for i := range n {
		name := fmt.Sprint("f", i%10)
		touched[name] = true
		w.write(testenv.File(name, fmt.Sprint("content ", i)))
		a := w.make(event.Announcement{}, w.rec(event.Write, name))
		line, set, err := envelope.Decode(a.body)
		w.must(err)
		w.must(w.out.PutEntry(a.Epoch, a.Serial, line, set))
		said, err := event.Read(line)
		w.must(err)
		w.serial, w.last = a.Serial, said.Digest
	}
	w.must(w.out.PutHead(w.head()))
	return touched
}

// A namer counts the files of the journal and of the manifest that are asked for by name.
type namer struct {
	catchup.Fetcher
	entries, calls int
}

func (n *namer) Fetch(ctx context.Context, names []string, into string, max int64) ([]string, error) {
	n.calls++
	for _, name := range names {
		if strings.Contains(name, "/"+export.JournalDir+"/") {
			n.entries++
		}
	}
	return n.Fetcher.Fetch(ctx, names, into, max)
}

func named(n *namer) func(*listener.Options) {
	return func(o *listener.Options) {
		src := o.Modules[0].CatchUp.(*catchup.Source)
		n.Fetcher, src.Fetcher = src.Fetcher, n
	}
}

// A mirror that has missed hundreds of announcements reads a few of them and the manifest's index, finds that the manifest is the shorter way, and is
// there without having read the others. One whose manifest is no help reads them all.
func TestAMirrorThatWasAwayTakesTheCheapestWay(t *testing.T) {
	const missed = 400
	for name, c := range map[string]struct {
		manifest bool
		says     string
	}{"by manifest": {true, "by manifest: "}, "by journal": {false, "by journal: "}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			var n namer
			a := w.adopted(named(&n))
			touched := w.missing(missed)
			if c.manifest {
				w.reaching(1, touched)
			}
			n.entries, n.calls = 0, 0
			w.must(a.SyncNow(t.Context(), pub))
			w.must(a.Reconcile(t.Context(), pub))
			w.same(a, w.serial)
			if s := w.status(a); !strings.HasPrefix(s.CatchUp, c.says) || s.State != listener.Current {
				t.Errorf("%q: %+v", s.CatchUp, s)
			}
			if c.manifest == (n.entries >= missed) {
				t.Errorf("%d of %d entries were asked for, in %d connections", n.entries, missed, n.calls)
			}
			t.Logf("%d entries, %d connections, %s", n.entries, n.calls, w.status(a).CatchUp)
		})
	}
}

// A manifest that was chosen for its price and turns out to be damaged costs nothing but the way back to the journal.
func TestADamagedManifestThatWasOnlyCheaper(t *testing.T) {
	for _, name := range []string{"one byte", "cut short"} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			a := w.adopted(func(o *listener.Options) { o.Modules[0].NoExport = true })
			w.damage(w.reaching(1, w.missing(330)), damages[name])
			w.must(a.SyncNow(t.Context(), pub))
			w.must(a.Reconcile(t.Context(), pub))
			w.same(a, w.serial)
			if n := w.count(a, event.Failed); n != 0 {
				t.Errorf("%d failures are reported: %+v", n, w.reports(a))
			}
		})
	}
}

// damages are what may happen to a file on the upstream's disk.
var damages = map[string]func([]byte) []byte{
	"one byte":  func(b []byte) []byte { b = bytes.Clone(b); b[len(b)/2] ^= 1; return b },
	"cut short": func(b []byte) []byte { return b[:len(b)/2] },
	"a page":    func([]byte) []byte { return []byte("<!DOCTYPE html>\n<title>404 Not Found</title>\n") },
	"empty":     func([]byte) []byte { return nil },
}

func (w *world) damage(file string, how func([]byte) []byte) {
	w.t.Helper()
	b, err := os.ReadFile(file)
	w.must(err)
	w.must(os.WriteFile(file, how(b), 0o644))
}

// A manifest that a mirror needs, and that cannot be read, is one clear error. It is asked for again, and at last everything is fetched.
func TestADamagedManifestThatIsNeeded(t *testing.T) {
	for name, damage := range damages {
		for _, part := range []string{"shard", "index"} {
			t.Run(part+" "+name, func(t *testing.T) {
				w := newWorld(t)
				clock := time.Now()
				w.now = func() time.Time { return clock }
				a := w.adopted(func(o *listener.Options) { o.Modules[0].NoExport = true })
				unchanged := w.snapshot(w.dest)
				touched := w.missing(3)
				file := w.reaching(w.serial, touched)
				w.must(os.RemoveAll(filepath.Join(w.up, event.ExportDir, export.JournalDir)))
				if part == "index" {
					file = filepath.Join(w.up, event.ExportDir, export.IndexFile(w.manifest))
				}
				w.damage(file, damage)
				w.must(a.SyncNow(t.Context(), pub))
				err := a.Reconcile(t.Context(), pub)
				if s := w.status(a); err == nil || s.State != listener.Retrying || s.Applied != 1 || !strings.Contains(s.Error, part) || w.count(a, event.Failed) != 1 {
					t.Errorf("%v %+v", err, s)
				}
				unchanged()
				for range 5 {
					clock = clock.Add(time.Hour)
					w.must(w.out.PutHead(w.head()))
					w.must(errOrNil(a.Reconcile(t.Context(), pub)))
				}
				w.same(a, w.serial)
				if s := w.status(a); !strings.HasPrefix(s.CatchUp, "by an rsync of everything") {
					t.Errorf("%+v", s)
				}
			})
		}
	}
}

// An entry of the journal that cannot be read is one clear error. What comes before it is applied, and the next manifest leads on.
func TestADamagedJournalEntry(t *testing.T) {
	damages := map[string]func(*world, announcement) []byte{
		"from the future": func(w *world, x announcement) []byte { return w.entry(x.Serial + 1) },
		"another epoch": func(w *world, x announcement) []byte {
			x.Epoch = "ffffffff"
			line, err := event.Seal(x.Announcement, signer(w.t, 1))
			w.must(err)
			return envelope.Encode(line, nil)
		},
		"another's word": func(w *world, x announcement) []byte {
			line, err := event.Seal(x.Announcement, signer(w.t, 7))
			w.must(err)
			return envelope.Encode(line, nil)
		},
	}
	for name, how := range damagesOfEntries() {
		damages[name] = how
	}
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			clock := time.Now()
			w.now = func() time.Time { return clock }
			a := w.adopted()
			var all []announcement
			for i := range 4 {
				file := fmt.Sprint("f", i)
				w.write(testenv.File(file, file))
				all = append(all, w.announce(w.rec(event.Write, file)))
			}
			bad := all[2]
			w.must(os.WriteFile(w.entryFile(bad.Serial), damage(w, bad), 0o644))
			w.must(a.SyncNow(t.Context(), pub))
			err := a.Reconcile(t.Context(), pub)
			if s := w.status(a); err == nil || s.State != listener.Retrying || !strings.Contains(s.Error, "the upstream's journal") || w.count(a, event.Failed) == 0 {
				t.Errorf("%v %+v", err, s)
			}
			for range 3 {
				clock = clock.Add(10 * time.Minute)
				w.must(w.out.PutHead(w.head()))
				w.must(errOrNil(a.Reconcile(t.Context(), pub)))
			}
			if s := w.status(a); s.Applied != bad.Serial-1 {
				t.Errorf("what comes before it: %+v", s)
			}
			w.publishManifest()
			clock = clock.Add(time.Hour)
			w.must(w.out.PutHead(w.head()))
			w.must(a.SyncNow(t.Context(), pub))
			w.must(errOrNil(a.Reconcile(t.Context(), pub)))
			w.must(a.SyncNow(t.Context(), pub))
			w.must(a.Reconcile(t.Context(), pub))
			w.same(a, w.serial)
		})
	}
}

func damagesOfEntries() map[string]func(*world, announcement) []byte {
	all := map[string]func(*world, announcement) []byte{}
	for name, how := range damages {
		all[name] = func(w *world, x announcement) []byte { return how(w.entry(x.Serial)) }
	}
	return all
}

func (w *world) entryFile(s event.Serial) string {
	return filepath.Join(w.up, event.ExportDir, export.EntryFile(w.epoch, s))
}

func (w *world) entry(s event.Serial) []byte {
	w.t.Helper()
	b, err := os.ReadFile(w.entryFile(s))
	w.must(err)
	return b
}

// A manifest of another epoch, or from the future, is not what the head that names it says.
func TestAManifestThatIsNotTheHeads(t *testing.T) {
	for name, change := range map[string]func(*export.Index){
		"another epoch":   func(ix *export.Index) { ix.Epoch = "ffffffff" },
		"another module":  func(ix *export.Index) { ix.Module = "other" },
		"from the future": func(ix *export.Index) { ix.Serial += 10 },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.write(testenv.File("f", "x"))
			w.announce(w.rec(event.Write, "f"))
			records := walk(t, w.up)
			shard, b := export.EncodeShard(records)
			ix := export.Index{Module: pub, Epoch: w.epoch, Serial: w.serial, Floor: w.serial, Entries: int64(len(records)), Shards: []export.Shard{shard}}
			change(&ix)
			var err error
			w.manifest, err = w.out.PutManifest(ix, event.Digest{}, func(export.Shard) ([]byte, error) { return slices.Clone(b), nil })
			w.must(err)
			w.must(w.out.PutHead(w.head()))
			w.must(os.WriteFile(filepath.Join(w.dest, "mine"), nil, 0o644))
			a := w.agent()
			err = a.Reconcile(t.Context(), pub)
			if s := w.status(a); err == nil || !strings.Contains(s.Error, "the head that names it") || s.Epoch != "" {
				t.Errorf("%v %+v", err, s)
			}
			if _, err := os.Stat(filepath.Join(w.dest, "mine")); errors.Is(err, os.ErrNotExist) {
				t.Error("the tree was compared with it")
			}
			w.publishManifest()
			w.must(a.SyncNow(t.Context(), pub))
			w.must(a.Reconcile(t.Context(), pub))
			w.same(a, w.serial)
		})
	}
}
