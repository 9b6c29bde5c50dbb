package inbox_test

import (
	"testing"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/listener/inbox"
)

// A batch that ends before a flip is at the serial before that flip, and at its line: a repeat of that line is old, not another line.
func TestDigestOfWhereABatchEndsBeforeAFlip(t *testing.T) {
	b := open(t, t.TempDir())
	c := &chain{t: t, epoch: epoch}
	one, two, flip, four := c.next(event.Change), c.next(event.Change), c.next(event.Flip), c.next(event.Change)
	put(t, b, inbox.Stored, one)
	finish(t, b, one)
	put(t, b, inbox.Stored, two, flip, four)
	_, err := b.Finish(t.Context(), inbox.Done{Module: mod, Epoch: epoch, Through: 4, Digest: four.Digest, Except: []event.Serial{3}, At: start})
	if err != nil {
		t.Fatal(err)
	}
	if s := look(t, b); s.Applied != 2 || s.Digest != two.Digest {
		t.Errorf("at serial %d, line %s; want 2, %s (1 is %s)", s.Applied, hexOf(s.Digest), hexOf(two.Digest), hexOf(one.Digest))
	}
	put(t, b, inbox.Old, two)
	put(t, b, inbox.Repeated, flip)
	if s := look(t, b); s.Quarantine != "" {
		t.Error("quarantined by a repeat:", s.Quarantine)
	}
}
