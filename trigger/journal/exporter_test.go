package journal_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/export"
	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/trigger/journal"
)

func TestExport(t *testing.T) {
	m := newMaster(t, journal.ExportOptions{})
	check(t, m.Export(t.Context()))
	if h, err := consistent(m.dir()); err != nil || h.Serial != 0 || !h.Manifest.IsZero() {
		t.Errorf("before anything: %+v, %v", h, err)
	}
	m.publish(t, "a")
	m.publish(t, "b")
	check(t, m.Export(t.Context()))
	h, err := consistent(m.dir())
	if err != nil || h.Serial != 2 || h.Epoch != m.epoch {
		t.Errorf("%+v, %v", h, err)
	}
	_, err = m.BuildManifest(t.Context(), nil)
	check(t, err)
	if h, err := consistent(m.dir()); err != nil || h.Manifest.IsZero() {
		t.Errorf("with a manifest: %+v, %v", h, err)
	}
}

func TestHeadIsSignedAnewWithTime(t *testing.T) {
	m := newMaster(t, journal.ExportOptions{HeadEvery: 5 * time.Minute, HeadTTL: 15 * time.Minute})
	for _, step := range []struct {
		later time.Duration
		at    time.Time
	}{{0, start}, {4 * time.Minute, start}, {time.Minute, start.Add(5 * time.Minute)}, {-time.Hour, start.Add(-55 * time.Minute)}} {
		m.now = m.now.Add(step.later)
		check(t, m.Export(t.Context()))
		if h := readHead(t, m.dir()); !h.At.Equal(step.at) {
			t.Errorf("at %v: head of %v, want %v", m.now, h.At, step.at)
		}
	}
}

func TestManifestIsExportedWhenDue(t *testing.T) {
	for name, c := range map[string]struct {
		every journal.Every
		keep  journal.Retention
		later time.Duration
		after int // announcements
	}{
		"entries":   {every: journal.Every{Entries: 5}, after: 5},
		"bytes":     {every: journal.Every{Bytes: 500}, after: 2},
		"age":       {later: 30 * time.Minute, after: 2},
		"retention": {keep: journal.Retention{Count: 4}, after: 4},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMaster(t, journal.ExportOptions{Every: c.every, Keep: c.keep})
			_, err := m.BuildManifest(t.Context(), nil)
			check(t, err)
			first := readHead(t, m.dir()).Manifest
			for i := range c.after {
				if got := readHead(t, m.dir()).Manifest; got != first {
					t.Fatalf("after %d announcements there is a new one", i)
				}
				m.now = m.now.Add(c.later)
				m.publish(t, fmt.Sprint("f", i))
				check(t, m.Export(t.Context()))
			}
			h, err := consistent(m.dir())
			if err != nil || h.Manifest == first {
				t.Errorf("after %d announcements there is none: %v", c.after, err)
			}
		})
	}
}

func TestManifestOnRequestHoldsWhatWasAnnounced(t *testing.T) {
	m := newMaster(t, journal.ExportOptions{})
	_, err := m.BuildManifest(t.Context(), nil)
	check(t, err)
	m.publish(t, "a")
	check(t, os.Remove(filepath.Join(m.tree, "a")))
	_, err = m.Append(t.Context(), journal.Entry{Module: module, Kind: event.Change, Set: event.PathSet{{Op: event.Gone, Path: "a"}}})
	check(t, err)
	m.publish(t, "b")
	check(t, m.ExportManifest(t.Context()))
	h := readHead(t, m.dir())
	r, err := export.OpenReader(m.dir())
	check(t, err)
	defer r.Close() //nolint:errcheck // only read
	ix, err := r.Manifest(h.Manifest)
	check(t, err)
	var got []string
	for rec, err := range r.Records(ix) {
		check(t, err)
		got = append(got, fmt.Sprintf("%c%s@%d", rec.Op, rec.Path, rec.Serial))
	}
	if fmt.Sprint(got) != "[-a@2 +b@3]" || ix.Serial != 3 || ix.Floor != 0 || ix.Epoch != m.epoch {
		t.Errorf("got %v of %+v", got, ix)
	}
}

