package manifest_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/export"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/trigger/manifest"
)

// benchFiles is how many files the benchmarks' tree has, 100 to a directory; MIRRORBUS_BENCH_FILES=1000000 for what CHANGELOG and README quote.
func benchFiles(b *testing.B) int {
	b.Helper()
	n, err := strconv.Atoi(os.Getenv("MIRRORBUS_BENCH_FILES"))
	if err != nil {
		return 20_000
	}
	return n
}

func benchTree(b *testing.B) string {
	b.Helper()
	root := b.TempDir()
	for i := range benchFiles(b) {
		dir := filepath.Join(root, fmt.Sprintf("releases/%02d/Packages-%04d", i/100%40, i/100))
		if i%100 == 0 {
			check(b, os.MkdirAll(dir, 0o755))
		}
		f, err := os.Create(filepath.Join(dir, fmt.Sprintf("package-name-%07d-1.2.%d.x86_64.rpm", i, i%30)))
		check(b, err)
		check(b, f.Close())
	}
	return root
}

// BenchmarkManifest measures, on one tree: find(1), a build, a comparison, the names of an inode, the first export and one after a single change, lookups, and a subtree.
func BenchmarkManifest(b *testing.B) {
	root := benchTree(b)
	per := func(b *testing.B, what string, d time.Duration) {
		b.Helper()
		b.ReportMetric(d.Seconds()/float64(b.N), what)
	}
	b.Run("find", func(b *testing.B) {
		testenv.Need(b, "find")
		for b.Loop() {
			cmd := exec.Command("find", root, "-printf", "%m %s %T@ %P\\0")
			cmd.Stdout = io.Discard
			check(b, cmd.Run())
		}
		per(b, "s/walk", b.Elapsed())
	})
	m := open(b, filepath.Join(b.TempDir(), "manifest.db"), manifest.Options{})
	b.Run("build", func(b *testing.B) {
		for b.Loop() {
			_, err := m.Build(b.Context(), root, epoch, 0, nil)
			check(b, err)
		}
		per(b, "s/build", b.Elapsed())
		size, err := m.Size(b.Context())
		check(b, err)
		b.ReportMetric(float64(size)/(1<<20), "MiB")
	})
	b.Run("compare", func(b *testing.B) {
		for b.Loop() {
			compare(b, m, root)
		}
		per(b, "s/compare", b.Elapsed())
	})
	b.Run("linked", func(b *testing.B) {
		ino := inoOf(b, root, "releases/00/Packages-0000/package-name-0000000-1.2.0.x86_64.rpm")
		for b.Loop() {
			if names, err := m.Linked(b.Context(), ino); err != nil || len(names) != 1 {
				b.Fatal(names, err)
			}
		}
	})
	w, _ := writer(b)
	start := time.Now()
	ix, last, err := m.Export(b.Context(), w, event.Digest{})
	check(b, err)
	first := time.Since(start)
	b.Run("first export", func(b *testing.B) {
		var bytes int64
		for _, s := range ix.Shards {
			bytes += s.Bytes
		}
		b.ReportMetric(first.Seconds(), "s/export")
		b.ReportMetric(float64(bytes)/(1<<20), "MiB")
		b.ReportMetric(float64(len(ix.Shards)), "shards")
		b.ReportMetric(0, "ns/op")
	})
	var serial event.Serial
	b.Run("apply and export one change", func(b *testing.B) {
		for b.Loop() {
			serial++
			set := event.PathSet{{Op: event.Write, Mode: event.ModeFile | 0o644, MTime: event.Stamp{Sec: int64(serial)}, Path: "releases/07/new"}}
			_, err := m.Apply(b.Context(), manifest.Change{Serial: serial, Set: set}, root)
			check(b, err)
			_, last, err = m.Export(b.Context(), w, last)
			check(b, err)
		}
	})
	b.Run("apply", func(b *testing.B) {
		for b.Loop() {
			serial++
			set := event.PathSet{{Op: event.Write, Mode: event.ModeFile | 0o644, MTime: event.Stamp{Sec: int64(serial)}, Path: "releases/07/new"}}
			_, err := m.Apply(b.Context(), manifest.Change{Serial: serial, Set: set}, root)
			check(b, err)
		}
	})
	b.Run("get", func(b *testing.B) {
		for b.Loop() {
			i := rand.IntN(benchFiles(b))
			path := fmt.Sprintf("releases/%02d/Packages-%04d/package-name-%07d-1.2.%d.x86_64.rpm", i/100%40, i/100, i, i%30)
			if _, ok, err := m.Get(b.Context(), path); err != nil || !ok {
				b.Fatal(path, ok, err)
			}
		}
	})
	b.Run("records", func(b *testing.B) {
		n := 0
		for b.Loop() {
			n = 0
			for _, err := range m.Records(b.Context(), "") {
				check(b, err)
				n++
			}
		}
		per(b, "s/all", b.Elapsed())
		b.ReportMetric(float64(n), "records")
	})
	b.Run("read the export", func(b *testing.B) {
		ix, err := w.Reader().Manifest(last)
		check(b, err)
		var records export.Records = w.Reader().Records(ix)
		for b.Loop() {
			for _, err := range records {
				check(b, err)
			}
		}
		per(b, "s/all", b.Elapsed())
	})
}
