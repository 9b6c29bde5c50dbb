// Package catchup reads what the upstream exports in a module's folder .mirrorbus/: its head, the journal a mirror missed, and the manifest, which it
// compares with the mirror's tree. That is how a mirror finds its way back whatever was lost.
//
// The cost is that of what was missed: entries are asked for by name, and of a manifest only the shards that are not here yet. Nothing is believed
// because it came from the upstream: lines are returned as read, for a gate to verify; a manifest counts because a verified head names
// its digest, a shard because the index names its digest, and what was fetched and is not so is thrown away.
package catchup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/export"
	"github.com/mirrorbus/mirrorbus/internal/filter"
	"github.com/mirrorbus/mirrorbus/listener/rsync"
)

// A Fetcher copies files of the upstream's module: names, relative to the module, to the same names below the folder into. It replaces what is
// there only if size or time differ, and sets the upstream's times. A name that the upstream lacks, and a file larger than max bytes, is left out and is no error.
type Fetcher interface {
	Fetch(ctx context.Context, names []string, into string, max int64) error
}

// Rsync fetches with a module's rsync.Runner.
type Rsync struct{ Runner *rsync.Runner }

// Fetch implements Fetcher. It is one connection for up to rsync.MaxNames names.
func (r Rsync) Fetch(ctx context.Context, names []string, into string, max int64) error {
	_, err := r.Runner.Run(ctx, rsync.Job{Mode: rsync.Fetch, Paths: names, Into: into, MaxSize: max})
	return err
}

// A Source is the upstream of one module as this package reads it. One method may run at a time.
type Source struct {
	Module  event.Module
	Fetcher Fetcher
	State   string // an absolute folder of its own, where the manifest is kept for next time

	Tree  string        // root of the mirrored tree
	Links []string      // symbolic links in it that stand for directories of the module
	Rules *filter.Rules // what of the module this mirror carries
	Mask  uint32        // permission bits that this mirror drops
}

// ErrGap says that the upstream's journal does not have what was asked for: it forgot, or never got so far.
var ErrGap = errors.New("gap in the upstream's journal")

// Caps in bytes.
const (
	maxEntry   = 16 << 20  // one journal entry; a larger one is left to the manifest
	maxJournal = 128 << 20 // all entries that one call returns
)

// maxEntries is the most entries that one call asks for: 16 buckets.
const maxEntries = 1024

// export is where fetched files of .mirrorbus/ lie.
func (s *Source) export() string { return filepath.Join(s.State, event.ExportDir) }

// fetch brings files of .mirrorbus/, each at most max bytes.
func (s *Source) fetch(ctx context.Context, names []string, max int64) error {
	if err := os.MkdirAll(s.State, 0o700); err != nil {
		return err
	}
	full := make([]string, len(names))
	for i, n := range names {
		full[i] = path.Join(event.ExportDir, n)
	}
	return s.Fetcher.Fetch(ctx, full, s.State, max)
}

// Head reads the upstream's head line, not verified. The error Is export.ErrNotExported if it has none.
func (s *Source) Head(ctx context.Context) ([]byte, error) {
	if err := s.forget(export.HeadFile); err != nil { // a head of the same size and second must not be taken for this one
		return nil, err
	}
	if err := s.fetch(ctx, []string{export.HeadFile}, event.MaxLine+1); err != nil {
		return nil, err
	}
	r, err := export.OpenReader(s.export())
	if err != nil {
		return nil, err
	}
	defer r.Close() //nolint:errcheck // only read
	return r.Head()
}

// Journal reads the entries of an epoch from one serial to another, in order and linked by their digests, as far as the upstream has them without a
// gap and a bound on their number and size allows. None at all is no error: it has forgotten the first. The lines are not verified.
func (s *Source) Journal(ctx context.Context, e event.Epoch, from, to event.Serial) ([]export.Entry, error) {
	if from == 0 || to < from {
		return nil, fmt.Errorf("journal of module %s from serial %d to %d: %w", s.Module, from, to, ErrGap)
	}
	to = min(to, from+maxEntries-1)
	var names []string
	for n := from; n <= to; n++ {
		names = append(names, export.EntryFile(e, n))
	}
	if err := s.forget(export.JournalDir); err != nil {
		return nil, err
	}
	if err := s.fetch(ctx, names, maxEntry); err != nil {
		return nil, err
	}
	entries, err := s.entries(e, from, to)
	return entries, errors.Join(err, s.forget(export.JournalDir))
}

func (s *Source) entries(e event.Epoch, from, to event.Serial) ([]export.Entry, error) {
	r, err := export.OpenReader(s.export())
	if errors.Is(err, export.ErrNotExported) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer r.Close() //nolint:errcheck // only read
	var entries []export.Entry
	size := 0
	for entry, err := range r.Entries(e, from) {
		if err != nil {
			return entries, err
		}
		if size += len(entry.Set); size > maxJournal && len(entries) > 0 || entry.Serial > to {
			break
		}
		entries = append(entries, entry)
	}
	return entries, nil
}

// forget removes a file or folder of what was fetched.
func (s *Source) forget(name string) error {
	root, err := os.OpenRoot(s.State)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(root.RemoveAll(path.Join(event.ExportDir, name)), root.Close())
}

// skipped tells whether a path of the tree is not the module's: what belongs to mirrorbus, and where rsync keeps unfinished files.
func skipped(p string) bool {
	return p == event.ExportDir || strings.HasPrefix(p, rsync.TempPrefix) || path.Base(p) == partialDir
}

// partialDir is where a full rsync keeps unfinished files, in each directory.
const partialDir = ".rsync-partial"
