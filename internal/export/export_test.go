package export_test

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

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
