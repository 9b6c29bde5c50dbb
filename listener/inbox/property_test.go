package inbox_test

import (
	"context"
	"maps"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/listener/inbox"
)

// Two histories of each of two epochs, the same up to serial 2: what a master says, and what whoever has its key says beside it.
func forks(t testing.TB) (heard [2][2][]inbox.Heard) {
	t.Helper()
	for e, name := range []event.Epoch{epoch, "00000001"} {
		for f := range 2 {
			c := &chain{t: t, epoch: name}
			heard[e][f] = append(heard[e][f], c.next(event.Change), c.next(event.Change))
			c.prev[0] ^= byte(f) // from here on the histories part
			for range 4 {
				heard[e][f] = append(heard[e][f], c.next(event.Change))
			}
		}
	}
	return heard
}

// Announcements and heads of both histories come in any order and often, and batches end in between: nothing is ever stored that contradicts what
// is stored, a contradiction puts the module into quarantine, and what is applied never goes back and has no gap.
func TestWhateverComesNothingContradictsItself(t *testing.T) {
	heard, b := forks(t), open(t, t.TempDir())
	rapid.Check(t, func(rt *rapid.T) {
		if _, err := b.DB().Exec("DELETE FROM heard; DELETE FROM head; DELETE FROM sent; UPDATE module SET epoch = '', applied = 0, digest = NULL, quarantine = ''"); err != nil {
			rt.Fatal(err)
		}
		m := model{t: t, rt: rt, b: b, stored: map[line]event.Digest{}}
		for range rapid.IntRange(1, 14).Draw(rt, "steps") {
			history := rapid.SampledFrom([]int{0, 0, 0, 0, 1}).Draw(rt, "history")
			h := heard[rapid.SampledFrom([]int{0, 0, 0, 1}).Draw(rt, "epoch")][history][rapid.IntRange(0, 5).Draw(rt, "serial")]
			switch rapid.IntRange(0, 5).Draw(rt, "step") {
			case 0:
				m.head(h)
			case 1, 2:
				m.finish()
			default:
				m.put(h)
			}
			m.check()
		}
	})
}

// A line is one of an epoch.
type line struct {
	epoch  event.Epoch
	serial event.Serial
}

// A model is what an inbox must be like.
type model struct {
	t      *testing.T
	rt     *rapid.T
	b      *inbox.Inbox
	stored map[line]event.Digest
	last   inbox.Snapshot
}

func (m *model) put(h inbox.Heard) {
	v, err := m.b.Put(context.Background(), h, nil)
	if err != nil {
		m.rt.Fatal(err)
	}
	key := line{h.Epoch, h.Serial}
	switch old, ok := m.stored[key]; {
	case (v == inbox.Stored || v == inbox.Strange) && ok && old != h.Digest:
		m.rt.Fatalf("serial %d of epoch %s is stored with two contents", h.Serial, h.Epoch)
	case v == inbox.Stored || v == inbox.Strange:
		m.stored[key] = h.Digest
	}
	m.quarantined(v)
}

func (m *model) head(h inbox.Heard) {
	v, err := m.b.PutHead(context.Background(), headOf(m.t, h.Epoch, h.Serial, h.Digest, start.Add(time.Duration(h.Serial)*time.Second)))
	if err != nil {
		m.rt.Fatal(err)
	}
	m.quarantined(v)
}

func (m *model) quarantined(v inbox.Verdict) {
	if v == inbox.Equivocation && look(m.t, m.b).Quarantine == "" {
		m.rt.Fatal("a contradiction, and no quarantine")
	}
}

// finish ends a batch of all that follows without a gap, or compares with a manifest where nothing was yet.
func (m *model) finish() {
	s := look(m.t, m.b)
	rows, err := m.b.Batch(context.Background(), mod, s.Through, 1<<20)
	if err != nil {
		m.rt.Fatal(err)
	}
	if n := len(rows); n > 0 && s.Quarantine == "" {
		prev := s.Digest
		for _, h := range rows {
			if h.Serial > 1 && !prev.IsZero() && h.Prev != prev {
				m.rt.Fatalf("serial %d follows another line than the one before", h.Serial)
			}
			prev = h.Digest
		}
		finish(m.t, m.b, rows[n-1])
		m.forgotten()
	} else if s.Epoch == "" {
		if d, ok := m.stored[line{epoch, 1}]; ok {
			finish(m.t, m.b, inbox.Heard{Announcement: event.Announcement{Module: mod, Epoch: epoch, Serial: 1}, Digest: d})
			m.forgotten()
		}
	}
}

// forgotten drops what an inbox forgets at the end of a batch: all of other epochs.
func (m *model) forgotten() {
	now := look(m.t, m.b).Epoch
	maps.DeleteFunc(m.stored, func(l line, _ event.Digest) bool { return l.epoch != now })
}

func (m *model) check() {
	s := look(m.t, m.b)
	if s.Epoch == m.last.Epoch && s.Applied < m.last.Applied || m.last.Quarantine != "" && s.Quarantine == "" || s.Through < s.Applied || s.Top < s.Through {
		m.rt.Fatalf("after %+v comes %+v", m.last, s)
	}
	for i, x := range s.Todo {
		if x.Serial != s.Applied+event.Serial(i)+1 {
			m.rt.Fatalf("to do after %d are %+v", s.Applied, s.Todo)
		}
	}
	m.last = s
}
