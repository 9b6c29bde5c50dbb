package sim

import (
	"slices"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/listener/inbox"
)

// keep is how many applied announcements a box remembers.
const keep = 100

// A box is package inbox in memory: the same verdicts and steps around a slice instead of tables. All of it counts as committed. TestBoxIsAnInbox
// compares the two.
type box struct {
	m       inbox.Module
	rows    []row // by epoch of first arrival, then by serial
	head    *inbox.Head
	budgets map[string]inbox.Bucket
	run     uint64
}

// A row is an announcement with what is known of it here.
type row struct {
	inbox.Heard
	wide bool
}

func newBox(created time.Time) *box {
	return &box{m: inbox.Module{Name: module, Created: created}, budgets: map[string]inbox.Bucket{}}
}

func (b *box) find(e event.Epoch, n event.Serial) *row {
	i, ok := slices.BinarySearchFunc(b.rows, row{}, func(r, _ row) int { return compareRow(r, e, n) })
	if !ok {
		return nil
	}
	return &b.rows[i]
}

func compareRow(r row, e event.Epoch, n event.Serial) int {
	switch {
	case r.Epoch != e && r.Epoch < e, r.Epoch == e && r.Serial < n:
		return -1
	case r.Epoch != e, r.Serial > n:
		return 1
	}
	return 0
}

// from is the index of the first row of an epoch from a serial on.
func (b *box) from(e event.Epoch, n event.Serial) int {
	i, _ := slices.BinarySearchFunc(b.rows, row{}, func(r, _ row) int { return compareRow(r, e, n) })
	return i
}

func (b *box) digestOf(e event.Epoch, n event.Serial) event.Digest {
	if e == b.m.Epoch && n == b.m.Applied && !b.m.Digest.IsZero() {
		return b.m.Digest
	}
	if r := b.find(e, n); r != nil {
		return r.Digest
	}
	if b.head != nil && b.head.Epoch == e && b.head.Serial == n {
		return b.head.Last
	}
	return event.Digest{}
}

func (b *box) highest(e event.Epoch) event.Serial {
	if i := b.from(e, event.MaxSerial); i < len(b.rows) && b.rows[i].Epoch == e {
		return b.rows[i].Serial
	} else if i > 0 && b.rows[i-1].Epoch == e {
		return b.rows[i-1].Serial
	}
	return 0
}

func (b *box) known(e event.Epoch, n event.Serial) inbox.Known {
	k := inbox.Known{Epoch: b.m.Epoch, Applied: b.m.Applied, Digest: b.digestOf(e, n), Before: b.digestOf(e, n-1), Here: b.find(e, n) != nil, Top: b.highest(e)}
	if r := b.find(e, n+1); r != nil {
		k.Prev = r.Prev
	}
	return k
}

func (b *box) put(h inbox.Heard) inbox.Verdict {
	v := inbox.Judge(b.known(h.Epoch, h.Serial), h)
	switch v {
	case inbox.Stored, inbox.Strange:
		b.rows = slices.Insert(b.rows, b.from(h.Epoch, h.Serial), row{Heard: h, wide: h.Announcement.Set.IsZero()})
	case inbox.Repeated:
		if r := b.find(h.Epoch, h.Serial); r.Set == nil && !r.Done {
			r.Set = h.Set
		}
	case inbox.Equivocation:
		b.quarantine(h.At)
	}
	return v
}

func (b *box) quarantine(at time.Time) {
	if b.m.Quarantine == "" {
		b.m.Quarantine, b.m.Quarantined = "two lines", at
	}
}

func (b *box) putHead(h inbox.Head) inbox.Verdict {
	v := inbox.JudgeHead(inbox.Known{Epoch: b.m.Epoch, Applied: b.m.Applied, Digest: b.digestOf(h.Epoch, h.Serial), Top: b.highest(h.Epoch)}, b.head, h)
	switch v {
	case inbox.Repeated:
		b.head.Via = h.Via
	case inbox.Stored, inbox.Strange:
		b.head = &h
	case inbox.Equivocation:
		b.quarantine(h.At)
	}
	return v
}

func (b *box) look() inbox.Snapshot {
	s := inbox.Snapshot{Module: b.m, Head: b.head, Budgets: b.budgets}
	var rows []inbox.Row
	for _, r := range b.above() {
		rows = append(rows, inbox.Row{Item: inbox.Item{Serial: r.Serial, Kind: r.Kind, Set: r.Set != nil, Wide: r.wide, At: r.At}, Done: r.Done})
		if r.Kind == event.Flip && !r.Done {
			s.Flips = append(s.Flips, r.Heard)
		}
	}
	s.Follow(rows, b.highest(b.m.Epoch))
	return s
}

// above are the rows of the module's epoch that come after what is applied.
func (b *box) above() []row {
	first := b.from(b.m.Epoch, b.m.Applied+1)
	last := first
	for last < len(b.rows) && b.rows[last].Epoch == b.m.Epoch {
		last++
	}
	return b.rows[first:last]
}

func (b *box) finish(d inbox.Done) {
	for i := range b.rows {
		if r := &b.rows[i]; r.Epoch == d.Epoch && r.Serial <= d.Through {
			r.Done = !slices.Contains(d.Except, r.Serial)
		}
	}
	var before event.Digest
	if len(d.Except) > 0 {
		before = b.digestOf(d.Epoch, d.Except[0]-1)
	}
	b.m = b.m.Finished(d, before)
	b.advance(d.At)
}

// flip notes that a flip is done, perhaps ahead of its turn. An expired one needs its path set no more.
func (b *box) flip(e event.Epoch, n event.Serial, expired bool, at time.Time) bool {
	r := b.find(e, n)
	if r == nil || r.Done || e != b.m.Epoch {
		return false
	}
	r.Done = true
	if expired {
		r.Set = nil
	}
	b.advance(at)
	return true
}

func (b *box) advance(at time.Time) {
	var rows []inbox.Heard
	for _, r := range b.above() {
		rows = append(rows, r.Heard)
	}
	b.m = b.m.Advance(rows)
	b.m.AppliedAt = at
	b.rows = slices.DeleteFunc(b.rows, func(r row) bool {
		return r.Epoch != b.m.Epoch || int64(r.Serial) <= int64(b.m.Applied)-keep || r.Serial > b.m.Applied+inbox.MaxAhead
	})
	for i := range b.rows {
		if r := &b.rows[i]; r.Done && (r.Serial <= b.m.Applied || r.Kind != event.Flip) {
			r.Set = nil
		}
	}
}

// release takes the module out of quarantine: what was heard is forgotten, see inbox.Release.
func (b *box) release() {
	b.m = inbox.Module{Name: module, Created: b.m.Created, AppliedAt: b.m.AppliedAt}
	b.rows, b.head, b.budgets = nil, nil, map[string]inbox.Bucket{}
}