// Who compares a tree with the manifest is not ahead of a flip that waits for its time.
func TestManifestIsNotAheadOfTime(t *testing.T) {
	m := newMaster(t, journal.ExportOptions{})
	_, err := m.BuildManifest(t.Context(), nil)
	check(t, err)
	m.publish(t, "a")
	m.publish(t, "gone")
	check(t, os.Chmod(filepath.Join(m.tree, "a"), 0o640))
	shown := func(path string) event.Record {
		return event.Record{Op: event.Meta, Mode: event.ModeFile | 0o644, Path: path}
	}
	_, err = m.Append(t.Context(), journal.Entry{Module: module, Kind: event.Flip, NotBefore: time.Hour, Was: 0o640, Set: event.PathSet{shown("a"), shown("gone")}})
	check(t, err)
	check(t, os.Remove(filepath.Join(m.tree, "gone")))
	_, err = m.Append(t.Context(), journal.Entry{Module: module, Kind: event.Change, Set: event.PathSet{{Op: event.Gone, Path: "gone"}}})
	check(t, err)
	check(t, m.ExportManifest(t.Context()))
	r, err := export.OpenReader(m.dir())
	check(t, err)
	defer r.Close() //nolint:errcheck // only read
	ix, err := r.Manifest(readHead(t, m.dir()).Manifest)
	check(t, err)
	var got []string
	for rec, err := range r.Records(ix) {
		check(t, err)
		got = append(got, fmt.Sprintf("%c%s %o", rec.Op, rec.Path, rec.Mode&0o7777))
	}
	if want := "[+a 640 -gone 0]"; fmt.Sprint(got) != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

// The retention keeps what leads from the exported manifest to the head, in the database and in the folder.
func TestRetentionOfTheExport(t *testing.T) {
	m := newMaster(t, journal.ExportOptions{Keep: journal.Retention{Count: 20}})
	_, err := m.BuildManifest(t.Context(), nil)
	check(t, err)
	for i := range 200 {
		m.publish(t, fmt.Sprint("f", i))
		if i%3 == 0 {
			check(t, m.Export(t.Context()))
			if _, err := consistent(m.dir()); err != nil {
				t.Fatal(err)
			}
		}
	}
	check(t, m.ExportManifest(t.Context()))
	st, err := m.State(t.Context(), module)
	check(t, err)
	check(t, m.ExportManifest(t.Context())) // the folder keeps for one round longer what readers may be at
	if st.Floor < 150 || st.Floor > 181 {
		t.Errorf("floor %d", st.Floor)
	}
	r, err := export.OpenReader(m.dir())
	check(t, err)
	defer r.Close() //nolint:errcheck // only read
	if _, err := r.Entry(m.epoch, st.Floor-1); !errors.Is(err, export.ErrNotExported) {
		t.Errorf("below the floor: %v", err)
	}
	if _, err := r.Entry(m.epoch, st.Floor); err != nil {
		t.Errorf("at the floor: %v", err)
	}
}

// Whatever is missing from the folder, the next Export of a new process brings it back.
func TestExportRepairs(t *testing.T) {
	for name, harm := range map[string]func(m *master) error{
		"never exported": func(*master) error { return nil },
		"no head":        func(m *master) error { return os.Remove(filepath.Join(m.dir(), export.HeadFile)) },
		"torn head": func(m *master) error {
			return os.WriteFile(filepath.Join(m.dir(), export.HeadFile), []byte("mirror"), 0o644)
		},
		"an entry gone":   func(m *master) error { return os.Remove(filepath.Join(m.dir(), export.EntryFile(m.epoch, 3))) },
		"no journal":      func(m *master) error { return os.RemoveAll(filepath.Join(m.dir(), export.JournalDir)) },
		"no manifest":     func(m *master) error { return os.RemoveAll(filepath.Join(m.dir(), export.ManifestDir)) },
		"nothing left":    func(m *master) error { return os.RemoveAll(m.dir()) },
		"half-made entry": func(m *master) error { return os.WriteFile(filepath.Join(m.dir(), "journal", ".tmp-X"), nil, 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			m := newMaster(t, journal.ExportOptions{})
			_, err := m.BuildManifest(t.Context(), nil)
			check(t, err)
			for i := range 5 {
				m.publish(t, fmt.Sprint("f", i))
			}
			check(t, m.Export(t.Context()))
			m.publish(t, "last") // journalled, and then the process ended
			check(t, harm(m))
			again, err := m.NewExporter(t.Context(), journal.ExportOptions{Module: module, Tree: m.tree, Manifest: m.man})
			check(t, err)
			defer again.Close() //nolint:errcheck // it is the export that counts
			check(t, again.Advance(t.Context()))
			if h, err := consistent(m.dir()); err != nil || h.Serial != 6 {
				t.Errorf("after Advance: %+v, %v", h, err)
			}
			check(t, again.Export(t.Context()))
			h, err := consistent(m.dir())
			if err != nil || h.Serial != 6 || h.Manifest.IsZero() {
				t.Errorf("%+v, %v", h, err)
			}
		})
	}
}

// What mirrors wait for does not wait for the upkeep, and both together leave no gap.
func TestAdvanceDuringExport(t *testing.T) {
	m := newMaster(t, journal.ExportOptions{Every: journal.Every{Entries: 3}})
	_, err := m.BuildManifest(t.Context(), nil)
	check(t, err)
	ctx, stop := context.WithCancel(t.Context())
	var upkeep errgroup.Group
	upkeep.Go(func() error {
		for ctx.Err() == nil {
			if err := m.Export(t.Context()); err != nil {
				return err
			}
		}
		return nil
	})
	for i := range 60 {
		a := m.publish(t, fmt.Sprint("f", i))
		check(t, m.Advance(t.Context()))
		if h, err := consistent(m.dir()); err != nil || h.Serial < a.Announcement.Serial {
			t.Fatalf("serial %d: %+v, %v", a.Announcement.Serial, h, err)
		}
	}
	stop()
	check(t, upkeep.Wait())
}

func TestFolderRemovedWhileRunning(t *testing.T) {
	m := newMaster(t, journal.ExportOptions{})
	m.publish(t, "a")
	check(t, m.Export(t.Context()))
	check(t, os.RemoveAll(m.dir()))
	check(t, m.Export(t.Context()))
	if h, err := consistent(m.dir()); err != nil || h.Serial != 1 {
		t.Errorf("%+v, %v", h, err)
	}
}

func TestExportOutsideTheTree(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "meta")
	m := newMaster(t, journal.ExportOptions{Dir: dir})
	m.publish(t, "a")
	check(t, m.Export(t.Context()))
	if h, err := consistent(dir); err != nil || h.Serial != 1 {
		t.Errorf("%+v, %v", h, err)
	}
	if _, err := os.Stat(m.dir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("in the tree: %v", err)
	}
}

