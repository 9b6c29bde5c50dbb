package inbox

import (
	"bytes"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
)

// MaxAhead is how far above what is known a serial may be and still be stored. One further ahead may be the work of a stolen key that wants
// every later announcement to look old; only a journal that leads up to it makes it true.
const MaxAhead = 100_000

// FrozenAfter is how long ago a head has expired that leads nowhere any more: no clock is so wrong. Until then it is followed, as the master may be down, a tier
// above cut off, or this host's clock fast, and what it leads to is signed. Later it may as well be what somebody kept who wants this mirror to bring what was
// withdrawn since.
const FrozenAfter = 24 * time.Hour

// ViaUpstream is the Via of a head that the upstream itself was asked for; no transport brought it.
const ViaUpstream = "upstream"

// A Verdict is what became of a message.
type Verdict string

// The verdicts.
const (
	Stored       Verdict = "stored"
	Repeated     Verdict = "repeated"     // heard already; at most its path set was new
	Old          Verdict = "old"          // at or below what is applied, or a head older than the known one
	TooFar       Verdict = "too far"      // see MaxAhead: not stored, ask the upstream
	Strange      Verdict = "strange"      // of another epoch than the module's: stored for the case that the upstream agrees, ask it
	Frozen       Verdict = "frozen"       // a head that says more than is known, and has expired long ago: not stored, ask the upstream
	Equivocation Verdict = "equivocation" // one serial, two different lines: the module is now in quarantine
)

// Known is what is stored of a module, and of a serial that a message is about, when that message comes.
type Known struct {
	Epoch   event.Epoch  // the module's, "" if its tree was never compared with a manifest
	Applied event.Serial // the module's
	Digest  event.Digest // of the line of the serial; zero if it is not known, as in the next two
	Before  event.Digest // of the line of the serial before
	Prev    event.Digest // what the line of the serial after says of the line before it
	Here    bool         // an announcement with the serial is stored
	Top     event.Serial // the highest stored announcement of the message's epoch
}

// Judge compares an announcement that has passed the gate with what is known. It is a pure function.
func Judge(k Known, h Heard) Verdict {
	same, top := k.Epoch == h.Epoch, k.Top
	if same {
		top = max(top, k.Applied)
	}
	switch {
	case !k.Digest.IsZero() && k.Digest != h.Digest:
		return Equivocation
	case same && h.Serial <= k.Applied:
		return Old
	case k.Here:
		return Repeated
	case !k.Before.IsZero() && k.Before != h.Prev, !k.Prev.IsZero() && k.Prev != h.Digest:
		return Equivocation
	case h.Serial > top+MaxAhead && (top > 0 || k.Epoch != ""):
		return TooFar
	case !same && k.Epoch != "":
		return Strange
	}
	return Stored
}

// JudgeHead compares a head that has passed the gate with what is known, and with the newest head so far, nil if there is none. Within an epoch
// the higher serial is newer, and of one serial the later signature, which says that it still holds; of another epoch the later signature, or one
// of the same second. One far above what is known counts only if the upstream itself says so: the mirror would go on asking for what never was. One that says
// more than is known does not count if it expired long ago by this host's clock, whoever says so, see FrozenAfter. It is a pure function.
func JudgeHead(k Known, old *Head, h Head) Verdict {
	top := max(k.Applied, k.Top)
	if old != nil && old.Epoch == h.Epoch {
		top = max(top, old.Serial)
	}
	switch {
	case !k.Digest.IsZero() && k.Digest != h.Last:
		return Equivocation
	case old != nil && bytes.Equal(old.Line, h.Line):
		return Repeated
	case old != nil && old.Epoch == h.Epoch && h.Via == ViaUpstream && old.Serial > max(h.Serial, k.Applied)+MaxAhead:
		return Stored // the known one was heard when nothing was known yet, and is not true
	case old != nil && old.Epoch == h.Epoch && k.Epoch != "" && k.Epoch != h.Epoch && h.Via == ViaUpstream && old.Via != ViaUpstream:
		return Strange // older than the one that was heard, but only the upstream's own word makes a mirror follow it into an epoch
	case old != nil && old.Epoch == h.Epoch && h.Serial < old.Serial:
		return Old
	case old != nil && old.Epoch == h.Epoch && old.Serial == h.Serial && !h.Head.At.After(old.Head.At) && !namesFirst(old.Head, h.Head):
		return Old
	case old != nil && old.Epoch != h.Epoch && h.Head.At.Before(old.Head.At):
		return Old
	case k.Epoch == h.Epoch && h.Serial < k.Applied:
		return Old
	case h.Head.Expired(h.At, FrozenAfter) && leads(k, old, h):
		return Frozen
	case k.Epoch == h.Epoch && h.Serial > top+MaxAhead && h.Via != ViaUpstream:
		return TooFar
	case k.Epoch != h.Epoch:
		return Strange
	}
	return Stored
}

// leads tells whether a head says more than is known otherwise: a higher serial, or an epoch that no head before has told of.
func leads(k Known, old *Head, h Head) bool {
	told := old != nil && old.Epoch == h.Epoch
	if !told && k.Epoch != h.Epoch {
		return true
	}
	known := k.Top
	if told {
		known = max(known, old.Serial)
	}
	if k.Epoch == h.Epoch {
		known = max(known, k.Applied)
	}
	return h.Serial > known
}

// namesFirst tells whether a head of the same second is the newer one because it names a manifest, which the master has just built.
func namesFirst(old, h event.Head) bool {
	return h.At.Equal(old.At) && old.Manifest.IsZero() && !h.Manifest.IsZero()
}

// A Row is an announcement above what is applied, as a look finds it.
type Row struct {
	Item
	Done bool // ahead of its turn
}

// Follow fills in what a snapshot says of the rows above Applied, which are given in order; top is the highest serial of the epoch that is stored.
func (s *Snapshot) Follow(rows []Row, top event.Serial) {
	s.Through, s.Top = s.Applied, max(s.Applied, top)
	for _, w := range rows {
		if s.Oldest.IsZero() || w.At.Before(s.Oldest) {
			s.Oldest = w.At
		}
		if w.Serial == s.Through+1 {
			s.Through = w.Serial
			if !w.Done {
				s.Todo = append(s.Todo, w.Item)
			}
		}
	}
	if h := s.Head; h != nil && h.Epoch == s.Epoch {
		s.Top = max(s.Top, h.Serial)
		if h.Serial > s.Applied && (s.Oldest.IsZero() || h.At.Before(s.Oldest)) {
			s.Oldest = h.At
		}
	}
}

// Finished is the module after a batch. before is the digest of the line one serial before the first of d.Except, where there is one: what is done
// ends there, as long as that flip waits.
func (m Module) Finished(d Done, before event.Digest) Module {
	if m.Epoch != d.Epoch {
		m.Epoch, m.Applied, m.Digest, m.Confirmed = d.Epoch, 0, event.Digest{}, 0
	}
	if d.Entries > 0 {
		m.Entries = d.Entries
	}
	m.AppliedAt, m.Trouble = d.At, Trouble{}
	if len(d.Except) == 0 {
		m.Applied, m.Digest = d.Through, d.Digest
	} else if n := d.Except[0] - 1; n > m.Applied {
		m.Applied, m.Digest = n, before
	}
	return m
}

// Advance moves the applied serial over what is done next to it. The rows are those above Applied, in order.
func (m Module) Advance(rows []Heard) Module {
	for _, h := range rows {
		if !h.Done || h.Serial != m.Applied+1 {
			break
		}
		m.Applied, m.Digest = h.Serial, h.Digest
	}
	return m
}
