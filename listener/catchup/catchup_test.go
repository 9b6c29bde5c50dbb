package catchup_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/envelope"
	"github.com/mirrorbus/mirrorbus/internal/export"
	"github.com/mirrorbus/mirrorbus/internal/filter"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/listener"
	"github.com/mirrorbus/mirrorbus/listener/catchup"
	"github.com/mirrorbus/mirrorbus/listener/rsync"
)

var (
	_ listener.CatchUp  = (*catchup.Source)(nil)
	_ listener.Measurer = (*catchup.Source)(nil)
)

const (
	module = event.Module("m")
	epoch  = event.Epoch("0123abcd")
)

var start = time.Date(2026, 11, 20, 19, 0, 0, 0, time.UTC)

// A world is a master with an export folder behind a real rsync daemon, and a mirror's Source.
type world struct {
	t      *testing.T
	master string
	writer *export.Writer
	key    ssh.Signer
	daemon *testenv.Rsyncd
	runner *rsync.Runner
	src    *catchup.Source
	asked  []string // all names that were fetched
	calls  int
}

// Fetch counts and passes on.
type counting struct {
	w    *world
	next catchup.Fetcher
}

func (c counting) Fetch(ctx context.Context, names []string, into string, max int64) ([]string, error) {
	c.w.calls++
	c.w.asked = append(c.w.asked, names...)
	return c.next.Fetch(ctx, names, into, max)
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, master: filepath.Join(t.TempDir(), "master")}
	mirror := filepath.Join(t.TempDir(), "mirror")
	for _, dir := range []string{w.master, mirror} {
		check(t, os.Mkdir(dir, 0o755))
	}
	w.daemon = testenv.StartRsyncd(t, testenv.RsyncdOptions{}, testenv.Module{Name: "m", Path: w.master})
	features, err := rsync.Probe(t.Context(), "")
	check(t, err)
	w.runner, err = rsync.New(rsync.Config{
		Upstream: rsync.Upstream{URL: w.daemon.URL("m")}, Dest: mirror, LockFile: filepath.Join(t.TempDir(), "lock"), Features: features,
	})
	check(t, err)
	w.src = &catchup.Source{Module: module, State: filepath.Join(t.TempDir(), "state"), Tree: mirror}
	w.src.Fetcher = counting{w, catchup.Rsync{Runner: w.runner}}
	w.key, err = ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
	check(t, err)
	return w
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// export opens the export folder; until then there is none.
func (w *world) export() *export.Writer {
	if w.writer == nil {
		var err error
		w.writer, err = export.OpenWriter(filepath.Join(w.master, event.ExportDir))
		check(w.t, err)
		w.t.Cleanup(func() { check(w.t, w.writer.Close()) })
	}
	return w.writer
}

// announce writes journal entries from one serial to another.
func (w *world) announce(from, to event.Serial) {
	set := event.PathSet{{Op: event.Write, Mode: event.ModeFile | 0o644, Path: "a"}}
	prev := event.Digest{}
	for s := event.Serial(1); s <= to; s++ {
		line, err := event.Seal(event.Announcement{Kind: event.Change, Module: module, Epoch: epoch, Serial: s, At: start, Prev: prev,
			Set: set.Digest(), Count: 1}, w.key)
		check(w.t, err)
		said, err := event.Read(line)
		check(w.t, err)
		if prev = said.Digest; s >= from {
			check(w.t, w.export().PutEntry(epoch, s, line, envelope.Compress(set.Encode())))
		}
	}
}

// head writes a head and returns it.
func (w *world) head(serial event.Serial, manifest event.Digest) event.Head {
	h := event.Head{Module: module, Epoch: epoch, Serial: serial, At: start, TTL: time.Hour, Last: event.Sum(nil), Manifest: manifest}
	line, err := event.Seal(h, w.key)
	check(w.t, err)
	check(w.t, w.export().PutHead(line))
	return h
}

