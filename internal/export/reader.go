package export

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/envelope"
)

// A Reader reads one export folder.
type Reader struct {
	root *os.Root
}

// OpenReader opens an export folder; the error Is ErrNotExported if there is none.
func OpenReader(dir string) (*Reader, error) {
	root, err := open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", ErrNotExported, err)
	}
	if err != nil {
		return nil, err
	}
	return &Reader{root}, nil
}

// Close frees the folder.
func (r *Reader) Close() error { return r.root.Close() }

// Head returns the head line, unverified.
func (r *Reader) Head() ([]byte, error) {
	b, err := readFile(r.root, HeadFile, event.MaxLine+1)
	if err != nil {
		return nil, err
	}
	line, ok := bytes.CutSuffix(b, []byte("\n"))
	if !ok || len(line) == 0 || bytes.IndexByte(line, '\n') >= 0 {
		return nil, fmt.Errorf("%w: head file must be one line", event.ErrFormat)
	}
	return line, nil
}

// An Entry is one announcement of the journal: its line, unverified, and its path set as it travels (nil if there is none in the journal).
type Entry struct {
	Serial event.Serial
	Line   []byte
	Digest event.Digest // of Line
	Prev   event.Digest // what Line says of the line before it
	Set    []byte       // compressed; see envelope.PathSet
}

// Entry returns the entry of a serial. Its line says that it is that serial of that epoch; whether it is true is still to be verified.
func (r *Reader) Entry(e event.Epoch, s event.Serial) (Entry, error) {
	if s == 0 || s > event.MaxSerial {
		return Entry{}, fmt.Errorf("%w: serial %d has no entry", ErrNotExported, s)
	}
	name := EntryFile(e, s)
	body, err := readFile(r.root, name, envelope.MaxBody)
	if err != nil {
		return Entry{}, err
	}
	entry, err := decodeEntry(body, e, s)
	if err != nil {
		return Entry{}, fmt.Errorf("journal entry %s: %w", name, err)
	}
	return entry, nil
}

func decodeEntry(body []byte, e event.Epoch, s event.Serial) (Entry, error) {
	line, set, err := envelope.Decode(body)
	if err != nil {
		return Entry{}, err
	}
	said, err := event.Read(line)
	if err != nil {
		return Entry{}, err
	}
	a := said.Announcement
	if a == nil || a.Epoch != e || a.Serial != s {
		return Entry{}, fmt.Errorf("%w: its line is not serial %d of epoch %s", event.ErrFormat, s, e)
	}
	return Entry{Serial: s, Line: line, Digest: said.Digest, Prev: a.Prev, Set: set}, nil
}

// Entries yields the entries from a serial on, in order, up to the last one that is there. Each names the digest of the one before it; where that is
// not so, an error is yielded and the sequence ends. It yields nothing if from itself is not there.
func (r *Reader) Entries(e event.Epoch, from event.Serial) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		var before event.Digest
		for s := from; ; s++ {
			entry, err := r.Entry(e, s)
			if errors.Is(err, ErrNotExported) {
				return
			}
			if err == nil && s > from && entry.Prev != before {
				err = fmt.Errorf("%w: journal entry %d follows another line than entry %d is", event.ErrFormat, s, s-1)
			}
			if !yield(entry, err) || err != nil {
				return
			}
			before = entry.Digest
		}
	}
}

// Manifest returns the index with this digest.
func (r *Reader) Manifest(d event.Digest) (Index, error) {
	b, err := readFile(r.root, IndexFile(d), MaxIndex)
	if err != nil {
		return Index{}, err
	}
	if got := event.Sum(b); got != d {
		return Index{}, fmt.Errorf("%w: manifest index %s: its digest is %s", event.ErrFormat, d, got)
	}
	return DecodeIndex(b)
}
