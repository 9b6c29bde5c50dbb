package export_test

import (
	"bytes"
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
	"github.com/mirrorbus/mirrorbus/event/sshsig"
	"github.com/mirrorbus/mirrorbus/internal/envelope"
	"github.com/mirrorbus/mirrorbus/internal/export"
)

const (
	epoch  = event.Epoch("0123abcd")
	module = event.Module("m")
)

var start = time.Date(2026, 11, 20, 19, 0, 0, 0, time.UTC)

func signer(t testing.TB) ssh.Signer {
	t.Helper()
	key, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

type onlyKey struct{ ssh.PublicKey }

func (k onlyKey) KeyByID(id [8]byte) []ssh.PublicKey {
	if id != sshsig.KeyID(k.PublicKey) {
		return nil
	}
	return []ssh.PublicKey{k.PublicKey}
}

// chain is n signed lines that follow one another, and their compressed set.
func chain(t testing.TB, n int) (lines [][]byte, set []byte) {
	t.Helper()
	paths := event.PathSet{{Op: event.Write, Mode: event.ModeFile | 0o644, Path: "a"}}
	var prev event.Digest
	for i := range n {
		line, err := event.Seal(event.Announcement{Kind: event.Change, Module: module, Epoch: epoch, Serial: event.Serial(i + 1),
			At: start, Prev: prev, Set: paths.Digest(), Count: 1}, signer(t))
		if err != nil {
			t.Fatal(err)
		}
		said, err := event.Read(line)
		if err != nil {
			t.Fatal(err)
		}
		lines, prev = append(lines, line), said.Digest
	}
	return lines, envelope.Compress(paths.Encode())
}

func writer(t testing.TB) (*export.Writer, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), event.ExportDir)
	w, err := export.OpenWriter(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { check(t, w.Close()) })
	return w, dir
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestPaths(t *testing.T) {
	for s, want := range map[event.Serial]string{
		1:               "journal/0123abcd/0000000000/000000000000001",
		64:              "journal/0123abcd/0000000000/000000000000064",
		65:              "journal/0123abcd/0000000001/000000000000065",
		event.MaxSerial: "journal/0123abcd/15624999999999/999999999999999",
	} {
		if got := export.EntryFile(epoch, s); got != want {
			t.Errorf("serial %d: got %s, want %s", s, got, want)
		}
	}
}

func TestEntriesRoundTrip(t *testing.T) {
	w, dir := writer(t)
	lines, set := chain(t, 130)
	for i, line := range lines {
		check(t, w.PutEntry(epoch, event.Serial(i+1), line, set))
	}
	r, err := export.OpenReader(dir)
	check(t, err)
	defer r.Close() //nolint:errcheck // only read
	next := event.Serial(60)
	for entry, err := range r.Entries(epoch, next) {
		check(t, err)
		if entry.Serial != next || !bytes.Equal(entry.Line, lines[next-1]) || !bytes.Equal(entry.Set, set) {
			t.Fatalf("serial %d: got %+v", next, entry)
		}
		next++
	}
	if next != 131 {
		t.Errorf("ended before %d", next)
	}
	if _, err := r.Entry(epoch, 131); !errors.Is(err, export.ErrNotExported) {
		t.Errorf("got %v", err)
	}
}

func TestEntriesRefuseABrokenChain(t *testing.T) {
	w, _ := writer(t)
	lines, set := chain(t, 3)
	other, err := event.Seal(event.Announcement{Kind: event.Change, Module: module, Epoch: epoch, Serial: 2, At: start,
		Prev: event.Sum([]byte("another first")), Set: event.Sum(nil)}, signer(t))
	check(t, err)
	check(t, w.PutEntry(epoch, 1, lines[0], set))
	check(t, w.PutEntry(epoch, 2, other, nil))
	var last error
	for _, err := range w.Reader().Entries(epoch, 1) {
		last = err
	}
	if !errors.Is(last, event.ErrFormat) || !strings.Contains(last.Error(), "entry 2 follows another line than entry 1") {
		t.Errorf("got %v", last)
	}
}

