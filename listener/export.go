package listener

import (
	"context"
	"errors"
	"path/filepath"
	"strings"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/export"
)

// A Carrier is a CatchUp that can copy the manifest that a verified head names into an export folder.
type Carrier interface {
	Carry(ctx context.Context, h event.Head, into *export.Writer) error
}

// export carries on what is applied, for a tier below: the journal entries, and the head once all that it names is here. It may fail: the tier
// below then waits for the next batch.
func (b *batch) export(ctx context.Context) {
	if b.w.m.NoExport || b.w.m.CatchUp == nil {
		return
	}
	b.w.stage("export")
	if err := b.carryOn(ctx); err != nil && ctx.Err() == nil {
		b.w.log.Warn("not carried on for a tier below", "serial", b.through, "error", err)
	}
}

func (b *batch) carryOn(ctx context.Context) (err error) {
	out, err := export.OpenWriter(filepath.Join(b.w.m.Dir, event.ExportDir))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	for _, h := range b.rows {
		if err := out.PutEntry(h.Epoch, h.Serial, h.Line, h.Set); err != nil {
			return err
		}
	}
	s, err := b.w.a.inbox.Look(ctx, b.w.m.Name)
	if err != nil || s.Head == nil || s.Head.Epoch != s.Epoch || s.Head.Serial > s.Applied {
		return err
	}
	if c, ok := b.w.m.CatchUp.(Carrier); ok && !s.Head.Manifest.IsZero() {
		if err := c.Carry(ctx, s.Head.Head, out); err != nil {
			return err
		}
	}
	if !s.Head.Manifest.IsZero() {
		if _, err := out.Reader().Manifest(s.Head.Manifest); err != nil {
			return err // a head must not name what is not there
		}
	}
	return out.PutHead(s.Head.Line)
}

// fullFilters are the rules of a run of everything: this mirror's subset, without what belongs to mirrorbus.
func fullFilters(m Module) []string {
	rules := []string{"- /" + event.ExportDir + "/"}
	if text := m.Rules.String(); text != "" {
		rules = append(rules, strings.Split(text, "\n")...)
	}
	return rules
}
