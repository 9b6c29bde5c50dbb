package collector

import (
	"time"

	"github.com/mirrorbus/mirrorbus/event"
)

// A State is one word for where a mirror stands, as its master sees it.
type State string

// The states of a mirror.
const (
	Current  State = "current"  // everything announced is on its disk
	Behind   State = "behind"   // working on it
	Failing  State = "failing"  // it said that it could not, and tries again
	Stuck    State = "blocked"  // it said that it cannot go on by itself
	Away     State = "away"     // not heard of for longer than away_after
	Diverged State = "diverged" // it has another history than this master: other epoch, or other line at the same serial
)

// A Tip is where a module stands: its newest announcement.
type Tip struct {
	Epoch  event.Epoch
	Serial event.Serial
	Digest event.Digest // of its line
	At     time.Time
}

// Judge says in one word where a mirror stands, from what it last reported and what the journal says.
func Judge(t Tip, s Standing, now time.Time, away time.Duration) State {
	switch {
	case s.Epoch != "" && s.Epoch != t.Epoch && s.Applied > 0,
		s.Epoch == t.Epoch && s.Applied > t.Serial,
		s.Epoch == t.Epoch && s.Applied == t.Serial && !s.Head.IsZero() && s.Head != t.Digest:
		return Diverged
	case now.Sub(s.Heard) > away:
		return Away
	case s.Outcome == event.Blocked: // also of a serial that it has: a module in quarantine
		return Stuck
	case s.Epoch == t.Epoch && s.Applied == t.Serial:
		return Current
	case s.Stuck(), s.Outcome == event.Failed && s.Epoch != t.Epoch:
		return Failing
	}
	return Behind
}

// Stuck tells whether the last that the mirror said of its work is that it does not go on, for now or by itself.
func (s Standing) Stuck() bool {
	return s.Outcome == event.Blocked || s.Outcome == event.Failed && s.Serial > s.Applied
}

// A Record is a standing with what tells which of two reports is the newer one. Its zero value is that of a mirror that never reported.
type Record struct {
	Standing
	Run  uint64 // of the newest report
	Word int64  // the run of the newest that says how the work goes; -1 if there was none
}

// Take is the record after one more report, which may be older than others that came before it. It keeps two things apart, the newest report and the
// newest that says how the work goes: either may come after a newer one of the other. "have" and "received" say nothing of the work: a mirror that
// is stuck hears what is announced all the same.
func (s Record) Take(r event.Report, now time.Time) Record {
	if first := s.Mirror == ""; first || r.Run > s.Run {
		s.Mirror, s.Run, s.Epoch, s.Applied, s.Head, s.Heard = r.Mirror, r.Run, r.Epoch, r.Applied, r.Head, now
		if first {
			s.Outcome, s.Serial, s.Said, s.Word = event.Have, r.Applied, now, -1
		}
	}
	if word := int64(r.Run); r.Outcome != event.Have && r.Outcome != event.Received && word > s.Word {
		s.Word, s.Outcome, s.Serial, s.Error, s.Said = word, r.Outcome, r.Serial, r.Error, now
	}
	return s
}