func TestEntryRefusesAnotherSerial(t *testing.T) {
	w, _ := writer(t)
	lines, set := chain(t, 2)
	check(t, w.PutEntry(epoch, 1, lines[1], set))
	if _, err := w.Reader().Entry(epoch, 1); !errors.Is(err, event.ErrFormat) {
		t.Errorf("got %v", err)
	}
}

// Whatever byte of an entry is changed or missing: either reading it, its signature or the digest of its path set tells.
func TestEntryDamageIsNoticed(t *testing.T) {
	w, dir := writer(t)
	lines, set := chain(t, 1)
	check(t, w.PutEntry(epoch, 1, lines[0], set))
	file := filepath.Join(dir, export.EntryFile(epoch, 1))
	good, err := os.ReadFile(file)
	check(t, err)
	want, err := event.Read(lines[0])
	check(t, err)
	accepted := func(b []byte) bool {
		check(t, os.WriteFile(file, b, 0o644))
		e, err := w.Reader().Entry(epoch, 1)
		if err != nil {
			return false
		}
		if _, _, err := event.Signature(e.Line, onlyKey{signer(t).PublicKey()}); err != nil {
			return false
		}
		_, err = envelope.PathSet(e.Set, want.Announcement.Set)
		return err == nil
	}
	if !accepted(good) {
		t.Fatal("the entry itself is refused")
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 0x20
		if accepted(bad) && i < len(lines[0]) {
			t.Errorf("byte %d changed: accepted", i)
		}
		if accepted(good[:i]) {
			t.Errorf("cut at %d: accepted", i)
		}
	}
}

func TestHead(t *testing.T) {
	w, dir := writer(t)
	if _, err := w.Reader().Head(); !errors.Is(err, export.ErrNotExported) {
		t.Errorf("no head: got %v", err)
	}
	check(t, w.PutHead([]byte("one")))
	check(t, w.PutHead([]byte("two")))
	line, err := w.Reader().Head()
	if err != nil || string(line) != "two" {
		t.Errorf("got %q, %v", line, err)
	}
	for name, text := range map[string]string{"no line feed": "two", "two lines": "a\nb\n", "empty": "", "long": strings.Repeat("x", event.MaxLine+1) + "\n"} {
		check(t, os.WriteFile(filepath.Join(dir, export.HeadFile), []byte(text), 0o644))
		if _, err := w.Reader().Head(); !errors.Is(err, event.ErrFormat) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestModesDoNotDependOnTheUmask(t *testing.T) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	w, dir := writer(t)
	lines, set := chain(t, 1)
	check(t, w.PutEntry(epoch, 1, lines[0], set))
	check(t, w.PutHead(lines[0]))
	check(t, filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if want := map[bool]fs.FileMode{true: 0o755, false: 0o644}[d.IsDir()]; err == nil && info.Mode().Perm() != want {
			t.Errorf("%s: mode %v", name, info.Mode())
		}
		return err
	}))
}

func TestNeverThroughALink(t *testing.T) {
	lines, set := chain(t, 1)
	t.Run("in place of the folder", func(t *testing.T) {
		outside, dir := t.TempDir(), filepath.Join(t.TempDir(), event.ExportDir)
		check(t, os.Symlink(outside, dir))
		if _, err := export.OpenWriter(dir); err == nil || !strings.Contains(err.Error(), "is no folder") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("in place of a folder below", func(t *testing.T) {
		w, dir := writer(t)
		outside := t.TempDir()
		check(t, os.Symlink(outside, filepath.Join(dir, export.JournalDir)))
		if err := w.PutEntry(epoch, 1, lines[0], set); err == nil {
			t.Error("written")
		}
		if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
			t.Errorf("outside: %v, %v", left, err)
		}
	})
	t.Run("in place of the head", func(t *testing.T) {
		w, dir := writer(t)
		outside := filepath.Join(t.TempDir(), "file")
		check(t, os.WriteFile(outside, []byte("mine"), 0o600))
		check(t, os.Symlink(outside, filepath.Join(dir, export.HeadFile)))
		if _, err := w.Reader().Head(); err == nil {
			t.Error("read through the link")
		}
		check(t, w.PutHead(lines[0]))
		if b, err := os.ReadFile(outside); err != nil || string(b) != "mine" {
			t.Errorf("outside: %q, %v", b, err)
		}
	})
	t.Run("a fifo holds nobody up", func(t *testing.T) {
		w, dir := writer(t)
		check(t, syscall.Mkfifo(filepath.Join(dir, export.HeadFile), 0o644))
		if _, err := w.Reader().Head(); err == nil || !strings.Contains(err.Error(), "no regular file") {
			t.Errorf("got %v", err)
		}
	})
}

func TestOpenWriterSweepsHalfWrittenFiles(t *testing.T) {
	_, dir := writer(t)
	half := filepath.Join(dir, "journal", ".tmp-HALF")
	check(t, os.MkdirAll(filepath.Dir(half), 0o755))
	check(t, os.WriteFile(half, nil, 0o600))
	w, err := export.OpenWriter(dir)
	check(t, err)
	check(t, w.Close())
	if _, err := os.Stat(half); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("still there: %v", err)
	}
}

