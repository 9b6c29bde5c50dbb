// Package catchup reads what the upstream exports in a module's folder .mirrorbus/: its head, the journal a mirror missed, and the manifest, which it
// compares with the mirror's tree. That is how a mirror finds its way back whatever was lost.
//
// The cost is one connection and what was missed: with the head come the entries that may follow, asked for by name, or what is not here yet of
// the manifest. Nothing is believed
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
	"slices"
	"strings"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/export"
	"github.com/mirrorbus/mirrorbus/internal/filter"
	"github.com/mirrorbus/mirrorbus/listener"
	"github.com/mirrorbus/mirrorbus/listener/rsync"
)

// A Fetcher copies files of the upstream's module, or folders with what is below: names, relative to the module, to the same names below the folder
// into. It replaces what is there only if size or time differ, and sets the upstream's times. What the upstream lacks or just removes is left out and is no
// error; nor is a file larger than max bytes, which is named.
type Fetcher interface {
	Fetch(ctx context.Context, names []string, into string, max int64) (tooLarge []string, err error)
}

// Rsync fetches with a module's rsync.Runner.
type Rsync struct{ Runner *rsync.Runner }

// Fetch implements Fetcher. It is one connection for up to rsync.MaxNames names.
func (r Rsync) Fetch(ctx context.Context, names []string, into string, max int64) (tooLarge []string, err error) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	res, err := r.Runner.Run(ctx, rsync.Job{Mode: rsync.Fetch, Paths: names, Into: into, MaxSize: max, Progress: func(p rsync.Progress) {
		if p.Items > maxFetchFiles || p.Bytes > maxFetchBytes {
			stop(fmt.Errorf("the upstream's %s/ is larger than %d files or %d bytes", event.ExportDir, maxFetchFiles, maxFetchBytes))
		}
	}})
	if cause := context.Cause(ctx); cause != nil {
		return nil, cause
	}
	var failed *rsync.Error
	if errors.As(err, &failed) && failed.Class == rsync.Vanished {
		err = nil
	}
	return res.TooLarge, err
}

// A Source is the upstream of one module as this package reads it. One method may run at a time.
type Source struct {
	Module  event.Module
	Fetcher Fetcher
	From    string // where that is, for errors
	State   string // an absolute folder of its own, where the manifest is kept for next time

	Tree  string        // root of the mirrored tree
	Links []string      // symbolic links in it that stand for directories of the module
	Rules *filter.Rules // what of the module this mirror carries
	Mask  uint32        // permission bits that this mirror drops

	brought listener.Along // what came with the head, for the call that follows
}

// ErrGap says that the upstream's journal does not have what was asked for: it forgot, or never got so far.
var ErrGap = errors.New("gap in the upstream's journal")

// Caps in bytes.
const (
	maxHead    = 64 << 10  // the head, which is shorter; a web server's page in its place is to be seen and named
	maxEntry   = 16 << 20  // one journal entry; a larger one is left to the manifest
	maxJournal = 128 << 20 // all entries that one call returns

	maxFetchBytes = 2 << 30 // one connection; the manifest of a million files is 2 MiB
	maxFetchFiles = 100_000
)

// maxEntries is the most entries that one call asks for: 16 buckets.
const maxEntries = 1024

// export is where fetched files of .mirrorbus/ lie.
func (s *Source) export() string { return filepath.Join(s.State, event.ExportDir) }

// fetch brings files of .mirrorbus/, each at most max bytes.
func (s *Source) fetch(ctx context.Context, names []string, max int64) error {
	_, err := s.fetchUpTo(ctx, names, max)
	return err
}

// fetchUpTo is fetch; it returns which files are larger.
func (s *Source) fetchUpTo(ctx context.Context, names []string, max int64) (tooLarge []string, err error) {
	if err := os.MkdirAll(s.State, 0o700); err != nil {
		return nil, err
	}
	full := make([]string, len(names))
	for i, n := range names {
		full[i] = path.Join(event.ExportDir, n)
	}
	return s.Fetcher.Fetch(ctx, full, s.State, max)
}

