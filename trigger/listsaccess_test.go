package trigger

import (
	"context"

	"github.com/mirrorbus/mirrorbus/event"
)

// TakeIn brings the manifest of a module up to date with the journal.
func (h *Hub) TakeIn(ctx context.Context, m event.Module) error {
	return h.exports[m].exporter.Export(ctx)
}

// UpdateLists brings the lists of a module up to date with the manifest.
func (h *Hub) UpdateLists(ctx context.Context, m event.Module) error {
	return h.updateLists(ctx, h.exports[m])
}

// BuildManifest walks a module.
func (h *Hub) BuildManifest(ctx context.Context, m event.Module) error {
	_, err := h.walk(ctx, h.exports[m], func(Building) error { return nil })
	return err
}
