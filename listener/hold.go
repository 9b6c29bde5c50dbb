package listener

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/listener/inbox"
	"github.com/mirrorbus/mirrorbus/listener/pace"
	"github.com/mirrorbus/mirrorbus/listener/plan"
)

// Why the master asks mirrors to hold work back, and how long they do, stands with pace.HeldUntil. Decisions know it before work begins. Work that asks
// the upstream where it stands may learn of it on its way: then it ends where it can, and is decided about anew.

// heldBack tells whether the newest head that is stored holds such work back. It is then to be decided about anew. If the state cannot be read that
// shows at the next step.
func (w *worker) heldBack(ctx context.Context) bool {
	v, err := w.view(ctx)
	if err != nil {
		return false
	}
	until := pace.HeldUntil(v.Snapshot, v.Now, w.pace.Skew)
	if !until.IsZero() {
		w.log.Info("held back, the master is in the middle of a compose", "until", until.UTC().Format(time.RFC3339))
	}
	return !until.IsZero()
}

// heldBack tells likewise of what the batch is to bring. Flips pass.
func (b *batch) heldBack(ctx context.Context) bool {
	flips := !slices.ContainsFunc(b.pending, func(p plan.Pending) bool { return p.Kind != event.Flip })
	return (b.whole || !flips) && b.w.heldBack(ctx)
}

// held is the error of a module that has work which a compose keeps from being done, nil for any other.
func (w *worker) held(s inbox.Snapshot) error {
	now := w.a.o.Now()
	if state, _ := pace.StateOf(s, time.Time{}, now, w.pace.Skew); state != pace.Composing {
		return nil
	}
	until := pace.HeldUntil(s, now, w.pace.Skew)
	return fault.With(fmt.Errorf("module %s: the master is in the middle of a compose, until %s at the latest", w.m.Name, until.UTC().Format(time.RFC3339)),
		fault.TryAgain, "what was announced is fetched when the compose ends")
}