func files(t testing.TB, dir string) []string {
	t.Helper()
	var all []string
	check(t, fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			all = append(all, name)
		}
		return err
	}))
	return all
}

func TestPruneEntries(t *testing.T) {
	w, dir := writer(t)
	lines, set := chain(t, 200)
	for i, line := range lines {
		check(t, w.PutEntry(epoch, event.Serial(i+1), line, set))
	}
	check(t, w.PutEntry("ffffffff", 1, lines[0], set))
	check(t, w.Prune(export.Keep{Epoch: epoch, From: 130, Now: start}))
	var want []string
	for s := event.Serial(130); s <= 200; s++ {
		want = append(want, export.EntryFile(epoch, s))
	}
	if d := cmp.Diff(want, files(t, dir)); d != "" {
		t.Error(d)
	}
}

// tree is n sorted manifest records of many folders.
func tree(n int, serial event.Serial) []event.Record {
	var all []event.Record
	for i := range n {
		all = append(all, event.Record{Op: event.Write, Mode: event.ModeFile | 0o644, Size: int64(i), Serial: serial, Path: fmt.Sprintf("d%03d/f%05d", i/100, i)})
	}
	return all
}

// put cuts records into shards of size and writes them as a manifest.
func put(t testing.TB, w *export.Writer, records []event.Record, size int, previous event.Digest) (export.Index, event.Digest) {
	t.Helper()
	ix := export.Index{Module: module, Epoch: epoch, Serial: 9, Floor: 1, Entries: int64(len(records))}
	bodies := map[event.Digest][]byte{}
	for part := range slices.Chunk(records, size) {
		s, b := export.EncodeShard(part)
		ix.Shards, bodies[s.Digest] = append(ix.Shards, s), b
	}
	d, err := w.PutManifest(ix, previous, func(s export.Shard) ([]byte, error) { return bodies[s.Digest], nil })
	check(t, err)
	return ix, d
}

func collect(t testing.TB, s export.Records) []event.Record {
	t.Helper()
	var all []event.Record
	for r, err := range s {
		check(t, err)
		all = append(all, r)
	}
	return all
}

func TestManifestRoundTrip(t *testing.T) {
	w, _ := writer(t)
	records := tree(1000, 3)
	records[500].Op, records[500].Mode, records[500].Size, records[500].Serial = event.Gone, 0, 0, 7
	want, d := put(t, w, records, 64, event.Digest{})
	ix, err := w.Reader().Manifest(d)
	check(t, err)
	if diff := cmp.Diff(want, ix); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(records, collect(t, w.Reader().Records(ix))); diff != "" {
		t.Error(diff)
	}
	for _, dir := range []string{"d000", "d003", "d009", "d00", "d003/f00301", "nothing", "z"} {
		below := slices.DeleteFunc(slices.Clone(records), func(r event.Record) bool { return r.Path != dir && !event.Under(dir, r.Path) })
		if diff := cmp.Diff(below, collect(t, w.Reader().Below(ix, dir)), cmp.Transformer("nil", func(r []event.Record) string { return fmt.Sprint(r) })); diff != "" {
			t.Errorf("below %s: %s", dir, diff)
		}
	}
	if got := collect(t, w.Reader().Missed(ix, 6)); len(got) != 1 || got[0].Path != records[500].Path {
		t.Errorf("missed since 6: %v", got)
	}
}

