package listener

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/export"
	"github.com/mirrorbus/mirrorbus/listener/inbox"
)

// A Carrier is a CatchUp that can copy the manifest that a verified head names into an export folder. Without it a head that names a manifest is
// not carried on.
type Carrier interface {
	Carry(ctx context.Context, h event.Head, into *export.Writer) error
}

// How much of what is carried on is kept.
const (
	keepEntries  = 1000      // journal entries below the manifest's serial
	keepManifest = time.Hour // a manifest that was replaced, for readers in the middle of it
)

// entriesAtOnce bounds the files that are written at once.
const entriesAtOnce = 16

// exports tells whether the module is carried on for a tier below.
func (w *worker) exports() bool { return !w.m.NoExport && w.m.CatchUp != nil }

// exportEntries carries on the journal entries of what was applied. It may fail: a tier below then goes by the next manifest.
func (w *worker) exportEntries(ctx context.Context, rows ...inbox.Heard) {
	if !w.exports() {
		return
	}
	w.headDue.Store(true)
	w.notCarried(ctx, w.export(func(out *export.Writer) error {
		var puts errgroup.Group // side by side, since each waits for the disk, which can serve many at once
		puts.SetLimit(entriesAtOnce)
		for _, h := range rows {
			puts.Go(func() error { return out.PutEntry(h.Epoch, h.Serial, h.Line, h.Set) })
		}
		return puts.Wait()
	}))
}

// exportHead carries on the head, once everything it speaks of is applied and all that it names is here. The head must be the upstream's own
// newest: one signed for the serial that is applied here. It tells whether asking for that has shown that there is more to do.
func (w *worker) exportHead(ctx context.Context) (news bool) {
	if !w.exports() || !w.headDue.Swap(false) {
		return false
	}
	s, err := w.a.inbox.Look(ctx, w.m.Name)
	if err != nil || s.Epoch == "" || s.Quarantine != "" {
		return false // the loop meets the same
	}
	h := s.Head
	if h == nil || h.Epoch == s.Epoch && h.Serial < s.Applied {
		if h, err = w.upstreamHead(ctx, Along{}); err != nil {
			w.notCarried(ctx, err)
			return false
		}
		news = h.Epoch != s.Epoch || h.Serial > s.Applied
	}
	if h.Epoch == s.Epoch && h.Serial == s.Applied {
		w.notCarried(ctx, w.export(func(out *export.Writer) error { return w.putHead(ctx, out, h) }))
	}
	return news
}

func (w *worker) putHead(ctx context.Context, out *export.Writer, h *inbox.Head) error {
	keep := export.Keep{Epoch: h.Epoch, Manifest: h.Manifest, Grace: keepManifest, Now: w.a.o.Now()}
	if !h.Manifest.IsZero() {
		if c, ok := w.m.CatchUp.(Carrier); ok {
			if err := c.Carry(ctx, h.Head, out); err != nil {
				return err
			}
		}
		ix, err := out.Reader().Manifest(h.Manifest)
		if err != nil {
			return err // a head must not name what is not there
		}
		keep.From = ix.Serial - min(ix.Serial, keepEntries)
	}
	if err := out.PutHead(h.Line); err != nil {
		return err
	}
	return out.Prune(keep)
}

// export lets f write into the module's export folder.
func (w *worker) export(f func(*export.Writer) error) (err error) {
	w.exporting.Lock()
	defer w.exporting.Unlock()
	out, err := export.OpenWriter(filepath.Join(w.m.Dir, event.ExportDir))
	if err != nil {
		return err
	}
	return errors.Join(f(out), out.Close())
}

func (w *worker) notCarried(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil && !errors.Is(err, errAgain) && !errors.Is(err, errNotExported) {
		w.log.Warn("not carried on for a tier below", "error", err)
	}
}

// fullFilters are the rules of a run of everything: this mirror's subset, without what belongs to mirrorbus.
func fullFilters(m Module) []string {
	rules := []string{"- /" + event.ExportDir + "/"}
	if text := m.Rules.String(); text != "" {
		rules = append(rules, strings.Split(text, "\n")...)
	}
	return rules
}