// records are the master's tree as a manifest has it.
func (w *world) records(serial event.Serial) []event.Record {
	var all []event.Record
	check(w.t, filepath.WalkDir(w.master, func(p string, d fs.DirEntry, err error) error {
		check(w.t, err)
		rel, err := filepath.Rel(w.master, p)
		check(w.t, err)
		if rel == event.ExportDir {
			return fs.SkipDir
		}
		info, err := d.Info()
		check(w.t, err)
		r := event.Record{Op: event.Write, Mode: uint32(info.Mode().Perm()), MTime: event.StampOf(info.ModTime()), Path: rel, Serial: serial}
		switch {
		case rel == ".":
			return nil
		case d.IsDir():
			r.Mode |= event.ModeDir
		case info.Mode().IsRegular():
			b, err := os.ReadFile(p)
			check(w.t, err)
			r.Mode, r.Size, r.Sum = r.Mode|event.ModeFile, info.Size(), event.Sum(b)
		default:
			r.Mode, r.Size = r.Mode|event.ModeLink, info.Size()
		}
		all = append(all, r)
		return nil
	}))
	slices.SortFunc(all, func(a, b event.Record) int { return strings.Compare(a.Path, b.Path) })
	return all
}

// manifest exports records in shards and returns the head that names them.
func (w *world) manifest(records []event.Record, size int) event.Head {
	ix := export.Index{Module: module, Epoch: epoch, Serial: 9, Floor: 3, Entries: int64(len(records))}
	bodies := map[event.Digest][]byte{}
	for part := range slices.Chunk(records, size) {
		s, b := export.EncodeShard(part)
		ix.Shards, bodies[s.Digest] = append(ix.Shards, s), b
	}
	d, err := w.export().PutManifest(ix, event.Digest{}, func(s export.Shard) ([]byte, error) { return bodies[s.Digest], nil })
	check(w.t, err)
	return w.head(9, d)
}

func TestHeadIsReadAnewEachTime(t *testing.T) {
	w := newWorld(t)
	if _, err := w.src.Head(t.Context(), listener.Along{}); !errors.Is(err, export.ErrNotExported) {
		t.Errorf("without an export: %v", err)
	}
	for _, serial := range []event.Serial{11, 12} { // same size, perhaps the same second
		w.head(serial, event.Digest{})
		line, err := w.src.Head(t.Context(), listener.Along{})
		check(t, err)
		said, err := event.Read(line)
		check(t, err)
		if said.Head.Serial != serial {
			t.Errorf("head says %d, want %d", said.Head.Serial, serial)
		}
	}
}

func TestJournalFetchesWhatIsAskedForInOneConnection(t *testing.T) {
	w := newWorld(t)
	w.announce(1, 70)
	for _, c := range []struct{ from, to, first, last event.Serial }{
		{60, 70, 60, 70}, {66, 68, 66, 68}, {69, 200, 69, 70}, {71, 80, 0, 0},
	} {
		w.calls, w.asked = 0, nil
		entries, err := w.src.Journal(t.Context(), epoch, c.from, c.to)
		check(t, err)
		var want, got []event.Serial
		for s := c.first; s <= c.last && s > 0; s++ {
			want = append(want, s)
		}
		for _, e := range entries {
			got = append(got, e.Serial)
			said, err := event.Read(e.Line)
			check(t, err)
			if _, err := envelope.PathSet(e.Set, said.Announcement.Set); err != nil {
				t.Error(err)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" || w.calls != 1 || len(w.asked) != int(c.to-c.from+1) {
			t.Errorf("%d to %d: %s in %d calls for %d names", c.from, c.to, diff, w.calls, len(w.asked))
		}
	}
	if _, err := w.src.Journal(t.Context(), epoch, 0, 4); !errors.Is(err, catchup.ErrGap) {
		t.Errorf("from serial 0: %v", err)
	}
}

func TestJournalEndsAtAGap(t *testing.T) {
	w := newWorld(t)
	w.announce(1, 9)
	check(t, os.Remove(filepath.Join(w.master, event.ExportDir, export.EntryFile(epoch, 5))))
	entries, err := w.src.Journal(t.Context(), epoch, 3, 9)
	if err != nil || len(entries) != 2 {
		t.Errorf("%d entries before the gap, %v", len(entries), err)
	}
	if entries, err = w.src.Journal(t.Context(), "ffffffff", 1, 9); err != nil || len(entries) != 0 {
		t.Errorf("of another epoch: %d entries, %v", len(entries), err)
	}
}

func TestDamagedJournalIsRefused(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"cut short in the line": func(b []byte) []byte { return b[:100] },
		"another serial's file": func(b []byte) []byte { return []byte(strings.Replace(string(b), "serial=4", "serial=5", 1)) },
		"another history":       func(b []byte) []byte { return []byte(strings.Replace(string(b), "prev=", "prev=A", 1)) },
		"empty":                 func([]byte) []byte { return nil },
		"one bit of the line":   func(b []byte) []byte { b = slices.Clone(b); b[40] ^= 1; return b },
		"another epoch":         func(b []byte) []byte { return []byte(strings.Replace(string(b), string(epoch), "ffffffff", 1)) },
		"from the future":       func(b []byte) []byte { return []byte(strings.Replace(string(b), "serial=4", "serial=400", 1)) },
		"a web server's page":   func([]byte) []byte { return []byte("<!DOCTYPE html>\n<title>404 Not Found</title>\n") },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.announce(1, 6)
			file := filepath.Join(w.master, event.ExportDir, export.EntryFile(epoch, 4))
			b, err := os.ReadFile(file)
			check(t, err)
			check(t, os.WriteFile(file, damage(b), 0o644))
			entries, err := w.src.Journal(t.Context(), epoch, 3, 6)
			if err == nil || len(entries) != 1 || !strings.Contains(err.Error(), "4") {
				t.Errorf("%d entries, %v", len(entries), err)
			}
			check(t, os.WriteFile(file, b, 0o644))
			if entries, err = w.src.Journal(t.Context(), epoch, 3, 6); err != nil || len(entries) != 4 {
				t.Errorf("mended: %d entries, %v", len(entries), err)
			}
		})
	}
}