func TestPruneKeepsAReplacedManifestForItsGrace(t *testing.T) {
	w, dir := writer(t)
	_, first := put(t, w, tree(300, 3), 100, event.Digest{})
	long := time.Now().Add(-48 * time.Hour)
	check(t, os.Chtimes(filepath.Join(dir, export.IndexFile(first)), long, long)) // written long ago, replaced just now
	second, d := put(t, w, append(tree(200, 3), tree(300, 4)[200:]...), 100, first)
	keep := export.Keep{Epoch: epoch, From: 1, Manifest: d, Grace: time.Hour, Now: time.Now()}
	check(t, w.Prune(keep))
	ix, err := w.Reader().Manifest(first)
	check(t, err)
	if got := collect(t, w.Reader().Records(ix)); len(got) != 300 {
		t.Errorf("%d records left of the replaced manifest", len(got))
	}
	keep.Now = keep.Now.Add(2 * time.Hour)
	check(t, w.Prune(keep))
	want := []string{export.IndexFile(d)}
	for _, s := range second.Shards {
		want = append(want, export.ShardFile(s.Digest))
	}
	for _, name := range slices.Clone(want) {
		want = append(want, filepath.Join(export.NowDir, filepath.Base(name)))
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, files(t, dir)); diff != "" {
		t.Error(diff)
	}
}

// The folder of the newest manifest holds nothing else, and costs no room of its own.
func TestNewestManifestByItself(t *testing.T) {
	w, dir := writer(t)
	_, first := put(t, w, tree(300, 3), 100, event.Digest{})
	check(t, os.WriteFile(filepath.Join(dir, export.NowDir, "left over"), nil, 0o644))
	ix, d := put(t, w, append(tree(200, 3), tree(300, 4)[200:]...), 100, first)
	want := []string{export.IndexFile(d)}
	for _, s := range ix.Shards {
		want = append(want, export.ShardFile(s.Digest))
	}
	now, err := os.ReadDir(filepath.Join(dir, export.NowDir))
	check(t, err)
	if len(now) != len(want) {
		t.Errorf("%d files, want %d: %v", len(now), len(want), now)
	}
	for _, name := range want {
		one, err := os.Stat(filepath.Join(dir, name))
		check(t, err)
		other, err := os.Stat(filepath.Join(dir, export.NowDir, filepath.Base(name)))
		if check(t, err); !os.SameFile(one, other) {
			t.Errorf("%s is there twice", name)
		}
	}
}

