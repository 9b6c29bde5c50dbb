package trigger

import (
	"context"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/trigger/collector"
)

// A tip is where a module stands: its newest announcement.
type tip struct {
	epoch  event.Epoch
	serial event.Serial
	digest event.Digest // of its line
	at     time.Time
}

// judge says in one word where a mirror stands, from what it last reported and what the journal says.
func judge(t tip, s collector.Standing, now time.Time, away time.Duration) MirrorState {
	switch {
	case s.Epoch != "" && s.Epoch != t.epoch && s.Applied > 0,
		s.Epoch == t.epoch && s.Applied > t.serial,
		s.Epoch == t.epoch && s.Applied == t.serial && !s.Head.IsZero() && s.Head != t.digest:
		return Diverged
	case now.Sub(s.Heard) > away:
		return Away
	case s.Epoch == t.epoch && s.Applied == t.serial:
		return Current
	case s.Outcome == event.Failed && s.Serial > s.Applied:
		return Failing
	case s.Outcome == event.Blocked && s.Serial > s.Applied:
		return Stuck
	}
	return Behind
}

// progress tells how far a serial has come, from standings and words.
func progress(serial event.Serial, announced, now time.Time, standings []collector.Standing, words []collector.Word, epoch event.Epoch, away time.Duration) Progress {
	p := Progress{Serial: serial, Elapsed: now.Sub(announced)}
	said := map[string]collector.Word{}
	for _, w := range words {
		said[w.Mirror] = w
	}
	for _, s := range standings {
		m := MirrorProgress{Mirror: s.Mirror, Has: s.Epoch == epoch && s.Applied >= serial, Away: now.Sub(s.Heard) > away}
		if w, ok := said[s.Mirror]; ok {
			m.Outcome, m.Error, m.Via = w.Outcome, w.Error, w.Via
			m.Received = w.Received.Sub(announced)
			if !w.Done.IsZero() {
				m.Applied = w.Done.Sub(announced)
			}
		}
		if m.Has {
			p.Have++
			m.Error = ""
			if m.Outcome != event.Skipped {
				m.Outcome = event.Applied
			}
			if m.Applied == 0 { // done as part of a later serial's batch
				m.Applied = s.Said.Sub(announced)
			}
		}
		if m.Has || !m.Away {
			p.Want++
		}
		p.Mirrors = append(p.Mirrors, m)
	}
	return p
}

// enough tells whether n mirrors, or with 0 all that are not away and at least one, have the serial.
func (p Progress) enough(n int) bool {
	if n > 0 {
		return p.Have >= n
	}
	return p.Want > 0 && p.Have == p.Want
}

// follow sends the progress of a serial at each change until enough mirrors have it or ctx ends.
func follow(ctx context.Context, c *collector.Collector, m event.Module, epoch event.Epoch, serial event.Serial, announced time.Time, n int,
	away time.Duration, now func() time.Time, send func(Progress) error) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		changed := c.Changed()
		standings, err := c.Standings(ctx, m)
		if err != nil {
			return err
		}
		words, err := c.Words(ctx, m, epoch, serial)
		if err != nil {
			return err
		}
		p := progress(serial, announced, now(), standings, words, epoch, away)
		p.Done = p.enough(n)
		if err := send(p); err != nil || p.Done {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-changed:
		case <-tick.C:
		}
	}
}
