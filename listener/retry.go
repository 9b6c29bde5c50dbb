package listener

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/listener/hook"
	"github.com/mirrorbus/mirrorbus/listener/pace"
	"github.com/mirrorbus/mirrorbus/listener/rsync"
)

// A behindError says that the upstream does not have yet what was announced: no fault of this mirror.
type behindError struct {
	at, want event.Serial
	path     string // that shows it, "" if only its head does
	stale    string // that its head has expired, "" if it has not
}

func (e *behindError) Error() string {
	text := fmt.Sprintf("upstream is behind (at %d, announced is %d)", e.at, e.want)
	if e.stale != "" {
		text += ", and " + e.stale
	}
	if e.path != "" {
		text += fmt.Sprintf(": %.300q is not there as announced", e.path)
	}
	return text
}

// A staleError says that the upstream's head is not to be followed.
type staleError struct {
	head event.Head
	why  string
}

func (e *staleError) Error() string {
	return fmt.Sprintf("the upstream is out of date: its head, serial %d signed at %s, %s", e.head.Serial, e.head.At.Format(time.RFC3339), e.why)
}

// An aheadError says that an index on the upstream is newer than announced: what it names is not known yet. Its announcement is on the way, or the
// master has still to publish it.
type aheadError struct {
	path string
	what string
}

func (e *aheadError) Error() string {
	return fmt.Sprintf("index %.300q on the upstream %s: waiting for its announcement", e.path, e.what)
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

// A RateError says that something is left to be done for a module now, and when its rate allows that.
type RateError struct {
	Module event.Module
	Why    string
	At     time.Time
}

func (e *RateError) Error() string { return fmt.Sprintf("module %s: %s", e.Module, e.Why) }

// A pathError is about one path; what it wraps says what is wrong.
type pathError struct {
	path string
	err  error
}

func (e *pathError) Error() string { return fmt.Sprintf("%.300q: %v", e.path, e.err) }
func (e *pathError) Unwrap() error { return e.err }

// An unfinishedError says that the upstream is being brought up to date itself: its indexes may name what it does not have.
type unfinishedError struct{ file string }

func (e *unfinishedError) Error() string {
	return fmt.Sprintf("the upstream is itself being brought up to date (%.300q is there): waiting until it is done", e.file)
}

// failureOf says what an error is to those who decide what comes next.
func failureOf(err error, through event.Serial) pace.Failure {
	f := pace.Failure{Cause: causeOf(err), Error: err.Error(), Path: pathOf(err), Through: through}
	var later *laterError
	if errors.As(err, &later) {
		f.Wait = later.wait
	}
	return f
}

func causeOf(err error) pace.Cause {
	var behind *behindError
	var unfinished *unfinishedError
	var stale *staleError
	var ahead *aheadError
	var held *heldError
	var failed *rsync.Error
	var later *laterError
	var exit *hook.ExitError
	switch {
	case errors.As(err, &behind), errors.As(err, &unfinished):
		return pace.NotReady
	case errors.As(err, &stale):
		return pace.Outdated
	case errors.As(err, &ahead):
		return pace.IndexAhead
	case errors.As(err, &later):
		return pace.Limited
	case errors.As(err, &exit) && exit.Status == hook.TryAgain:
		return pace.Crowded
	case errors.As(err, &held):
		return pace.Unallowed
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return pace.DiskFull
	case errors.As(err, &failed):
		return rsyncCause(failed)
	}
	return pace.Other
}

func rsyncCause(e *rsync.Error) pace.Cause {
	switch e.Class {
	case rsync.DiskFull:
		return pace.DiskFull
	case rsync.MaxDelete:
		return pace.Unallowed
	case rsync.Busy:
		return pace.Crowded
	}
	switch e.Retry() {
	case rsync.Soon:
		return pace.Passing
	case rsync.Backoff:
		return pace.Other
	}
	return pace.Lasting
}

// pathOf is the path that an error is about, "" if it is about none.
func pathOf(err error) string {
	var behind *behindError
	var ahead *aheadError
	var one *pathError
	var failed *rsync.Error
	switch {
	case errors.As(err, &behind):
		return behind.path
	case errors.As(err, &ahead):
		return ahead.path
	case errors.As(err, &one):
		return one.path
	case errors.As(err, &failed) && len(failed.Paths) > 0:
		return failed.Paths[0].Path
	}
	return ""
}
