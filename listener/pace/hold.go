package pace

import (
	"fmt"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/listener/inbox"
)

// HeldUntil is until when the newest head holds the module back, because the master is in the middle of a compose; zero if nothing does. Only that head
// counts, and no longer than it says: by this host's clock, but for the difference that is forgiven, and from when it came, whatever the clocks say. A
// change that was announced after it tells that the compose has ended. A head that has expired holds on to its time, as the master may be down meanwhile.
func HeldUntil(s inbox.Snapshot, now time.Time, skew time.Duration) time.Time {
	h := s.Head
	if h == nil || h.Hold == 0 {
		return time.Time{}
	}
	for _, i := range s.Todo {
		if i.Kind == event.Change && i.Serial > h.Serial && s.Epoch == h.Epoch {
			return time.Time{}
		}
	}
	until := h.At.Add(h.Hold)
	if signed := h.Head.At.Add(h.Hold + skew); signed.Before(until) {
		until = signed
	}
	if !now.Before(until) || now.Before(h.At.Add(-skew)) { // or the clock was set back since
		return time.Time{}
	}
	return until
}

// holds tells whether the master is in the middle of a compose.
func (p Tuning) holds(v View) bool { return !HeldUntil(v.Snapshot, v.Now, p.Skew).IsZero() }

// unlessHeld is the action, or a wait where it would bring what a compose under way may leave half made. What is asked for meanwhile is how the upstream
// stands, which costs little and may show that the compose has ended.
func (p Tuning) unlessHeld(v View, a Action) Action {
	until := HeldUntil(v.Snapshot, v.Now, p.Skew)
	if until.IsZero() {
		return a
	}
	if a.Do == Compare || a.Do == Push && v.Push.Plain {
		a = p.watch(v)
	}
	if a.Do == Wait {
		if a.At.IsZero() || until.Before(a.At) {
			a.At = until
		}
		a.Why = fmt.Sprintf("the master is in the middle of a compose, until %s at the latest", until.UTC().Format(time.RFC3339))
	}
	return a
}
