package export_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/envelope"
	"github.com/mirrorbus/mirrorbus/internal/export"
)

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
