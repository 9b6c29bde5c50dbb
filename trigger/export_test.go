package trigger

import (
	"context"

	"github.com/mirrorbus/mirrorbus/event"
)

// BeginRequest is a request that looks at names until end is called.
func BeginRequest(h *Hub, m event.Module) (end func()) { return h.publisher.under.begin(m) }

// Rebuild builds a manifest anew, as the command does, and returns the last word about it.
func Rebuild(ctx context.Context, h *Hub, m event.Module) (last Building, err error) {
	err = h.rebuild(ctx, m, func(said any) error {
		last = said.(Building)
		return nil
	})
	return last, err
}