func TestManifestFetchesOnlyShardsThatAreNotHere(t *testing.T) {
	w := newWorld(t)
	var records []event.Record
	for i := range 100 {
		records = append(records, event.Record{Op: event.Write, Mode: event.ModeFile | 0o644, Serial: 5, Path: fmt.Sprintf("f%03d", i)})
	}
	for _, c := range []struct{ change, calls, files int }{{-1, 1, 11}, {-1, 0, 0}, {33, 1, 2}} {
		if c.change >= 0 {
			records[c.change].Size = 7
		}
		h := w.manifest(records, 10)
		before := w.parts()
		w.calls, w.asked = 0, nil
		m, err := w.src.Manifest(t.Context(), h)
		check(t, err)
		n := 0
		for r, err := range m.Records() {
			check(t, err)
			if r != records[n] {
				t.Fatalf("record %d is %v", n, r)
			}
			n++
		}
		check(t, m.Close())
		if files := w.newParts(before); n != 100 || w.calls != c.calls || files != c.files {
			t.Errorf("%d records in %d calls that brought %d files, want %d and %d", n, w.calls, files, c.calls, c.files)
		}
	}
}

// parts are the inodes of what the mirror has of manifests; what was fetched again has another.
func (w *world) parts() map[uint64]bool {
	all := map[uint64]bool{}
	files, err := filepath.Glob(filepath.Join(w.src.State, event.ExportDir, export.ManifestDir, "*"))
	check(w.t, err)
	for _, f := range files {
		info, err := os.Lstat(f)
		check(w.t, err)
		if info.Mode().IsRegular() {
			all[info.Sys().(*syscall.Stat_t).Ino] = true
		}
	}
	return all
}

func (w *world) newParts(before map[uint64]bool) (n int) {
	for ino := range w.parts() {
		if !before[ino] {
			n++
		}
	}
	return n
}

// Head and what was missed are one connection: the entries of the journal, and of the manifest what is not here yet.
func TestCatchingUpIsOneConnection(t *testing.T) {
	w := newWorld(t)
	w.announce(1, 20)
	var records []event.Record
	for i := range 100 {
		records = append(records, event.Record{Op: event.Write, Mode: event.ModeFile | 0o644, Serial: 5, Path: fmt.Sprintf("f%03d", i)})
	}
	w.manifest(records, 10)
	w.head(20, event.Digest{})
	_, err := w.src.Head(t.Context(), listener.Along{Epoch: epoch, From: 12, To: 43})
	check(t, err)
	entries, err := w.src.Journal(t.Context(), epoch, 12, 20)
	check(t, err)
	if len(entries) != 9 || entries[0].Serial != 12 || w.calls != 1 {
		t.Errorf("%d entries in %d connections", len(entries), w.calls)
	}
	entries, err = w.src.Journal(t.Context(), epoch, 12, 20)
	if check(t, err); len(entries) != 9 || w.calls != 2 {
		t.Errorf("asked again, with no head before: %d entries in %d connections", len(entries), w.calls)
	}
	for _, c := range []struct {
		change, files int
	}{{-1, 11}, {33, 2}, {-1, 0}} {
		if c.change >= 0 {
			records[c.change].Size = 7
		}
		h := w.manifest(records, 10)
		before := w.parts()
		w.calls = 0
		_, err = w.src.Head(t.Context(), listener.Along{Manifest: true})
		check(t, err)
		m, err := w.src.Manifest(t.Context(), h)
		check(t, err)
		check(t, m.Close())
		if files := w.newParts(before); w.calls != 1 || files != c.files {
			t.Errorf("manifest in %d connections that brought %d files, want %d", w.calls, files, c.files)
		}
	}
}

