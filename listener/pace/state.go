package pace

import (
	"time"

	"github.com/mirrorbus/mirrorbus/listener/inbox"
)

// A State is the one word that tells where a module of this mirror stands. It is worked out from what is stored, never stored itself; only the
// words for trouble are, as inbox.Trouble.Kind.
type State string

// The states. What comes next without an operator is said with each.
const (
	New         State = "new"              // never compared with the upstream's manifest: it will be, then it is current
	Current     State = "current"          // everything heard of is on disk, and the head that says so is fresh
	Behind      State = "behind"           // something was heard that is not on disk: it is about to be fetched
	Syncing     State = "syncing"          // a batch is running
	Composing   State = "composing"        // something is to be fetched, and the master is in the middle of a compose: fetched when that ends, or at the time shown
	Waiting     State = "waiting-upstream" // the upstream does not have it yet: asked again in seconds
	Retrying    State = "retrying"         // the last attempt failed: tried again at the time shown
	Blocked     State = "blocked"          // the disk is full: goes on by itself once there is room
	Held        State = "held"             // more deletions than allowed: waits for `mirrorbus agent confirm MODULE`
	Quarantined State = "quarantined"      // one serial was heard with two different contents: waits for `mirrorbus agent release MODULE`
	Deaf        State = "deaf"             // nothing is missing as far as is known, but the newest head has expired: the upstream is asked again and again
	Stale       State = "stale"            // the upstream was asked, and what it says is out of date: a head that has expired, or of an older history. It is asked again
)

// States lists all words, the best first.
func States() []State {
	return []State{Current, Syncing, Behind, New, Composing, Waiting, Retrying, Deaf, Stale, Blocked, Held, Quarantined}
}

// StateOf works out the state and since when it is so. running is when the batch that runs began, zero if there is none.
func StateOf(s inbox.Snapshot, running, now time.Time, skew time.Duration) (State, time.Time) {
	switch {
	case s.Quarantine != "":
		return Quarantined, s.Quarantined
	case !running.IsZero():
		return Syncing, running
	case waitsForCompose(s, now, skew):
		return Composing, s.Head.At
	case s.Trouble.Kind != "":
		return State(s.Trouble.Kind), s.Trouble.Since
	case s.Push.Waits():
		return Behind, s.Push.At
	case s.Epoch == "" && s.Head == nil && s.Push.Plain:
		return Current, s.Push.Synced
	case s.Epoch == "":
		return New, s.Created
	case s.Top > s.Applied:
		return Behind, s.Oldest
	case s.Head == nil:
		return Deaf, s.AppliedAt
	case s.Head.Expired(now, skew) && s.Head.Via == inbox.ViaUpstream:
		return Stale, s.Head.Head.At.Add(s.Head.TTL)
	case s.Head.Expired(now, skew):
		return Deaf, s.Head.Head.At.Add(s.Head.TTL)
	}
	return Current, s.AppliedAt
}

// waitsForCompose tells whether there is work that a compose under way keeps from being done. Trouble that it did not make goes before.
func waitsForCompose(s inbox.Snapshot, now time.Time, skew time.Duration) bool {
	if HeldUntil(s, now, skew).IsZero() || State(s.Trouble.Kind) == Held || State(s.Trouble.Kind) == Blocked {
		return false
	}
	return s.Epoch == "" || s.Top > s.Applied || s.Push.Waits() && s.Push.Plain
}
