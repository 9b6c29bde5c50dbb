package export_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/export"
)

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