// A restored database would give out serials again that mirrors have seen with other content.
func TestRestoredBackup(t *testing.T) {
	for name, c := range map[string]struct {
		exported int // more announcements after the backup that were exported
		again    int // announcements after the restore, before anybody looked
		tidied   bool
	}{"behind": {3, 0, false}, "behind, and the entries are gone": {3, 0, true}, "another line": {2, 2, false}, "further on": {2, 4, false}} {
		t.Run(name, func(t *testing.T) {
			m := newMaster(t, journal.ExportOptions{})
			m.publish(t, "a")
			backup := t.TempDir()
			_, err := m.DB().Exec("VACUUM INTO ?", filepath.Join(backup, journal.DatabaseName))
			check(t, err)
			for i := range c.exported {
				m.publish(t, fmt.Sprint("lost", i))
			}
			check(t, m.Export(t.Context()))
			if c.tidied {
				check(t, os.RemoveAll(filepath.Join(m.dir(), export.JournalDir)))
			}

			j, epoch := open(t, backup, options(t))
			for i := range c.again {
				_, err := j.Append(t.Context(), write(fmt.Sprint("other", i)))
				check(t, err)
			}
			o := journal.ExportOptions{Module: module, Tree: m.tree}
			_, err = j.NewExporter(t.Context(), o)
			if !errors.Is(err, journal.ErrRestored) || !strings.Contains(err.Error(), string(epoch)) || !strings.Contains(fault.HintOf(err), "new epoch") {
				t.Fatalf("got %v, hint %q", err, fault.HintOf(err))
			}
			if _, err := j.Append(t.Context(), write("b")); !errors.Is(err, journal.ErrRestored) {
				t.Errorf("append: got %v", err)
			}
			if _, _, err := j.Head(t.Context(), module, time.Minute, start); !errors.Is(err, journal.ErrRestored) {
				t.Errorf("head: got %v", err)
			}
			_, err = j.NewEpoch(t.Context(), module)
			check(t, err)
			e, err := j.NewExporter(t.Context(), o)
			check(t, err)
			defer e.Close() //nolint:errcheck // it is the export that counts
			_, err = j.Append(t.Context(), write("b"))
			check(t, err)
			check(t, e.Export(t.Context()))
			if h, err := consistent(m.dir()); err != nil || h.Serial != 1 || h.Epoch == epoch {
				t.Errorf("%+v, %v", h, err)
			}
		})
	}
}

// A manifest that was lost with its state folder does not keep announcements back, and is asked for.
func TestManifestThatDoesNotLeadOn(t *testing.T) {
	m := newMaster(t, journal.ExportOptions{})
	_, err := m.BuildManifest(t.Context(), nil)
	check(t, err)
	epoch, err := m.NewEpoch(t.Context(), module)
	check(t, err)
	m.publish(t, "a")
	if err := m.Export(t.Context()); err == nil || !strings.Contains(fault.HintOf(err), "build the manifest again") {
		t.Errorf("got %v", err)
	}
	if h, err := consistent(m.dir()); err != nil || h.Serial != 1 || h.Epoch != epoch || !h.Manifest.IsZero() {
		t.Errorf("%+v, %v", h, err)
	}
	_, err = m.BuildManifest(t.Context(), nil)
	check(t, err)
	if h, err := consistent(m.dir()); err != nil || h.Manifest.IsZero() {
		t.Errorf("%+v, %v", h, err)
	}
}

func TestTreeMissing(t *testing.T) {
	j, _ := open(t, t.TempDir(), options(t))
	missing := filepath.Join(t.TempDir(), "missing")
	if _, err := j.NewExporter(t.Context(), journal.ExportOptions{Module: module, Tree: missing}); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), missing) {
		t.Errorf("got %v", err)
	}
}
