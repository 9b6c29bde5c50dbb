package catchup_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/envelope"
	"github.com/mirrorbus/mirrorbus/internal/export"
	"github.com/mirrorbus/mirrorbus/listener"
	"github.com/mirrorbus/mirrorbus/listener/catchup"
)

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