// What the head says and what came with it need not be of one moment: what is missing then is asked for again.
func TestAHeadNewerThanWhatCameWithIt(t *testing.T) {
	w := newWorld(t)
	w.head(3, event.Digest{})
	_, err := w.src.Head(t.Context(), listener.Along{Epoch: epoch, From: 1, To: 32})
	check(t, err)
	w.announce(1, 3)
	if entries, err := w.src.Journal(t.Context(), epoch, 1, 3); err != nil || len(entries) != 3 || w.calls != 2 {
		t.Errorf("%d entries in %d connections, %v", len(entries), w.calls, err)
	}
	records := []event.Record{{Op: event.Write, Mode: event.ModeFile, Serial: 1, Path: "a"}}
	older := w.manifest(records, 1)
	records[0].Size = 1
	w.manifest(records, 1) // its predecessor stays readable by name
	w.calls = 0
	_, err = w.src.Head(t.Context(), listener.Along{Manifest: true})
	check(t, err)
	m, err := w.src.Manifest(t.Context(), older)
	check(t, err)
	check(t, m.Close())
	if w.calls < 2 {
		t.Errorf("%d connections brought a manifest that is no longer the newest", w.calls)
	}
}

func TestDamagedManifestIsRefusedAndMended(t *testing.T) {
	w := newWorld(t)
	records := []event.Record{{Op: event.Write, Mode: event.ModeFile, Serial: 1, Path: "a"}, {Op: event.Write, Mode: event.ModeFile, Serial: 1, Path: "b"}}
	h := w.manifest(records, 1)
	folder := filepath.Join(w.master, event.ExportDir, export.ManifestDir)
	files, err := os.ReadDir(filepath.Join(w.master, event.ExportDir, export.NowDir))
	check(t, err)
	for _, f := range files {
		name := filepath.Join(folder, f.Name())
		good, err := os.ReadFile(name)
		check(t, err)
		flipped := slices.Clone(good)
		flipped[len(good)/2] ^= 1
		for what, bad := range map[string][]byte{"one bit": flipped, "cut short": good[:len(good)-1]} {
			check(t, os.RemoveAll(w.src.State))
			check(t, os.WriteFile(name, bad, 0o644))
			if _, err := w.src.Manifest(t.Context(), h); !errors.Is(err, event.ErrFormat) {
				t.Errorf("%s of %s: %v", what, f.Name(), err)
			}
			check(t, os.WriteFile(name, good, 0o644))
			m, err := w.src.Manifest(t.Context(), h)
			check(t, err)
			check(t, m.Close())
		}
		check(t, os.RemoveAll(w.src.State))
		check(t, os.Remove(name))
		check(t, os.Remove(filepath.Join(folder, "now", f.Name())))
		if _, err := w.src.Manifest(t.Context(), h); !errors.Is(err, export.ErrNotExported) {
			t.Errorf("without %s: %v", f.Name(), err)
		}
		check(t, os.WriteFile(name, good, 0o644))
	}
	for what, other := range map[string]event.Head{
		"other epoch":   {Module: module, Epoch: "ffffffff", Serial: 9, Manifest: h.Manifest},
		"older head":    {Module: module, Epoch: epoch, Serial: 8, Manifest: h.Manifest},
		"no manifest":   {Module: module, Epoch: epoch, Serial: 9},
		"other module":  {Module: "n", Epoch: epoch, Serial: 9, Manifest: h.Manifest},
		"other content": {Module: module, Epoch: epoch, Serial: 9, Manifest: event.Sum([]byte("x"))},
	} {
		if _, err := w.src.Manifest(t.Context(), other); err == nil {
			t.Errorf("%s: the manifest is taken", what)
		}
	}
}