func TestManifestDamageIsRefused(t *testing.T) {
	w, dir := writer(t)
	ix, d := put(t, w, tree(20, 3), 10, event.Digest{})
	damage := func(name string, read func() error) {
		file := filepath.Join(dir, name)
		good, err := os.ReadFile(file)
		check(t, err)
		for i := range good {
			bad := bytes.Clone(good)
			bad[i] ^= 1
			for what, b := range map[string][]byte{"changed": bad, "cut": good[:i]} {
				check(t, os.WriteFile(file, b, 0o644))
				if err := read(); !errors.Is(err, event.ErrFormat) {
					t.Fatalf("%s %s at %d: got %v", name, what, i, err)
				}
			}
		}
		check(t, os.WriteFile(file, good, 0o644))
		check(t, read())
	}
	damage(export.IndexFile(d), func() error { _, err := w.Reader().Manifest(d); return err })
	damage(export.ShardFile(ix.Shards[1].Digest), func() error {
		for _, err := range w.Reader().Records(ix) {
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func TestShardMustMatchItsIndex(t *testing.T) {
	s, b := export.EncodeShard(tree(10, 3))
	for name, change := range map[string]func(*export.Shard){
		"more entries":  func(s *export.Shard) { s.Entries++ },
		"fewer entries": func(s *export.Shard) { s.Entries-- },
		"first path":    func(s *export.Shard) { s.First = "a" },
		"digest":        func(s *export.Shard) { s.Digest[0] ^= 1 },
	} {
		bad := s
		change(&bad)
		var last error
		for _, err := range export.DecodeShard(b, bad) {
			last = err
		}
		if !errors.Is(last, event.ErrFormat) {
			t.Errorf("%s: got %v", name, last)
		}
	}
}

func TestMerge(t *testing.T) {
	records := func(paths string) export.Records {
		return func(yield func(event.Record, error) bool) {
			for p := range strings.SplitSeq(paths, " ") {
				if !yield(event.Record{Path: p}, nil) {
					return
				}
			}
		}
	}
	var got []string
	for p, err := range export.Merge(records("a b d"), records("b c d e")) {
		check(t, err)
		got = append(got, fmt.Sprintf("%s %v %v", p.Path(), p.A != nil, p.B != nil))
	}
	if diff := cmp.Diff([]string{"a true false", "b true true", "c false true", "d true true", "e false true"}, got); diff != "" {
		t.Error(diff)
	}
	broken := func(yield func(event.Record, error) bool) { yield(event.Record{}, os.ErrClosed) }
	var last error
	for _, err := range export.Merge(records("a"), broken) {
		last = err
	}
	if !errors.Is(last, os.ErrClosed) {
		t.Errorf("got %v", last)
	}
}

func TestIndexRefuses(t *testing.T) {
	const head = "mirrorbus1 manifest module=m epoch=0123abcd serial=9 floor=1 entries=1 bytes=0\n"
	digest := event.Sum(nil).String()
	good := head + "shard " + digest + " 1 10 a%20b\n"
	if _, err := export.DecodeIndex([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"empty":               "",
		"cut":                 strings.TrimSuffix(good, "\n"),
		"another kind":        strings.Replace(good, "manifest", "head", 1),
		"floor above serial":  strings.Replace(good, "floor=1", "floor=10", 1),
		"entries do not sum":  strings.Replace(good, "entries=1", "entries=2", 1),
		"number with zero":    strings.Replace(good, "serial=9", "serial=09", 1),
		"2^63 entries":        strings.Replace(good, " 1 10", " 9223372036854775808 10", 1),
		"empty shard":         strings.Replace(strings.Replace(good, " 1 10", " 0 10", 1), "entries=1", "entries=0", 1),
		"huge shard":          strings.Replace(good, " 1 10", " 1 999999999", 1),
		"path outside":        strings.Replace(good, "a%20b", "..%2Fa", 1),
		"path out of order":   strings.Replace(good, "entries=1", "entries=2", 1) + "shard " + digest + " 1 10 a\n",
		"path not escaped":    strings.Replace(good, "a%20b", "a/b", 1),
		"plus sign in a path": strings.Replace(good, "a%20b", "a+b", 1),
	} {
		if _, err := export.DecodeIndex([]byte(text)); !errors.Is(err, event.ErrFormat) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func FuzzDecodeIndex(f *testing.F) {
	s, _ := export.EncodeShard(tree(3, 1))
	f.Add(export.Index{Module: module, Epoch: epoch, Serial: 1, Entries: 3, Shards: []export.Shard{s}}.Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		ix, err := export.DecodeIndex(b)
		if err == nil && !bytes.Equal(ix.Encode(), b) {
			t.Errorf("%q became %q", b, ix.Encode())
		}
		if err != nil && !errors.Is(err, event.ErrFormat) {
			t.Errorf("not a format error: %v", err)
		}
	})
}

// FuzzShard gives any text to the decoder as a well-compressed shard with the right digest: whoever signs the head could.
func FuzzShard(f *testing.F) {
	f.Add(event.PathSet(tree(3, 1)).Encode(), int64(3), "d000/f00000")
	f.Fuzz(func(t *testing.T, text []byte, n int64, first string) {
		b := envelope.Compress(text)
		var back event.PathSet
		for r, err := range export.DecodeShard(b, export.Shard{Digest: event.Sum(b), Entries: n, First: first}) {
			if err != nil {
				if !errors.Is(err, event.ErrFormat) {
					t.Errorf("not a format error: %v", err)
				}
				return
			}
			back = append(back, r)
		}
		if !bytes.Equal(back.Encode(), text) {
			t.Errorf("%q became %q", text, back.Encode())
		}
	})
}
