package trigger

import (
	"context"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/trigger/collector"
	"github.com/mirrorbus/mirrorbus/trigger/journal"
)

// progress tells how far an announcement has come, from standings and words. newest is where its module stands.
func progress(a journal.Stored, newest collector.Tip, standings []collector.Standing, words []collector.Word, now time.Time, away time.Duration) Progress {
	p := Progress{Serial: a.Announcement.Serial, Elapsed: now.Sub(a.Created)}
	said := map[string]collector.Word{}
	for _, w := range words {
		said[w.Mirror] = w
	}
	for _, s := range standings {
		m := MirrorProgress{Mirror: s.Mirror, Away: now.Sub(s.Heard) > away}
		if w, ok := said[s.Mirror]; ok {
			m.tell(w, a.Created)
		}
		m.stand(a, s, collector.Judge(newest, s, now, away) == Diverged)
		if m.Has {
			p.Have++
		}
		if m.Has || !m.Away {
			p.Want++
		}
		p.Mirrors = append(p.Mirrors, m)
	}
	return p
}

// tell takes what the mirror said of the serial itself.
func (m *MirrorProgress) tell(w collector.Word, announced time.Time) {
	m.Outcome, m.Error, m.Via = w.Outcome, w.Error, w.Via
	m.Received = w.Received.Sub(announced)
	if !w.Done.IsZero() {
		m.Applied = w.Done.Sub(announced)
	}
}

// stand takes what follows from where the mirror stands: a batch covers several serials, and only the last of them is spoken of.
func (m *MirrorProgress) stand(a journal.Stored, s collector.Standing, diverged bool) {
	serial := a.Announcement.Serial
	switch {
	case diverged: // it may have the number, and not the change
		m.Applied = 0
		m.Outcome, m.Error = event.Blocked, "it has another history than this master"
	case s.Epoch == a.Announcement.Epoch && s.Applied >= serial:
		m.Has, m.Error = true, ""
		if m.Outcome != event.Skipped {
			m.Outcome = event.Applied
		}
		if m.Applied == 0 {
			m.Applied = later(s.Said, a.Created, s.Heard).Sub(a.Created)
		}
	case s.Stuck() && s.Epoch == a.Announcement.Epoch: // if at a lower serial, then at this one too
		m.Outcome, m.Error = s.Outcome, s.Error
	}
}

// later is t, or otherwise where t does not come after since.
func later(t, since, otherwise time.Time) time.Time {
	if t.After(since) {
		return t
	}
	return otherwise
}

// enough tells whether n mirrors, or with 0 all that are not away and at least one, have the serial.
func (p Progress) enough(n int) bool {
	if n > 0 {
		return p.Have >= n
	}
	return p.Want > 0 && p.Have == p.Want
}

// follow sends the progress of an announcement at each change, and each second, until enough mirrors have it or ctx ends.
func (h *Hub) follow(ctx context.Context, a journal.Stored, n int, send func(Progress) error) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		changed := h.collector.Changed()
		p, err := h.progress(ctx, a)
		if err != nil {
			return err
		}
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

func (h *Hub) progress(ctx context.Context, a journal.Stored) (Progress, error) {
	m := a.Announcement.Module
	standings, newest, err := h.stand(ctx, m)
	if err != nil {
		return Progress{}, err
	}
	words, err := h.collector.Words(ctx, m, a.Announcement.Epoch, a.Announcement.Serial)
	return progress(a, newest, standings, words, h.now(), h.conf.AwayAfter.Duration), err
}