// What a manifest costs is told by its index alone, and what is here of it costs nothing.
func TestMeasureReadsTheIndexAlone(t *testing.T) {
	w := newWorld(t)
	var records []event.Record
	for i := range 100 {
		records = append(records, event.Record{Op: event.Write, Mode: event.ModeFile | 0o644, Serial: 5, Path: fmt.Sprintf("f%03d", i)})
	}
	h := w.manifest(records, 10)
	size, err := w.src.Measure(t.Context(), h)
	check(t, err)
	if len(w.asked) != 1 || !strings.HasSuffix(w.asked[0], ".index") {
		t.Errorf("asked for %q", w.asked)
	}
	all := size.Bytes
	if size.Serial != 9 || size.Floor != 3 || size.Names != 100 || all == 0 {
		t.Errorf("%+v", size)
	}
	m, err := w.src.Manifest(t.Context(), h)
	check(t, err)
	check(t, m.Close())
	records[33].Size = 7
	if size, err = w.src.Measure(t.Context(), w.manifest(records, 10)); err != nil || size.Bytes == 0 || size.Bytes > all/5 {
		t.Errorf("after one change: %+v, %v; all of it is %d bytes", size, err, all)
	}
	if _, err := w.src.Measure(t.Context(), event.Head{Module: module, Epoch: epoch, Serial: 9, Manifest: event.Sum(nil)}); !errors.Is(err, export.ErrNotExported) {
		t.Errorf("a manifest that is not there: %v", err)
	}
	if _, err := w.src.Measure(t.Context(), event.Head{Module: module, Epoch: epoch, Serial: 9}); !errors.Is(err, export.ErrNotExported) {
		t.Errorf("no manifest: %v", err)
	}
}

func TestMissed(t *testing.T) {
	w := newWorld(t)
	h := w.manifest([]event.Record{
		{Op: event.Write, Mode: event.ModeFile, Serial: 2, Path: "a"}, {Op: event.Gone, Serial: 6, Path: "b"}, {Op: event.Write, Mode: event.ModeFile, Serial: 9, Path: "c"},
	}, 2)
	m, err := w.src.Manifest(t.Context(), h)
	check(t, err)
	defer func() { check(t, m.Close()) }()
	set, err := w.src.Missed(m, epoch, 6)
	check(t, err)
	if string(set.Encode()) != "+ 100000 0 0 - c\x00" {
		t.Errorf("after serial 6: %q", set.Encode())
	}
	for _, c := range []struct {
		e  event.Epoch
		at event.Serial
	}{{epoch, 2}, {epoch, 10}, {"ffffffff", 6}} {
		if _, err := w.src.Missed(m, c.e, c.at); !errors.Is(err, catchup.ErrGap) {
			t.Errorf("%s %d: %v", c.e, c.at, err)
		}
	}
}

