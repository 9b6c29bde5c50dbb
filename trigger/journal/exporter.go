package journal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/export"
	"github.com/mirrorbus/mirrorbus/trigger/manifest"
)

// ExportOptions say how a module is exported. Zero durations and counts take the defaults named.
type ExportOptions struct {
	Module event.Module
	Tree   string // root of the module
	Dir    string // the export folder; .mirrorbus in Tree if empty

	// Manifest is what is kept and exported of the tree; nil for none. Until it is built the heads name no manifest.
	Manifest *manifest.Manifest

	Keep       Retention
	Tombstones int           // removed paths stay in the manifest for this many serials; 100,000
	Grace      time.Duration // a replaced manifest stays readable this long; an hour
	HeadEvery  time.Duration // a head is signed anew when it is this old; 5 minutes
	HeadTTL    time.Duration // and holds this long; 15 minutes
	Every      Every
}

// Every says when the manifest is exported anew: as soon as one of these is reached since the last time and there is news. Keep.Count counts as a
// limit of Entries too, since the journal is kept back to the exported manifest.
type Every struct {
	Entries int           // announcements; 0: no limit
	Bytes   int64         // of their lines and path sets; 0: no limit
	Age     time.Duration // an hour if 0
}

func (o *ExportOptions) fill() {
	if o.Dir == "" {
		o.Dir = filepath.Join(o.Tree, event.ExportDir)
	}
	if o.Tombstones == 0 {
		o.Tombstones = 100_000
	}
	for d, value := range map[*time.Duration]time.Duration{
		&o.Grace: time.Hour, &o.HeadEvery: 5 * time.Minute, &o.HeadTTL: 15 * time.Minute, &o.Every.Age: time.Hour,
	} {
		if *d == 0 {
			*d = value
		}
	}
	if n := o.Keep.Count; n > 0 && (o.Every.Entries == 0 || n < o.Every.Entries) {
		o.Every.Entries = n
	}
}

// An Exporter brings the export folder of one module up to date with the journal.
type Exporter struct {
	j *Journal
	o ExportOptions

	upkeep sync.Mutex   // held by Export and ExportManifest, which may take long
	pruned event.Serial // at this serial it was last looked for what can go

	mu       sync.Mutex // held by Advance and its like, and never for long
	w        *export.Writer
	complete bool // that all entries are there has been looked at
}

// NewExporter opens or makes the export folder. If the folder shows that the journal was restored from a backup, the error Is ErrRestored and the module
// takes no announcement until NewEpoch: so make the exporter before the first Append.
func (j *Journal) NewExporter(ctx context.Context, o ExportOptions) (*Exporter, error) {
	o.fill()
	e := &Exporter{j: j, o: o}
	if err := e.begin(ctx); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return e, nil
}

func (e *Exporter) begin(ctx context.Context) error {
	if info, err := os.Stat(e.o.Tree); err != nil {
		return fmt.Errorf("module %s: %w", e.o.Module, err)
	} else if !info.IsDir() {
		return fmt.Errorf("module %s: %s is no directory", e.o.Module, e.o.Tree)
	}
	st, err := e.j.State(ctx, e.o.Module)
	if err != nil {
		return err
	}
	if err := e.open(); err != nil {
		return err
	}
	_, err = e.exported(ctx, st)
	return err
}

// Close frees the folder. No other method may be under way.
func (e *Exporter) Close() error {
	if e.w == nil {
		return nil
	}
	return e.w.Close()
}

// Advance writes what mirrors wait for: the entries that are not in the folder, then the head. It costs what is new, and does not wait for an Export that is
// under way. It decides from what is stored, so it repairs whatever a crash left undone.
func (e *Exporter) Advance(ctx context.Context) error {
	_, _, err := e.advance(ctx)
	return e.explain(err)
}

// Export is Advance, and then the upkeep: it takes what was announced into the manifest, which may mean to look at directories, exports the manifest if it is
// due, and removes what is no longer needed. A manifest that cannot be brought up to date is an error, but does not keep announcements back.
func (e *Exporter) Export(ctx context.Context) error { return e.explain(e.update(ctx, false)) }

// ExportManifest is Export with a manifest that is due.
func (e *Exporter) ExportManifest(ctx context.Context) error { return e.explain(e.update(ctx, true)) }

