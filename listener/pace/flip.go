package pace

import (
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/listener/inbox"
)

// A FlipVerdict is what is to be done with a flip now.
type FlipVerdict string

// The verdicts on a flip.
const (
	FlipNow     FlipVerdict = "now"
	FlipWaits   FlipVerdict = "waits"   // for its time
	FlipExpired FlipVerdict = "expired" // it must not be applied any more
)

// JudgeFlip tells what is to be done with a flip now, and its time: of FlipExpired until when it held, else when it may be applied, zero if that is
// not known. skewed says that this host's clock is known to be wrong; a flip with a time then waits until the clock is right, whatever it
// says, rather than showing what must not be seen yet.
func JudgeFlip(a event.Announcement, now time.Time, skewed bool) (FlipVerdict, time.Time) {
	at, expires := flipTimes(a)
	switch {
	case !expires.IsZero() && now.After(expires):
		return FlipExpired, expires
	case now.Before(at):
		return FlipWaits, at
	case skewed && !at.IsZero():
		return FlipWaits, time.Time{}
	}
	return FlipNow, at
}

// flipTimes are when a flip may be applied, and until when; zero for no end.
func flipTimes(a event.Announcement) (at, expires time.Time) {
	at = a.At.Add(a.NotBefore)
	if a.NotBefore == 0 {
		at = time.Time{} // now, whatever the clocks say
	}
	if a.Expires > 0 {
		expires = a.At.Add(a.Expires)
	}
	return at, expires
}

// ClockSkew is how far this host's clock is from the master's, judged by the newest head when it arrived; 0 if that may be as it should.
func ClockSkew(h *inbox.Head, forgiven time.Duration) time.Duration {
	if h == nil {
		return 0
	}
	switch off := h.At.Sub(h.Head.At); {
	case off < -forgiven:
		return off
	case off > h.TTL+forgiven:
		return off
	}
	return 0
}
