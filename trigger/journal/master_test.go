package journal_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/envelope"
	"github.com/mirrorbus/mirrorbus/internal/export"
	"github.com/mirrorbus/mirrorbus/trigger/journal"
	"github.com/mirrorbus/mirrorbus/trigger/manifest"
)

// master is a journal with a tree that it exports.
type master struct {
	*journal.Journal
	*journal.Exporter
	epoch event.Epoch
	state string
	tree  string
	man   *manifest.Manifest
	now   time.Time
}

func newMaster(t testing.TB, o journal.ExportOptions) *master {
	t.Helper()
	m := &master{state: t.TempDir(), tree: t.TempDir(), now: start}
	jo := options(t)
	jo.Now = func() time.Time { return m.now }
	m.Journal, m.epoch = open(t, m.state, jo)
	if o.Manifest == nil {
		var err error
		m.man, err = manifest.Open(t.Context(), filepath.Join(m.state, "manifest.db"), module, manifest.Options{ShardEntries: 16})
		check(t, err)
		t.Cleanup(func() { check(t, m.man.Close()) })
		o.Manifest = m.man
	}
	o.Module, o.Tree = module, m.tree
	e, err := m.NewExporter(t.Context(), o)
	check(t, err)
	t.Cleanup(func() { check(t, e.Close()) })
	m.Exporter = e
	return m
}

func (m *master) dir() string { return filepath.Join(m.tree, event.ExportDir) }

// publish writes files and announces them; it does not export.
func (m *master) publish(t testing.TB, names ...string) journal.Appended {
	t.Helper()
	for _, name := range names {
		check(t, os.WriteFile(filepath.Join(m.tree, name), []byte(name), 0o644))
	}
	a, err := m.Append(t.Context(), write(names...))
	check(t, err)
	return a
}

func readHead(t testing.TB, dir string) event.Head {
	t.Helper()
	r, err := export.OpenReader(dir)
	check(t, err)
	defer r.Close() //nolint:errcheck // only read
	h, err := lookAtHead(r)
	check(t, err)
	return h
}

func lookAtHead(r *export.Reader) (event.Head, error) {
	line, err := r.Head()
	if err != nil {
		return event.Head{}, err
	}
	read, err := event.Read(line)
	if err != nil {
		return event.Head{}, err
	}
	return *read.Head, nil
}

// consistent reads an export folder as a mirror would, from the head down: the manifest that it names, and from that every entry up to the head.
func consistent(dir string) (event.Head, error) {
	r, err := export.OpenReader(dir)
	if err != nil {
		return event.Head{}, err
	}
	defer r.Close() //nolint:errcheck // only read
	h, err := lookAtHead(r)
	if err != nil {
		return h, err
	}
	next, last := event.Serial(1), event.Digest{}
	if !h.Manifest.IsZero() {
		ix, err := r.Manifest(h.Manifest)
		if err != nil {
			return h, err
		}
		for _, err := range r.Records(ix) {
			if err != nil {
				return h, err
			}
		}
		next = ix.Serial + 1
	}
	if next > h.Serial {
		return h, nil
	}
	for e, err := range r.Entries(h.Epoch, next) {
		if err != nil {
			return h, err
		}
		said, err := event.Read(e.Line)
		if err != nil {
			return h, err
		}
		if _, err := envelope.PathSet(e.Set, said.Announcement.Set); err != nil {
			return h, err
		}
		if next = e.Serial + 1; e.Serial == h.Serial {
			last = e.Digest
			break
		}
	}
	if next != h.Serial+1 || last != h.Last {
		return h, fmt.Errorf("head names serial %d line %s, entries end at %d line %s", h.Serial, h.Last, next-1, last)
	}
	return h, nil
}
