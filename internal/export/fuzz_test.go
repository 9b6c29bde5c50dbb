package export

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/envelope"
)

// FuzzEntry: an entry that is taken is of the serial and epoch under whose name it lay, its digests are those of its line, and nothing of the file
// is dropped.
func FuzzEntry(f *testing.F) {
	const line = "mirrorbus1 change module=m epoch=0123abcd serial=1 at=2026-11-20T19:00:00Z n=0 set=- prev=- key=AAAAAAAAAAA sig=AAAA"
	f.Add([]byte(line+"\n"), "0123abcd", uint64(1))
	f.Add([]byte(line+"\nset"), "0123abcd", uint64(1))
	f.Add([]byte(strings.Replace(line, " change ", " head ", 1)), "0123abcd", uint64(2))
	f.Fuzz(func(t *testing.T, body []byte, epoch string, serial uint64) {
		e, err := decodeEntry(body, event.Epoch(epoch), event.Serial(serial))
		if err != nil {
			if !errors.Is(err, event.ErrFormat) && !errors.Is(err, event.ErrRefused) {
				t.Errorf("not a typed error: %v", err)
			}
			return
		}
		said, err := event.Read(e.Line)
		if err != nil || said.Announcement == nil || e.Serial != said.Announcement.Serial || uint64(e.Serial) != serial || string(said.Announcement.Epoch) != epoch {
			t.Fatalf("%q is read as %+v: %v", body, e, err)
		}
		if e.Digest != said.Digest || e.Prev != said.Announcement.Prev {
			t.Errorf("%q has the digests %s and %s", body, e.Digest, e.Prev)
		}
		if again := envelope.Encode(e.Line, e.Set); !bytes.Equal(again, body) && !bytes.Equal(bytes.TrimSuffix(again, []byte("\n")), body) {
			t.Errorf("%q became %q", body, again)
		}
	})
}

// FuzzHead: a head file that is taken is one line and nothing else.
func FuzzHead(f *testing.F) {
	f.Add([]byte("line\n"))
	f.Add([]byte("line"))
	f.Add([]byte("a\nb\n"))
	f.Add(bytes.Repeat([]byte("x"), event.MaxLine+2))
	dir := f.TempDir()
	r, err := OpenReader(dir)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		if err := r.Close(); err != nil {
			f.Error(err)
		}
	})
	f.Fuzz(func(t *testing.T, file []byte) {
		if err := os.WriteFile(filepath.Join(dir, HeadFile), file, 0o600); err != nil {
			t.Fatal(err)
		}
		line, err := r.Head()
		if err != nil {
			if !errors.Is(err, event.ErrFormat) {
				t.Errorf("not a format error: %v", err)
			}
			return
		}
		if string(line)+"\n" != string(file) || len(line) == 0 || len(line) > event.MaxLine || bytes.ContainsRune(line, '\n') {
			t.Errorf("%q is read as %q", file, line)
		}
	})
}
