package listener

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"syscall"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/listener/hook"
	"github.com/mirrorbus/mirrorbus/listener/inbox"
	"github.com/mirrorbus/mirrorbus/listener/rsync"
)

// A behindError says that the upstream does not have yet what was announced: no fault of this mirror.
type behindError struct {
	at, want event.Serial
	path     string // that shows it, "" if only its head does
}

func (e *behindError) Error() string {
	if e.path != "" {
		return fmt.Sprintf("upstream is behind (at %d, announced is %d): %.300q is not there as announced", e.at, e.want, e.path)
	}
	return fmt.Sprintf("upstream is behind (at %d, announced is %d)", e.at, e.want)
}

// A heldError says that an operator must allow what the batch would delete.
type heldError struct{ why string }

func (e *heldError) Error() string { return e.why }

// A laterError says that a rate budget does not allow the work yet.
type laterError struct {
	wait time.Duration
	why  string
}

func (e *laterError) Error() string { return e.why }

// A pathError is about one path; what it wraps says what is wrong.
type pathError struct {
	path string
	err  error
}

func (e *pathError) Error() string { return fmt.Sprintf("%.300q: %v", e.path, e.err) }
func (e *pathError) Unwrap() error { return e.err }

// A tempo is how the attempts after a kind of failure follow each other.
type tempo struct {
	first, most time.Duration // the limit that the wait is drawn below: doubled each time from first up to most
	full        bool          // drawn from 0, so that many mirrors part; else from half the limit
}

var (
	soon    = tempo{first: 2 * time.Second, most: 30 * time.Second}
	backoff = tempo{first: 5 * time.Second, most: 5 * time.Minute}
	crowd   = tempo{first: 10 * time.Second, most: 5 * time.Minute, full: true}
	slow    = tempo{first: 5 * time.Minute, most: 30 * time.Minute}
	probe   = tempo{first: 30 * time.Second, most: 30 * time.Second}
)

// classify says what an error means for the module: its state, and how it is tried again; nil for not by itself.
func classify(err error) (State, *tempo) {
	var behind *behindError
	var held *heldError
	var failed *rsync.Error
	var later *laterError
	var exit *hook.ExitError
	switch {
	case errors.As(err, &behind):
		return Waiting, &soon
	case errors.As(err, &later):
		return Retrying, &tempo{first: 2 * later.wait, most: 2 * later.wait}
	case errors.As(err, &exit) && exit.Status == hook.TryAgain:
		return Retrying, &crowd
	case errors.As(err, &held):
		return Held, nil
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return Blocked, &probe
	case errors.As(err, &failed):
		return classifyRsync(failed)
	}
	return Retrying, &backoff
}

func classifyRsync(e *rsync.Error) (State, *tempo) {
	switch e.Class {
	case rsync.DiskFull:
		return Blocked, &probe
	case rsync.MaxDelete:
		return Held, nil
	case rsync.Busy:
		return Retrying, &crowd
	}
	switch e.Retry() {
	case rsync.Soon:
		return Retrying, &soon
	case rsync.Backoff:
		return Retrying, &backoff
	}
	return Retrying, &slow
}

// wait is how long to wait after so many attempts. spread is a random number from 0 to 1.
func (t tempo) wait(attempts int, spread float64) time.Duration {
	limit := t.first << min(max(attempts-1, 0), 20)
	limit = min(limit, t.most)
	if t.full {
		return time.Duration(spread * float64(limit))
	}
	return limit/2 + time.Duration(spread*float64(limit)/2)
}

// trouble notes a failure beside those before it.
func trouble(before inbox.Trouble, err error, through event.Serial, now time.Time, spread float64) inbox.Trouble {
	kind, tempo := classify(err)
	t := inbox.Trouble{Kind: string(kind), Error: err.Error(), Path: pathOf(err), Through: through, Since: before.Since, Attempts: before.Attempts + 1}
	if before.Kind != t.Kind || t.Since.IsZero() {
		t.Since, t.Attempts = now, 1
	}
	if tempo != nil {
		t.Next = now.Add(max(tempo.wait(t.Attempts, spread), time.Millisecond))
	}
	return t
}

// pathOf is the path that an error is about, "" if it is about none.
func pathOf(err error) string {
	var behind *behindError
	var one *pathError
	var failed *rsync.Error
	switch {
	case errors.As(err, &behind):
		return behind.path
	case errors.As(err, &one):
		return one.path
	case errors.As(err, &failed) && len(failed.Paths) > 0:
		return failed.Paths[0].Path
	}
	return ""
}

// sayEvery is after how many attempts the same failure is reported again.
const sayEvery = 20

// worthSaying tells whether a failure is news to the master: another one than before, or one that has been going on for long.
func worthSaying(before, now inbox.Trouble) bool {
	return before.Kind != now.Kind || before.Error != now.Error || now.Attempts%sayEvery == 0
}

// outcomeOf is how a state of trouble is reported.
func outcomeOf(s State) event.Outcome {
	if s == Blocked || s == Held {
		return event.Blocked
	}
	return event.Failed
}

// spread is the random number that keeps mirrors apart.
func spread() float64 { return rand.Float64() }