func TestCompareFindsEachDifferenceAndNothingElse(t *testing.T) {
	w := newWorld(t)
	at := start.Add(-time.Hour)
	nodes := []testenv.Node{
		testenv.Dir("d", 0o755), testenv.File("d/same", "1").At(at), testenv.File("d/size", "12").At(at), testenv.File("d/time", "1").At(at),
		testenv.File("d/content", "a").At(at), testenv.File("d/mode", "1").At(at), testenv.Dir("d-e", 0o755), testenv.File("d-e/f", "1").At(at),
		testenv.Symlink("link", "d"), testenv.File("type", "1").At(at), testenv.File("x.iso", "1").At(at), testenv.File("caf\xe9\n", "").At(at),
	}
	testenv.WriteTree(t, w.master, nodes...)
	testenv.WriteTree(t, w.src.Tree, nodes...)
	h := w.manifest(w.records(4), 3)
	d, err := w.src.Compare(t.Context(), h, "", 0)
	if err != nil || len(d.Set) != 0 || d.Serial != 9 || d.Entries != 12 {
		t.Fatalf("the same tree: %+v, %v", d, err)
	}
	here := func(name string) string { return filepath.Join(w.src.Tree, name) }
	check(t, os.WriteFile(here("d/size"), []byte("123"), 0o644))
	check(t, os.Chtimes(here("d/time"), start, start))
	check(t, os.WriteFile(here("d/content"), []byte("b"), 0o644))
	check(t, os.Chtimes(here("d/content"), at, at))
	check(t, os.Chmod(here("d/mode"), 0o600))
	check(t, os.Chmod(here("d"), 0o750))
	check(t, os.RemoveAll(here("d-e")))
	check(t, os.Remove(here("type")))
	check(t, os.Remove(here("x.iso")))
	check(t, os.MkdirAll(here(".mirrorbus/journal"), 0o755))
	testenv.WriteTree(t, w.src.Tree, testenv.Dir("type", 0o755), testenv.File("type/x", ""), testenv.Dir("old", 0o755), testenv.File("old/x", ""), testenv.File("local.iso", ""))
	w.src.Rules, err = filter.Parse([]string{"- *.iso"})
	check(t, err)
	d, err = w.src.Compare(t.Context(), h, "", 0)
	check(t, err)
	var got []string
	for _, r := range d.Set {
		got = append(got, string(r.Op)+" "+r.Path)
	}
	want := []string{"= d", "r d-e", "+ d-e/f", "= d/mode", "+ d/size", "+ d/time", "- old", "+ type"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	m, err := w.src.Manifest(t.Context(), h)
	check(t, err)
	defer func() { check(t, m.Close()) }()
	found := map[string]catchup.Kind{}
	for f, err := range w.src.Differences(t.Context(), m, true) {
		check(t, err)
		found[f.Record.Path] = f.Kind
	}
	if diff := cmp.Diff(map[string]catchup.Kind{
		"d": catchup.Mode, "d-e": catchup.Missing, "d-e/f": catchup.Missing, "d/mode": catchup.Mode, "d/size": catchup.Modified, "d/time": catchup.Modified,
		"d/content": catchup.Modified, "old": catchup.Extra, "old/x": catchup.Extra, "type": catchup.Modified, "type/x": catchup.Extra,
	}, found); diff != "" {
		t.Error(diff)
	}
}

// A mirror that had everything up to a serial is told what was touched since, and its tree is not read.
func TestCompareWithAPositionCostsNoWalk(t *testing.T) {
	w := newWorld(t)
	testenv.WriteTree(t, w.master, testenv.File("old", "1").At(start), testenv.File("new", "2").At(start))
	records := w.records(4)
	for i := range records {
		if records[i].Path == "new" {
			records[i].Serial = 7
		}
	}
	h := w.manifest(records, 3)
	testenv.WriteTree(t, w.src.Tree, testenv.File("extra", "nobody looks"))
	d, err := w.src.Compare(t.Context(), h, h.Epoch, 5)
	if err != nil || len(d.Set) != 1 || d.Set[0].Path != "new" || d.Set[0].Op != event.Write {
		t.Errorf("at serial 5: %+v, %v", d.Set, err)
	}
	if d, err = w.src.Compare(t.Context(), h, "00000000", 5); err != nil || len(d.Set) != 3 {
		t.Errorf("of another epoch: %+v, %v", d.Set, err)
	}
}

func TestCompareLooksBehindConfiguredLinksOnly(t *testing.T) {
	w := newWorld(t)
	at := start.Add(-time.Hour)
	testenv.WriteTree(t, w.master, testenv.Dir("big", 0o755), testenv.File("big/f", "1").At(at))
	elsewhere := t.TempDir()
	testenv.WriteTree(t, elsewhere, testenv.File("f", "1").At(at))
	check(t, os.Chmod(elsewhere, 0o755))
	testenv.WriteTree(t, w.src.Tree, testenv.Symlink("big", elsewhere))
	h := w.manifest(w.records(4), 3)
	d, err := w.src.Compare(t.Context(), h, "", 0)
	if err != nil || len(d.Set) != 2 {
		t.Errorf("a link that nobody configured: %v, %v", d.Set, err)
	}
	w.src.Links = []string{"big"}
	if d, err = w.src.Compare(t.Context(), h, "", 0); err != nil || len(d.Set) != 0 {
		t.Errorf("a configured link: %v, %v", d.Set, err)
	}
}

// A mirror that plain rsync filled is taken over without transferring anything again.
func TestAdoptionOfALargeTree(t *testing.T) {
	w := newWorld(t)
	for i := range 200 {
		dir := filepath.Join(w.master, fmt.Sprintf("d%03d", i))
		check(t, os.Mkdir(dir, 0o755))
		for k := range 100 {
			check(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("f%02d", k)), nil, 0o644))
		}
	}
	_, err := w.runner.Run(t.Context(), rsync.Job{Mode: rsync.Full, MaxDelete: rsync.Unlimited})
	check(t, err)
	h := w.manifest(w.records(4), 4096)
	check(t, os.Remove(filepath.Join(w.src.Tree, "d100", "f50")))
	began := time.Now()
	d, err := w.src.Compare(t.Context(), h, "", 0)
	check(t, err)
	t.Logf("compared %d entries in %s", d.Entries, time.Since(began).Round(time.Millisecond))
	if len(d.Set) != 1 || d.Set[0].Path != "d100/f50" || d.Set[0].Op != event.Write {
		t.Errorf("%d differences", len(d.Set))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.src.Compare(ctx, h, "", 0); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