// Head implements listener.CatchUp: head and what is brought along are one connection.
func (s *Source) Head(ctx context.Context, along listener.Along) ([]byte, error) {
	names, max := []string{export.HeadFile}, int64(maxHead)
	if err := s.forget(export.HeadFile, export.JournalDir); err != nil { // a head of the same size and second must not be taken for this one
		return nil, err
	}
	s.brought = listener.Along{}
	if along.From > 0 {
		along.To = min(along.To, along.From+maxEntries-1)
		names, max = append(names, entryNames(along.Epoch, along.From, along.To)...), maxEntry
	}
	if along.Manifest {
		names, max = append(names, export.NowDir), export.MaxShard
	}
	tooLarge, err := s.fetchUpTo(ctx, names, max)
	if err != nil {
		return nil, err
	}
	if slices.Contains(tooLarge, headFile) {
		return nil, s.noHead(fmt.Errorf("%w: it is larger than %d bytes, a head has %d at most", event.ErrFormat, max, event.MaxLine))
	}
	s.brought = along
	if along.Manifest {
		if err := s.adopt(); err != nil {
			return nil, err
		}
	}
	r, err := export.OpenReader(s.export())
	if err != nil {
		return nil, err
	}
	defer r.Close() //nolint:errcheck // only read
	line, err := r.Head()
	if errors.Is(err, event.ErrFormat) {
		err = s.noHead(err)
	}
	return line, err
}

// headFile is the head, in the module.
const headFile = event.ExportDir + "/" + export.HeadFile

// noHead says of what stands in the place of the head where that is.
func (s *Source) noHead(err error) error {
	return fmt.Errorf("%s/%s: %w; see what stands there, and whether upstream is set right", strings.TrimSuffix(s.From, "/"), headFile, err)
}

// Journal reads the entries of an epoch from one serial to another, in order and linked by their digests, as far as the upstream has them without a
// gap and a bound on their number and size allows. None at all is no error: it has forgotten the first. The lines are not verified.
func (s *Source) Journal(ctx context.Context, e event.Epoch, from, to event.Serial) ([]export.Entry, error) {
	if from == 0 || to < from {
		return nil, fmt.Errorf("journal of module %s from serial %d to %d: %w", s.Module, from, to, ErrGap)
	}
	to = min(to, from+maxEntries-1)
	if b := s.brought; b.Epoch == e && b.From > 0 && b.From <= from && from <= b.To {
		if entries, err := s.take(e, from, min(to, b.To)); err != nil || len(entries) > 0 {
			return entries, err
		} // else the head may have been written after its entries were looked for
	}
	if err := s.forget(export.JournalDir); err != nil {
		return nil, err
	}
	if err := s.fetch(ctx, entryNames(e, from, to), maxEntry); err != nil {
		return nil, err
	}
	return s.take(e, from, to)
}

func entryNames(e event.Epoch, from, to event.Serial) (names []string) {
	for n := from; n <= to; n++ {
		names = append(names, export.EntryFile(e, n))
	}
	return names
}

// take reads entries that were fetched and forgets them.
func (s *Source) take(e event.Epoch, from, to event.Serial) ([]export.Entry, error) {
	s.brought = listener.Along{}
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

// forget removes files or folders of what was fetched.
func (s *Source) forget(names ...string) error {
	root, err := os.OpenRoot(s.State)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, name := range names {
		err = errors.Join(err, root.RemoveAll(path.Join(event.ExportDir, name)))
	}
	return errors.Join(err, root.Close())
}

// skipped tells whether a path of the tree is not the module's: what belongs to mirrorbus, and where rsync keeps unfinished files.
func skipped(p string) bool {
	return p == event.ExportDir || strings.HasPrefix(p, rsync.TempPrefix) || path.Base(p) == partialDir
}

// partialDir is where a full rsync keeps unfinished files, in each directory.
const partialDir = ".rsync-partial"