func (e *Exporter) explain(err error) error {
	if errors.Is(err, ErrRestored) {
		return err
	}
	return wrap(err, "export module %s", e.o.Module)
}

// BuildManifest walks the tree and exports the manifest that this gives. Announcements go on meanwhile, with heads that name the manifest before.
func (e *Exporter) BuildManifest(ctx context.Context, progress func(manifest.Progress)) (manifest.Progress, error) {
	if e.o.Manifest == nil {
		return manifest.Progress{}, fmt.Errorf("module %s: no manifest is kept", e.o.Module)
	}
	st, err := e.j.State(ctx, e.o.Module)
	if err != nil {
		return manifest.Progress{}, err
	}
	p, err := e.o.Manifest.Build(ctx, e.o.Tree, st.Epoch, st.Serial, progress)
	if err != nil {
		return p, err
	}
	return p, e.ExportManifest(ctx)
}

// advance returns what the folder leads to now, and its Writer.
func (e *Exporter) advance(ctx context.Context) (State, *export.Writer, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	st, err := e.j.State(ctx, e.o.Module)
	if err != nil {
		return st, nil, err
	}
	if err := e.open(); err != nil {
		return st, nil, err
	}
	head, err := e.exported(ctx, st)
	if err != nil {
		return st, e.w, err
	}
	if err := e.putEntries(ctx, st, head); err != nil {
		return st, e.w, err
	}
	if st, err = e.nameManifest(st); err != nil {
		return st, e.w, err
	}
	return st, e.w, e.putHead(st, head)
}

func (e *Exporter) update(ctx context.Context, manifestDue bool) error {
	e.upkeep.Lock()
	defer e.upkeep.Unlock()
	st, w, err := e.advance(ctx)
	if err != nil {
		return err
	}
	fresh, manifestErr := e.updateManifest(ctx, w, st, manifestDue)
	if fresh {
		if st, _, err = e.advance(ctx); err != nil {
			return errors.Join(err, manifestErr)
		}
	}
	return errors.Join(e.prune(ctx, st, fresh), manifestErr)
}

// open opens the folder, again if it was replaced.
func (e *Exporter) open() error {
	if e.w != nil && e.w.Current() {
		return nil
	}
	err := e.Close()
	e.w, e.complete = nil, false
	if err != nil {
		return err
	}
	e.w, err = export.OpenWriter(e.o.Dir)
	return err
}

// exported is the head in the folder, zero if there is none of this epoch. It makes sure that the journal knows all that was exported.
func (e *Exporter) exported(ctx context.Context, st State) (event.Head, error) {
	if st.Restored != "" {
		return event.Head{}, restored(st.Module, st.Restored)
	}
	var head event.Head
	line, err := e.w.Reader().Head()
	switch {
	case errors.Is(err, export.ErrNotExported), errors.Is(err, event.ErrFormat): // it will be written anew
	case err != nil:
		return event.Head{}, err
	default:
		if read, err := event.Read(line); err == nil && read.Head != nil && read.Head.Module == st.Module && read.Head.Epoch == st.Epoch {
			head = *read.Head
		}
	}
	why, err := e.unknown(ctx, st, head)
	if why != "" {
		err = e.j.markRestored(ctx, st.Module, why)
	}
	return head, err
}

// unknown says what the folder holds that the journal does not know, or "".
func (e *Exporter) unknown(ctx context.Context, st State, head event.Head) (string, error) {
	switch {
	case head.Serial > st.Serial:
		return fmt.Sprintf("serial %d of epoch %s was exported, the journal is at serial %d", head.Serial, st.Epoch, st.Serial), nil
	case st.Serial < event.MaxSerial && e.w.HasEntry(st.Epoch, st.Serial+1):
		return fmt.Sprintf("serial %d of epoch %s was exported, the journal is at serial %d", st.Serial+1, st.Epoch, st.Serial), nil
	case head.Serial == 0:
		return "", nil
	}
	known, err := e.j.Get(ctx, st.Module, head.Serial)
	switch {
	case errors.Is(err, ErrTrimmed):
		return "", nil
	case err == nil && known.Digest != head.Last:
		return fmt.Sprintf("serial %d of epoch %s was exported with another line than the journal has", head.Serial, st.Epoch), nil
	}
	return "", err
}
