package catchup_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/export"
	"github.com/mirrorbus/mirrorbus/listener/catchup"
)

// A folder stands for an upstream: what is to be fetched is in the mirror's state already.
func stored(t testing.TB, entries int) (*catchup.Source, event.Head) {
	t.Helper()
	s := &catchup.Source{Module: module, State: filepath.Join(t.TempDir(), "state"), Tree: filepath.Join(t.TempDir(), "tree")}
	check(t, os.MkdirAll(s.Tree, 0o755))
	check(t, os.MkdirAll(s.State, 0o700))
	w, err := export.OpenWriter(filepath.Join(s.State, event.ExportDir))
	check(t, err)
	defer w.Close() //nolint:errcheck // what it wrote is read below
	ix := export.Index{Module: module, Epoch: epoch, Serial: 9}
	var part []event.Record
	flush := func() {
		shard, b := export.EncodeShard(part)
		check(t, w.PutShard(shard, b))
		ix.Shards, ix.Entries, part = append(ix.Shards, shard), ix.Entries+shard.Entries, part[:0]
	}
	for i := range entries {
		r := event.Record{Op: event.Write, Mode: event.ModeFile | 0o644, MTime: event.StampOf(start), Serial: 5, Path: fmt.Sprintf("pool/%07d/package-with-a-name.rpm", i)}
		if part = append(part, r); len(part) == 4096 {
			flush()
		}
	}
	if len(part) > 0 {
		flush()
	}
	d, err := w.PutManifest(ix, event.Digest{}, nil)
	check(t, err)
	return s, event.Head{Module: module, Epoch: epoch, Serial: 9, Manifest: d}
}

// held is the memory that is in use, in bytes.
func held() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// peakOf reads all differences and returns how many there are, and the most memory that was in use beside what was before.
func peakOf(t testing.TB, s *catchup.Source, h event.Head, every int) (n int, peak uint64) {
	t.Helper()
	m, err := s.Manifest(t.Context(), h)
	check(t, err)
	defer func() { check(t, m.Close()) }()
	before := held()
	for _, err := range s.Differences(t.Context(), m, false) {
		check(t, err)
		if n++; n%every == 0 {
			if now := held(); now > before {
				peak = max(peak, now-before)
			}
		}
	}
	return n, peak
}

// A manifest is compared with the tree name by name: ten times as many names take no more memory.
func TestComparingHoldsOneShardAtATime(t *testing.T) {
	var peaks []uint64
	for _, entries := range []int{20_000, 200_000} {
		s, h := stored(t, entries)
		n, peak := peakOf(t, s, h, entries/10)
		if n != entries {
			t.Errorf("%d differences, want %d", n, entries)
		}
		t.Logf("%d names: %d KiB at most", entries, peak>>10)
		peaks = append(peaks, peak)
	}
	if peaks[1] > peaks[0]+4<<20 { // all of them would be 30 MiB
		t.Errorf("memory grows with the names: %d KiB, then %d KiB", peaks[0]>>10, peaks[1]>>10)
	}
}

// The tree is empty, or holds every file; MIRRORBUS_ENTRIES says how many names there are.
func BenchmarkCompare(b *testing.B) {
	entries := 20_000
	if text := os.Getenv("MIRRORBUS_ENTRIES"); text != "" {
		var err error
		entries, err = strconv.Atoi(text)
		check(b, err)
	}
	s, h := stored(b, entries)
	run := func(b *testing.B) {
		var peak uint64
		for b.Loop() {
			_, p := peakOf(b, s, h, max(entries/4, 1))
			peak = max(peak, p)
		}
		b.ReportMetric(float64(peak), "peak-B")
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(entries), "ns/name")
	}
	b.Run("empty", run)
	for i := range entries {
		dir := filepath.Join(s.Tree, fmt.Sprintf("pool/%07d", i))
		check(b, os.MkdirAll(dir, 0o755))
		file := filepath.Join(dir, "package-with-a-name.rpm")
		check(b, os.WriteFile(file, nil, 0o644))
		check(b, os.Chtimes(file, start, start))
	}
	b.Run("full", run)
}
