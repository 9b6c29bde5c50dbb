package journal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/envelope"
	"github.com/mirrorbus/mirrorbus/internal/export"
	"github.com/mirrorbus/mirrorbus/internal/failpoint"
	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/trigger/manifest"
)

// putEntries writes the entries that are not in the folder up to st. Those up to its head are there, since the head was written last; that is believed but
// for the first time, because somebody may have tidied up while nobody looked.
func (e *Exporter) putEntries(ctx context.Context, st State, head event.Head) error {
	after := max(head.Serial, st.Floor-1)
	if !e.complete {
		for after = st.Floor - 1; after < head.Serial && e.w.HasEntry(st.Epoch, after+1); {
			after++
		}
	}
	var puts errgroup.Group // side by side, since each waits for the disk, which can serve many at once
	puts.SetLimit(entriesAtOnce)
	var readErr error
	for s, err := range e.j.Since(ctx, st.Module, st.Epoch, after) {
		if readErr = err; err != nil || s.Announcement.Serial > st.Serial {
			break
		}
		failpoint.Here("export.entry")
		puts.Go(func() error { return e.w.PutEntry(st.Epoch, s.Announcement.Serial, s.Line, s.Set) })
	}
	if err := errors.Join(readErr, puts.Wait()); err != nil {
		return err
	}
	e.complete = true
	return nil
}

// entriesAtOnce bounds the files that are written at once, and with them the path sets that are held.
const entriesAtOnce = 16

// putHead writes the head that names st, unless old, the one there, says the same and is young.
func (e *Exporter) putHead(st State, old event.Head) error {
	now := e.j.o.Now()
	age := now.Sub(old.At)
	if old.Epoch == st.Epoch && old.Serial == st.Serial && old.Manifest == st.Manifest && old.TTL == st.ttl(e.o.HeadTTL, old.Hold) && st.says(old, now) &&
		age >= 0 && age < e.o.HeadEvery {
		return nil
	}
	line, _, err := e.j.sealHead(st, e.o.HeadTTL, now)
	if err != nil {
		return err
	}
	failpoint.Here("export.head")
	if err = e.w.PutHead(line); err == nil {
		failpoint.Here("export.headed")
	}
	return err
}

// pruneEvery is after how many serials it is looked for what can go, if no new manifest is a reason to.
const pruneEvery = 64

