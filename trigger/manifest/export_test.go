package manifest_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/export"
	"github.com/mirrorbus/mirrorbus/trigger/manifest"
)

func writer(t testing.TB) (*export.Writer, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), event.ExportDir)
	w, err := export.OpenWriter(dir)
	check(t, err)
	t.Cleanup(func() { check(t, w.Close()) })
	return w, dir
}

func collect(t testing.TB, s export.Records) []event.Record {
	t.Helper()
	all := []event.Record{}
	for r, err := range s {
		check(t, err)
		all = append(all, r)
	}
	return all
}

func TestExportOnlyWhatChanged(t *testing.T) {
	root := t.TempDir()
	for i := range 2000 {
		put(t, root, fmt.Sprintf("d%02d/f%04d", i/50, i))
	}
	m := build(t, root, manifest.Options{ShardEntries: 64})
	w, _ := writer(t)
	before, d, err := m.Export(t.Context(), w, event.Digest{})
	check(t, err)
	if len(before.Shards) < 10 {
		t.Fatalf("only %d shards", len(before.Shards))
	}
	put(t, root, "d20/new")
	apply(t, m, root, 1, "+d20/new")
	after, d, err := m.Export(t.Context(), w, d)
	check(t, err)
	fresh := 0
	for _, s := range after.Shards {
		if !slices.Contains(before.Shards, s) {
			fresh++
		}
	}
	if fresh < 1 || fresh > 2 { // two if the new path is a boundary
		t.Errorf("%d of %d shards are new", fresh, len(after.Shards))
	}
	ix, err := w.Reader().Manifest(d)
	check(t, err)
	if diff := cmp.Diff(records(t, m, ""), collect(t, w.Reader().Records(ix))); diff != "" {
		t.Error(diff)
	}
	again := build(t, root, manifest.Options{ShardEntries: 64})
	rebuilt, _, err := again.Export(t.Context(), w, d)
	if err != nil || len(rebuilt.Shards) != len(after.Shards) {
		t.Errorf("built anew: %d shards, %v; want %d", len(rebuilt.Shards), err, len(after.Shards))
	}
}

func TestExportMakesALostShardAgain(t *testing.T) {
	root := t.TempDir()
	for i := range 500 {
		put(t, root, fmt.Sprintf("f%04d", i))
	}
	m := build(t, root, manifest.Options{ShardEntries: 64})
	w, dir := writer(t)
	ix, d, err := m.Export(t.Context(), w, event.Digest{})
	check(t, err)
	for _, s := range ix.Shards {
		check(t, os.Remove(filepath.Join(dir, export.ShardFile(s.Digest))))
	}
	_, again, err := m.Export(t.Context(), w, d)
	if err != nil || again != d {
		t.Fatalf("%v, %s became %s", err, d, again)
	}
	if n := len(collect(t, w.Reader().Records(ix))); n != 500 {
		t.Errorf("%d records", n)
	}
}
