package catchup_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/export"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/listener"
	"github.com/mirrorbus/mirrorbus/listener/catchup"
)

var _ listener.Carrier = (*catchup.Source)(nil)

// tier is an export folder of a mirror that carries the master's on.
func tier(t *testing.T) (*export.Writer, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), event.ExportDir)
	w, err := export.OpenWriter(dir)
	check(t, err)
	t.Cleanup(func() { check(t, w.Close()) })
	return w, dir
}

// carried reads what a tier below finds of a manifest.
func carried(t *testing.T, dir string, d event.Digest) []string {
	t.Helper()
	r, err := export.OpenReader(dir)
	check(t, err)
	defer func() { check(t, r.Close()) }()
	ix, err := r.Manifest(d)
	check(t, err)
	var all []string
	for rec, err := range r.Records(ix) {
		check(t, err)
		all = append(all, fmt.Sprint(rec.Path, " ", rec.Serial))
	}
	return all
}

// A mirror hands on exactly the manifest that the head names. What is here already is not fetched again.
func TestCarry(t *testing.T) {
	w := newWorld(t)
	testenv.WriteTree(t, w.master, testenv.File("a", "1"), testenv.Dir("d", 0o755), testenv.File("d/b", "2"), testenv.File("z", "3"))
	head := w.manifest(w.records(4), 2)
	into, dir := tier(t)
	check(t, w.src.Carry(t.Context(), head, into))
	want := fmt.Sprint([]string{"a 4", "d 4", "d/b 4", "z 4"})
	if got := fmt.Sprint(carried(t, dir, head.Manifest)); got != want {
		t.Errorf("carried %s, want %s", got, want)
	}
	fetched := len(w.asked)
	check(t, w.src.Carry(t.Context(), head, into))
	if len(w.asked) != fetched {
		t.Errorf("what is here was fetched again: %q", w.asked[fetched:])
	}
	testenv.WriteTree(t, w.master, testenv.File("zz", "new"))
	head = w.manifest(w.records(4), 2)
	check(t, w.src.Carry(t.Context(), head, into))
	want = fmt.Sprint([]string{"a 4", "d 4", "d/b 4", "z 4", "zz 4"})
	if got := fmt.Sprint(carried(t, dir, head.Manifest)); got != want {
		t.Errorf("then carried %s, want %s", got, want)
	}
	if got := w.asked[fetched:]; len(got) != 1 {
		t.Errorf("for it was fetched %q", got)
	}
}

func TestCarryWhatIsNotThere(t *testing.T) {
	w := newWorld(t)
	testenv.WriteTree(t, w.master, testenv.File("a", "1"))
	head := w.manifest(w.records(4), 2)
	index := export.IndexFile(head.Manifest)
	for _, name := range []string{index, filepath.Join(export.NowDir, filepath.Base(index))} {
		check(t, os.Remove(filepath.Join(w.master, event.ExportDir, name)))
	}
	into, dir := tier(t)
	if err := w.src.Carry(t.Context(), head, into); err == nil {
		t.Error("a manifest that the upstream has not was carried")
	}
	if _, err := os.Stat(filepath.Join(dir, export.IndexFile(head.Manifest))); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something of it was written: %v", err)
	}
	if err := w.src.Carry(t.Context(), w.head(9, event.Digest{}), into); err == nil {
		t.Error("a head that names no manifest was carried")
	}
}

// A part that was damaged here is not handed on; it is fetched anew.
func TestCarryOfDamagedParts(t *testing.T) {
	w := newWorld(t)
	testenv.WriteTree(t, w.master, testenv.File("a", "1"))
	head := w.manifest(w.records(4), 2)
	first, _ := tier(t)
	check(t, w.src.Carry(t.Context(), head, first))
	parts, err := filepath.Glob(filepath.Join(w.src.State, "*", "manifest", "*.zst"))
	check(t, err)
	if len(parts) == 0 {
		t.Fatal("no part is kept in the state folder")
	}
	for _, p := range parts {
		check(t, os.Chmod(p, 0o644))
		check(t, os.WriteFile(p, []byte("damaged"), 0o644))
	}
	into, dir := tier(t)
	check(t, w.src.Carry(t.Context(), head, into))
	if got := fmt.Sprint(carried(t, dir, head.Manifest)); got != "[a 4]" {
		t.Errorf("carried %s", got)
	}
}