// prune removes what is no longer needed after st, which must still be the module's epoch: the entries of the next one are not to go.
func (e *Exporter) prune(ctx context.Context, st State, freshManifest bool) error {
	if !freshManifest && e.pruned != 0 && st.Serial < e.pruned+pruneEvery && st.Serial >= e.pruned {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	now, err := e.j.State(ctx, st.Module)
	if err != nil || now.Epoch != st.Epoch {
		return err
	}
	if _, err := e.j.Trim(ctx, st.Module, e.o.Keep); err != nil {
		return err
	}
	e.pruned = max(st.Serial, 1)
	// The folder keeps what the journal kept until now, for readers that are under way from an older head.
	return e.w.Prune(export.Keep{Epoch: st.Epoch, From: st.Floor, Manifest: st.Manifest, Grace: e.o.Grace, Now: time.Now()})
}

// updateManifest takes into the manifest what was announced, and exports it if that is due. fresh tells that it did, for the next head to name.
func (e *Exporter) updateManifest(ctx context.Context, w *export.Writer, st State, due bool) (fresh bool, err error) {
	m := e.o.Manifest
	if m == nil {
		return false, nil
	}
	pos, err := m.Position(ctx)
	switch {
	case errors.Is(err, manifest.ErrNotBuilt):
		return false, nil
	case err != nil:
		return false, err
	case pos.Epoch != st.Epoch || pos.Serial > st.Serial || pos.Serial+1 < st.Floor:
		return false, fault.With(fmt.Errorf("the manifest at serial %d of epoch %s does not lead on to the journal from serial %d to %d of epoch %s",
			pos.Serial, pos.Epoch, st.Floor, st.Serial, st.Epoch), fault.Config, "build the manifest again")
	}
	if err := e.applyManifest(ctx, st, pos); err != nil {
		return false, err
	}
	if due, err = e.manifestDue(ctx, st, due); err != nil || !due {
		return false, err
	}
	if st.Serial > event.Serial(e.o.Tombstones) {
		if err := m.Forget(ctx, st.Serial-event.Serial(e.o.Tombstones)); err != nil {
			return false, err
		}
	}
	ix, d, err := m.Export(ctx, w, st.Manifest)
	if err == nil {
		failpoint.Here("export.manifest")
		err = e.j.setManifest(ctx, st.Module, st.Epoch, ix.Serial, d)
	}
	return err == nil, err
}

// applyManifest brings the manifest from pos to st.
func (e *Exporter) applyManifest(ctx context.Context, st State, pos manifest.Position) error {
	if pos.Serial >= st.Serial {
		return nil
	}
	var before time.Time
	if last, err := e.j.Get(ctx, st.Module, pos.Serial); err == nil {
		before = last.Announcement.At
	} else if !errors.Is(err, ErrUnknownSerial) && !errors.Is(err, ErrTrimmed) {
		return err
	}
	for s, err := range e.j.Since(ctx, st.Module, st.Epoch, pos.Serial) {
		if err != nil {
			return err
		}
		if s.Announcement.Serial > st.Serial {
			break
		}
		ch := manifest.Change{Serial: s.Announcement.Serial, Before: before, At: s.Created}
		if s.Set != nil {
			if ch.Set, err = envelope.PathSet(s.Set, s.Announcement.Set); err != nil {
				return err
			}
			if s.Announcement.NotBefore > 0 {
				if ch.Set, err = asTheyAre(ch.Set, e.o.Tree); err != nil {
					return err
				}
			}
		}
		if _, err := e.o.Manifest.Apply(ctx, ch, e.o.Tree); err != nil {
			return err
		}
		before = s.Announcement.At
	}
	return nil
}

// asTheyAre gives the records of a flip that waits for its time the permissions that the tree has, which may not be those that are announced: whoever compares a
// tree with the manifest must not be ahead of the time.
func asTheyAre(set event.PathSet, tree string) (event.PathSet, error) {
	root, err := os.OpenRoot(tree)
	if err != nil {
		return nil, err
	}
	defer root.Close() //nolint:errcheck // only read from
	now := event.PathSet{}
	for _, r := range set {
		info, err := root.Lstat(r.Path)
		if err != nil {
			continue // gone, or not to be looked at: the manifest keeps what it has until it is announced again
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Mode&event.ModeType == r.Mode&event.ModeType {
			r.Mode = st.Mode
		}
		now = append(now, r)
	}
	return now, nil
}

// manifestDue tells whether the manifest is to be exported. asked says that somebody wants it.
func (e *Exporter) manifestDue(ctx context.Context, st State, asked bool) (bool, error) {
	news := st.Serial - st.ManifestSerial
	switch {
	case asked, st.Manifest.IsZero():
		return true, nil
	case news == 0:
		return false, nil
	case e.o.Every.Entries > 0 && news >= event.Serial(e.o.Every.Entries), e.j.o.Now().Sub(st.ManifestAt) >= e.o.Every.Age:
		return true, nil
	case e.o.Every.Bytes > 0:
		var bytes int64
		err := e.j.db.QueryRowContext(ctx, "SELECT coalesce(sum(size), 0) FROM entry WHERE module = ? AND epoch = ? AND serial > ?",
			st.Module, st.Epoch, st.ManifestSerial).Scan(&bytes)
		return err == nil && bytes >= e.o.Every.Bytes, err
	}
	return false, nil
}

// nameManifest makes st name no manifest if that one is not in the folder any more: a head must not.
func (e *Exporter) nameManifest(st State) (State, error) {
	if st.Manifest.IsZero() {
		return st, nil
	}
	_, err := e.w.Reader().Manifest(st.Manifest)
	if errors.Is(err, export.ErrNotExported) || errors.Is(err, event.ErrFormat) {
		st.Manifest, err = event.Digest{}, nil
	}
	return st, err
}
