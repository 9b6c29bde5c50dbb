package catchup_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/export"
	"github.com/mirrorbus/mirrorbus/listener/catchup"
)

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
