package replay

import (
	"crypto/ed25519"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/envelope"
	"github.com/mirrorbus/mirrorbus/internal/export"
)

// A master exports announcements for a watcher to read.
type master struct {
	t      *testing.T
	w      *export.Writer
	signer ssh.Signer
	serial event.Serial
	prev   event.Digest
}

const (
	epoch  = event.Epoch("0123abcd")
	module = event.Module("m")
)

var began = time.Date(2026, 11, 20, 19, 0, 0, 0, time.UTC)

func newMaster(t *testing.T, dir string) *master {
	t.Helper()
	w, err := export.OpenWriter(dir)
	check(t, err)
	t.Cleanup(func() { check(t, w.Close()) })
	signer, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
	check(t, err)
	return &master{t: t, w: w, signer: signer}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// announce exports one announcement and the head; nil is one that says: see the manifest.
func (m *master) announce(set event.PathSet) {
	m.t.Helper()
	m.serial++
	a := event.Announcement{Kind: event.Change, Module: module, Epoch: epoch, Serial: m.serial, At: began, Prev: m.prev}
	var body []byte
	if set != nil {
		a.Set, a.Count, body = set.Digest(), len(set), envelope.Compress(set.Encode())
	}
	line, err := event.Seal(a, m.signer)
	check(m.t, err)
	said, err := event.Read(line)
	check(m.t, err)
	check(m.t, m.w.PutEntry(epoch, m.serial, line, body))
	m.prev = said.Digest
	head, err := event.Seal(event.Head{Module: module, Epoch: epoch, Serial: m.serial, At: began, TTL: time.Hour, Last: m.prev}, m.signer)
	check(m.t, err)
	check(m.t, m.w.PutHead(head))
}

// What is exported is what may change on mirrors, from the moment on at which it is.
func TestWhatIsExportedMayChange(t *testing.T) {
	for _, c := range []struct {
		name    string
		set     event.PathSet // nil: see the manifest
		covers  []string
		outside []string
	}{
		{"a file", event.PathSet{{Op: event.Write, Mode: event.ModeFile | 0o644, Path: "d/a"}}, []string{"d/a", "d", "d/a/b"}, []string{"d/b", "e"}},
		{"a directory's mode", event.PathSet{{Op: event.Meta, Mode: event.ModeDir | 0o700, Path: "d/e"}}, []string{"d/e", "d"}, []string{"d/e/a"}},
		{"what is gone", event.PathSet{{Op: event.Gone, Path: "d"}}, []string{"d", "d/a/b"}, []string{"e", "d2"}},
		{"a level", event.PathSet{{Op: event.Level, Path: "d"}}, []string{"d/a"}, []string{"e"}},
		{"a tree", event.PathSet{{Op: event.Tree, Path: "d"}}, []string{"d/a/b/c"}, []string{"e"}},
		{"a rename", event.PathSet{{Op: event.Renamed, Mode: event.ModeDir | 0o755, Path: "new/d", From: "old/d"}},
			[]string{"new/d/a", "old/d/a", "old/d", "new", "old"}, []string{"new/e", "old/e"}},
		{"see the manifest", nil, []string{"anything/at/all"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), event.ExportDir)
			seen := claims{exported: dir}
			check(t, seen.read()) // there is nothing yet
			m := newMaster(t, dir)
			m.announce(event.PathSet{{Op: event.Write, Mode: event.ModeFile | 0o644, Path: "before"}})
			check(t, seen.read())
			from := seen.dealt(1)
			for _, p := range c.covers {
				if seen.covers(p, from, false) {
					t.Errorf("%s may change before it is announced", p)
				}
			}
			m.announce(c.set)
			check(t, seen.read())
			for _, p := range c.covers {
				if !seen.covers(p, from, false) {
					t.Errorf("%s may not change", p)
				}
			}
			for _, p := range append(c.outside, "before") {
				if c.set != nil && seen.covers(p, from, false) {
					t.Errorf("%s may change", p)
				}
			}
			if seen.dealt(1) != 1 || seen.dealt(2) != 2 || !seen.covers("before", 0, false) {
				t.Errorf("%d and %d announcements are dealt with at serials 1 and 2", seen.dealt(1), seen.dealt(2))
			}
		})
	}
}
