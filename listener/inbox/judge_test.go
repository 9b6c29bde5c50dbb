package inbox_test

import (
	"fmt"
	"testing"
	"time"

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

// A head of serials that nobody ever heard of, by whatever key it is signed, does not make later heads look old: only the upstream may say so.
func TestHeadFarAhead(t *testing.T) {
	b := open(t, t.TempDir())
	c := &chain{t: t, epoch: epoch}
	one := c.next(event.Change)
	put(t, b, inbox.Stored, one)
	finish(t, b, one)
	for _, s := range []struct {
		via    string
		serial event.Serial
		want   inbox.Verdict
	}{
		{"mem", 1 + inbox.MaxAhead + 1, inbox.TooFar},
		{"mem", event.MaxSerial, inbox.TooFar},
		{"mem", 2, inbox.Stored},
		{inbox.ViaUpstream, 2 + inbox.MaxAhead + 1, inbox.Stored},
		{"mem", 2 + 2*inbox.MaxAhead, inbox.Stored},
	} {
		h := headOf(t, epoch, s.serial, event.Sum([]byte{byte(s.serial)}), start)
		h.Via = s.via
		if v, err := b.PutHead(t.Context(), h); err != nil || v != s.want {
			t.Errorf("head %d by %s: %s %v, want %s", s.serial, s.via, v, err, s.want)
		}
	}
}

// A module that is new cannot tell that a serial is too far ahead. Once it was compared with the upstream it can.
func TestFarAheadWhileNew(t *testing.T) {
	b := open(t, t.TempDir())
	c := &chain{t: t, epoch: epoch}
	one := c.next(event.Change)
	far := &chain{t: t, epoch: epoch, serial: inbox.MaxAhead + 5, prev: event.Sum([]byte("y"))}
	put(t, b, inbox.Stored, far.next(event.Change))
	if v, err := b.PutHead(t.Context(), headOf(t, epoch, 3*inbox.MaxAhead, event.Sum([]byte("x")), start)); err != nil || v != inbox.Strange {
		t.Fatal(v, err)
	}
	h := headOf(t, epoch, 1, one.Digest, start)
	h.Via = inbox.ViaUpstream
	if v, err := b.PutHead(t.Context(), h); err != nil || v != inbox.Stored {
		t.Errorf("the upstream's head: %s %v", v, err)
	}
	finish(t, b, one)
	if s := look(t, b); s.Top != 1 || s.Applied != 1 {
		t.Errorf("at serial %d of %d, want 1 of 1", s.Applied, s.Top)
	}
}

func TestHeadExpiresByAnyClock(t *testing.T) {
	h := headOf(t, epoch, 1, event.Sum([]byte("x")), start) // for ten minutes
	const skew = 5 * time.Minute
	for name, c := range map[string]struct {
		arrived, now time.Duration // after it was signed, by the clock of the mirror
		want         bool
	}{
		"fresh":                     {0, 0, false},
		"a little late":             {9 * time.Minute, 14 * time.Minute, false},
		"old":                       {0, 16 * time.Minute, true},
		"old when it came":          {16 * time.Minute, 16 * time.Minute, true},
		"slow clock, fresh":         {-2 * time.Hour, -2*time.Hour + 14*time.Minute, false},
		"slow clock, old":           {-2 * time.Hour, -2*time.Hour + 16*time.Minute, true},
		"clock set back since":      {0, -2 * time.Hour, true},
		"clock set back by minutes": {0, -4 * time.Minute, false},
	} {
		h.At = start.Add(c.arrived)
		if got := h.Expired(start.Add(c.now), skew); got != c.want {
			t.Errorf("%s: expired is %t", name, got)
		}
	}
}

// A master has begun a new epoch. Its newest head came over a transport, and the upstream still shows the one before: that is enough to follow it.
func TestUpstreamsOlderHeadOfANewEpochCounts(t *testing.T) {
	known := inbox.Known{Epoch: epoch, Applied: 8}
	head := func(second int, via string) inbox.Head {
		at := start.Add(time.Duration(second) * time.Second)
		return inbox.Head{Head: event.Head{Module: mod, Epoch: "00000001", Serial: 1, At: at}, Line: []byte(at.String()), At: at, Via: via}
	}
	heard := head(1, "hub")
	if v := inbox.JudgeHead(known, &heard, head(0, inbox.ViaUpstream)); v != inbox.Strange {
		t.Error("from the upstream:", v)
	}
	if v := inbox.JudgeHead(known, &heard, head(0, "hub")); v != inbox.Old {
		t.Error("from the hub:", v)
	}
	confirmed := head(1, inbox.ViaUpstream)
	if v := inbox.JudgeHead(known, &confirmed, head(0, inbox.ViaUpstream)); v != inbox.Old {
		t.Error("after a newer one from the upstream:", v)
	}
}

// A master that is new signs a head, builds its manifest, and signs another within the same second: a mirror must carry on the one that names it.
func TestOfOneSecondTheHeadThatNamesAManifestIsNewer(t *testing.T) {
	known := inbox.Known{Epoch: epoch}
	head := func(line string, manifest event.Digest) inbox.Head {
		return inbox.Head{Head: event.Head{Module: mod, Epoch: epoch, At: start, Manifest: manifest}, Line: []byte(line), At: start}
	}
	without, with := head("without", event.Digest{}), head("with", event.Digest{1})
	if v := inbox.JudgeHead(known, &without, with); v != inbox.Stored {
		t.Error("the one with a manifest:", v)
	}
	if v := inbox.JudgeHead(known, &with, without); v != inbox.Old {
		t.Error("the one without:", v)
	}
}

// A head that expired a day ago or more leads nowhere: no higher serial, and no epoch that nothing else has told of. What is known already it may say again.
func TestFrozenHeads(t *testing.T) {
	const ttl, late = 15 * time.Minute, 15*time.Minute + inbox.FrozenAfter
	head := func(e event.Epoch, serial event.Serial, signed time.Duration) inbox.Head {
		at := start.Add(signed)
		return inbox.Head{Head: event.Head{Module: mod, Epoch: e, Serial: serial, At: at, TTL: ttl}, Line: []byte(fmt.Sprint(e, serial, at)), At: start, Via: inbox.ViaUpstream}
	}
	old := head(epoch, 5, -100*time.Hour)
	other := head("00000001", 3, -90*time.Hour)
	for name, c := range map[string]struct {
		known inbox.Known
		old   *inbox.Head
		head  inbox.Head
		want  inbox.Verdict
	}{
		"fresh":                     {inbox.Known{Epoch: epoch, Applied: 5}, &old, head(epoch, 9, 0), inbox.Stored},
		"expired for a day at most": {inbox.Known{Epoch: epoch, Applied: 5}, &old, head(epoch, 9, -late), inbox.Stored},
		"for longer":                {inbox.Known{Epoch: epoch, Applied: 5}, &old, head(epoch, 9, -late-1), inbox.Frozen},
		"the serial was heard of":   {inbox.Known{Epoch: epoch, Applied: 5, Top: 9}, &old, head(epoch, 9, -late-1), inbox.Stored},
		"the serial is applied":     {inbox.Known{Epoch: epoch, Applied: 9}, &old, head(epoch, 9, -late-1), inbox.Stored},
		"no head is known":          {inbox.Known{Epoch: epoch, Applied: 5}, nil, head(epoch, 9, -late-1), inbox.Frozen},
		"nothing is known":          {inbox.Known{}, nil, head(epoch, 0, -late-1), inbox.Frozen},
		"nothing is known, fresh":   {inbox.Known{}, nil, head(epoch, 0, 0), inbox.Strange},
		"another epoch":             {inbox.Known{Epoch: epoch, Applied: 5}, &old, head("00000001", 9, -late-1), inbox.Frozen},
		"an older epoch":            {inbox.Known{Epoch: epoch, Applied: 5}, &old, head("00000001", 9, -101*time.Hour), inbox.Old},
		"that was heard of":         {inbox.Known{Epoch: epoch, Applied: 5}, &other, head("00000001", 3, -late-1), inbox.Strange},
		"rolled back":               {inbox.Known{Epoch: epoch, Applied: 5}, &old, head(epoch, 4, -late-1), inbox.Old},
		"the same once more":        {inbox.Known{Epoch: epoch, Applied: 5}, &old, old, inbox.Repeated},
		"a slow clock":              {inbox.Known{Epoch: epoch, Applied: 5}, &old, head(epoch, 9, 1000*time.Hour), inbox.Stored},
	} {
		if got := inbox.JudgeHead(c.known, c.old, c.head); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}
