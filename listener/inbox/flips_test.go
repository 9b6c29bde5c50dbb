package inbox_test

import (
	"errors"
	"testing"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/listener/inbox"
)

// A flip that is done beside a batch stays until the batch is done, or has failed: it may have to be done again.
func TestFlipsStayForAsLongAsABatchRuns(t *testing.T) {
	for _, fails := range []bool{false, true} {
		b, c := open(t, t.TempDir()), &chain{t: t, epoch: epoch}
		finish(t, b, c.next(event.Change))
		two, three := c.next(event.Flip), c.next(event.Flip)
		put(t, b, inbox.Stored, two, three)
		r := event.Report{Module: mod, Epoch: epoch, Serial: 2, Outcome: event.Applied}
		for range 2 { // the second time it is done already
			if err := b.Flip(t.Context(), two, true, start, r, nil); err != nil {
				t.Fatal(err)
			}
		}
		stay, err := b.Flipped(t.Context(), mod)
		if s := look(t, b); err != nil || s.Applied != 1 || len(stay) != 1 || stay[0].Set == nil {
			t.Errorf("applied %d, %d flips stay: %v", s.Applied, len(stay), err)
		}
		if said := sent(t, b); said[len(said)-1].Outcome != event.Applied || said[len(said)-1].Applied != 1 || len(said) != 4 {
			t.Errorf("%+v", said)
		}
		want := event.Serial(2)
		if fails {
			var moved, again bool
			failed := b.Fail(t.Context(), mod, inbox.Trouble{Kind: "retrying", Through: 2, Attempts: 1, Next: start}, nil)
			moved, err = b.Advance(t.Context(), mod, start)
			err = errors.Join(failed, err)
			if again, _ = b.Advance(t.Context(), mod, start); !moved || again {
				t.Errorf("moved %t, then %t", moved, again)
			}
			if said := sent(t, b); said[len(said)-1].Outcome != event.Have || said[len(said)-1].Applied != 2 || said[len(said)-1].Serial != 2 {
				t.Errorf("%+v", said[len(said)-1])
			}
		} else {
			want = 3
			_, err = b.Finish(t.Context(), inbox.Done{Module: mod, Epoch: epoch, Through: 3, Digest: three.Digest, At: start, Except: []event.Serial{2}})
		}
		if s := look(t, b); err != nil || s.Applied != want || s.Trouble.Kind != "" {
			t.Errorf("applied %d, want %d, trouble %q: %v", s.Applied, want, s.Trouble.Kind, err)
		}
		if stay, err = b.Flipped(t.Context(), mod); err != nil || len(stay) != 0 {
			t.Errorf("%d flips stay: %v", len(stay), err)
		}
	}
}

func TestFlipsAheadOfTheirTurn(t *testing.T) {
	b, c := open(t, t.TempDir()), &chain{t: t, epoch: epoch}
	finish(t, b, c.next(event.Change))
	put(t, b, inbox.Stored, c.next(event.Change), c.next(event.Flip))
	flip := look(t, b).Flips[0]
	r := event.Report{Module: mod, Epoch: epoch, Serial: 3, Outcome: event.Ready}
	if err := b.Ready(t.Context(), flip, r); err != nil {
		t.Fatal(err)
	}
	if flip = look(t, b).Flips[0]; !flip.Ready {
		t.Error("not marked as ready")
	}
	r.Outcome = event.Applied
	for range 2 {
		if err := b.Flip(t.Context(), flip, false, start, r, nil); err != nil {
			t.Fatal(err)
		}
	}
	s := look(t, b)
	ahead, err := b.Flipped(t.Context(), mod)
	if err != nil || len(s.Flips) != 0 || len(ahead) != 1 || !ahead[0].Done || ahead[0].Set == nil || s.Applied != 1 || s.Through != 3 || len(s.Todo) != 1 {
		t.Errorf("%+v %+v %v", s, ahead, err)
	}
	if said := sent(t, b); len(said) != 5 || said[4].Outcome != event.Applied || said[4].Applied != 1 {
		t.Errorf("%+v", said)
	}
	two, err := b.Batch(t.Context(), mod, 3, 1<<20)
	if err != nil || len(two) != 1 || two[0].Serial != 2 {
		t.Fatalf("%+v %v", two, err)
	}
	if finish(t, b, two[0]) {
		t.Error("more, want nothing: the flip is done")
	}
	if s := look(t, b); s.Applied != 3 || s.Digest != flip.Digest {
		t.Errorf("applied %d, want 3", s.Applied)
	}
}

// A flip that expired is done wherever it stands; what is missing before it stays missing.
func TestFlipThatIsDoneBeyondAGapMovesNothing(t *testing.T) {
	b, c := open(t, t.TempDir()), &chain{t: t, epoch: epoch}
	finish(t, b, c.next(event.Change))
	missing := c.next(event.Change)
	put(t, b, inbox.Stored, c.next(event.Flip))
	r := event.Report{Module: mod, Epoch: epoch, Serial: 3, Outcome: event.Skipped}
	if err := b.Flip(t.Context(), look(t, b).Flips[0], false, start, r, nil); err != nil {
		t.Fatal(err)
	}
	if s := look(t, b); s.Applied != 1 || s.Top != 3 {
		t.Errorf("applied %d with serial 2 missing", s.Applied)
	}
	put(t, b, inbox.Stored, missing)
	finish(t, b, missing)
	if s := look(t, b); s.Applied != 3 {
		t.Errorf("applied %d, want 3", s.Applied)
	}
}

func TestFlipThatWaitsHoldsTheSerialButNotTheWork(t *testing.T) {
	b, c := open(t, t.TempDir()), &chain{t: t, epoch: epoch}
	one, flip, three := c.next(event.Change), c.next(event.Flip), c.next(event.Change)
	finish(t, b, one)
	put(t, b, inbox.Stored, flip, three)
	more, err := b.Finish(t.Context(), inbox.Done{Module: mod, Epoch: epoch, Through: 3, Digest: three.Digest, Except: []event.Serial{2}, At: start})
	if err != nil || !more {
		t.Fatal(more, err)
	}
	s := look(t, b)
	if s.Applied != 1 || s.Digest != one.Digest || s.Through != 3 || len(s.Todo) != 1 || s.Todo[0].Serial != 2 {
		t.Fatalf("%+v", s)
	}
	r := event.Report{Module: mod, Epoch: epoch, Serial: 2, Outcome: event.Applied}
	if err := b.Flip(t.Context(), s.Flips[0], false, start, r, nil); err != nil {
		t.Fatal(err)
	}
	if s := look(t, b); s.Applied != 3 || s.Digest != three.Digest {
		t.Errorf("%+v", s)
	}
	if said := sent(t, b); said[len(said)-1].Applied != 3 {
		t.Errorf("%+v", said)
	}
}
