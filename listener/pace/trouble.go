package pace

import (
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/listener/inbox"
)

// A Cause is a kind of failure, as far as it matters for what comes next.
type Cause string

// The causes.
const (
	Other      Cause = ""          // nothing that is known better
	NotReady   Cause = "not ready" // the upstream does not have yet what was announced
	Outdated   Cause = "outdated"  // the upstream says what was true once, and is not to be followed there
	IndexAhead Cause = "ahead"     // an index on the upstream is newer than announced: its announcement is on the way
	Limited    Cause = "limited"   // a rate budget does not allow the work yet
	Crowded    Cause = "crowded"   // the upstream has no room for one more now
	Passing    Cause = "passing"   // a connection lost on the way, a file that went: likely to be over at once
	Lasting    Cause = "lasting"   // a configuration or permission that somebody must mend
	DiskFull   Cause = "disk full" // of this mirror
	Unallowed  Cause = "unallowed" // an operator must allow the deletions
)

// A Failure is what went wrong with a module's last work.
type Failure struct {
	Cause   Cause
	Wait    time.Duration // Limited: until the budget allows it
	Error   string
	Path    string       // that it is about, "" if it is about none
	Through event.Serial // the last serial of what was tried
}

// A Tempo is how the attempts after a kind of failure follow each other.
type Tempo struct {
	First, Most time.Duration // the limit that the wait is drawn below: doubled each time from First up to Most
	Full        bool          // drawn from 0, so that many mirrors part; else from half the limit
}

// longestWait is the longest between two attempts.
const longestWait = 30 * time.Minute

// Brief is the First wait for an announcement that is on its way.
const Brief = 300 * time.Millisecond

// Answer says what a failure means for the module: its state, and how it is tried again; nil for not by itself.
func (f Failure) Answer() (State, *Tempo) {
	switch f.Cause {
	case NotReady:
		return Waiting, &Tempo{First: 2 * time.Second, Most: 30 * time.Second}
	case Outdated:
		return Stale, &Tempo{First: 30 * time.Second, Most: 10 * time.Minute}
	case IndexAhead:
		return Waiting, &Tempo{First: Brief, Most: 30 * time.Second}
	case Limited:
		wait := min(2*f.Wait, longestWait) // to ask earlier whether it is allowed costs little
		return Retrying, &Tempo{First: wait, Most: wait}
	case Crowded:
		return Retrying, &Tempo{First: 10 * time.Second, Most: 2 * time.Minute, Full: true}
	case Passing:
		return Retrying, &Tempo{First: 2 * time.Second, Most: 30 * time.Second}
	case Lasting:
		return Retrying, &Tempo{First: 5 * time.Minute, Most: longestWait}
	case DiskFull:
		return Blocked, &Tempo{First: 30 * time.Second, Most: 30 * time.Second}
	case Unallowed:
		return Held, nil
	}
	return Retrying, &Tempo{First: 5 * time.Second, Most: 5 * time.Minute}
}

// Wait is how long to wait after so many attempts. spread is a random number from 0 to 1.
func (t Tempo) Wait(attempts int, spread float64) time.Duration {
	limit := t.First
	for n := 1; n < attempts && limit < t.Most; n++ {
		limit *= 2
	}
	limit = min(limit, t.Most)
	if t.Full {
		return time.Duration(spread * float64(limit))
	}
	return limit/2 + time.Duration(spread*float64(limit)/2)
}

// After notes a failure beside those before it.
func After(before inbox.Trouble, f Failure, now time.Time, spread float64) inbox.Trouble {
	kind, tempo := f.Answer()
	t := inbox.Trouble{Kind: string(kind), Error: f.Error, Path: f.Path, Through: f.Through, Since: before.Since, Attempts: before.Attempts + 1}
	if before.Kind != t.Kind || t.Since.IsZero() {
		t.Since, t.Attempts = now, 1
	}
	if tempo != nil {
		t.Next = now.Add(max(tempo.Wait(t.Attempts, spread), time.Millisecond))
	}
	return t
}

// sayEvery is after how many attempts the same failure is reported again.
const sayEvery = 20

// WorthSaying tells whether a failure is news to the master: another one than before, or one that has been going on for long.
func WorthSaying(before, now inbox.Trouble) bool {
	return before.Kind != now.Kind || before.Error != now.Error || now.Attempts%sayEvery == 0
}

// Outcome is how a state of trouble is reported.
func (s State) Outcome() event.Outcome {
	if s == Blocked || s == Held {
		return event.Blocked
	}
	return event.Failed
}
