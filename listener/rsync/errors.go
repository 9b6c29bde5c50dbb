package rsync

import (
	"errors"
	"fmt"
	"strings"
)

// A Class says what kind of trouble ended a job. The words are fit for status output.
type Class string

// The classes, each with what the caller does about it (see Class.Retry).
const (
	Busy        Class = "busy"        // max connections reached or connection refused: Backoff
	Unavailable Class = "unavailable" // upstream not reached, or it cannot serve the module now: Backoff
	Interrupted Class = "interrupted" // connection lost, a process killed, context done: Backoff
	Timeout     Class = "timeout"     // no bytes for too long: Backoff
	Locked      Class = "locked"      // another run holds the lock of this destination: Backoff
	Vanished    Class = "vanished"    // files went away while they were read (24): Soon, after a look at the journal
	Partial     Class = "partial"     // some paths were not brought (23), see Error.Paths: Soon
	DiskFull    Class = "disk full"   // no space, inodes or quota on the mirror: Blocked
	MaxDelete   Class = "max delete"  // more would be deleted than the job allows: Human
	Auth        Class = "refused"     // wrong user, password, key or module name: Human
	Permanent   Class = "config"      // a wrong option, a missing program, a destination that cannot be used: Human
	Unrequested Class = "unrequested" // the upstream sent names nobody asked for: Human, an attack or a broken upstream
	BadJob      Class = "bad job"     // the job itself is wrong, nothing was started: Human
)

// A Retry says when trying the same job again can help.
type Retry string

// The retries.
const (
	Soon    Retry = "soon"    // in seconds: the upstream may just not be there yet
	Backoff Retry = "backoff" // with growing, jittered pauses
	Blocked Retry = "blocked" // when the mirror has room again; look every minute or so
	Human   Retry = "human"   // when somebody has changed something
)

// Retry says when trying again can help.
func (c Class) Retry() Retry {
	switch c {
	case Vanished, Partial:
		return Soon
	case Busy, Unavailable, Interrupted, Timeout, Locked:
		return Backoff
	case DiskFull:
		return Blocked
	}
	return Human
}

// A Kind says what is wrong with one path.
type Kind string

// The kinds.
const (
	NotFound   Kind = "not found"          // on the upstream
	Gone       Kind = "vanished"           // on the upstream, while it was read
	Unstable   Kind = "changed meanwhile"  // its content did not hold still while it was read
	Permission Kind = "permission denied"  // on the upstream: embargoed; on the mirror: see Local
	NoSpace    Kind = "no space"           // on the mirror
	ReadOnly   Kind = "read-only"          // the file system of the mirror
	Loop       Kind = "symlink in the way" // a parent is a symbolic link that is not configured
	NotDir     Kind = "parent is a file"
	TooLong    Kind = "name too long"
	InTheWay   Kind = "directory in the way" // a non-empty directory where a file belongs, and deleting is not allowed
	Rejected   Kind = "rejected"             // refused by rsync's own check of names
	Other      Kind = "failed"
)

// A PathError is what is wrong with one path.
type PathError struct {
	Path  string // relative to the module where rsync's words could be matched with a listed path, else as rsync named it
	Kind  Kind
	Local bool   // on the mirror, not on the upstream
	Text  string // rsync's words, or ours
}

func (p PathError) String() string {
	where := "on the upstream"
	if p.Local {
		where = "on this mirror"
	}
	return fmt.Sprintf("%.300q: %s %s: %s", p.Path, p.Kind, where, p.Text)
}

// MaxPathErrors is how many path errors an Error holds; the others are only counted.
const MaxPathErrors = MaxNames

// An Error is a job that was not done, or not all of it.
type Error struct {
	Class   Class
	Code    int         // rsync's exit status, -1 if it was killed or not started
	Paths   []PathError // at most MaxPathErrors
	Omitted int         // further path errors
	Stderr  []string    // rsync's last words
	Cause   error       // what we know besides: the context's cause, a file error
}

func (e *Error) Error() string {
	parts := []string{"rsync: " + string(e.Class)}
	if e.Code > 0 {
		parts[0] += fmt.Sprintf(" (exit status %d)", e.Code)
	}
	if e.Cause != nil {
		parts = append(parts, e.Cause.Error())
	}
	switch n := len(e.Paths) + e.Omitted; {
	case n > 1:
		parts = append(parts, fmt.Sprintf("%s, and %d more paths", e.Paths[0], n-1))
	case n == 1:
		parts = append(parts, e.Paths[0].String())
	case len(e.Stderr) > 0 && e.Code > 0:
		parts = append(parts, e.reason())
	}
	return strings.Join(parts, ": ")
}

// reason is the line of stderr that tells most: the first one that is not rsync's own summary.
func (e *Error) reason() string {
	for _, line := range e.Stderr {
		if !strings.HasPrefix(line, "rsync error:") && !strings.Contains(line, "connection unexpectedly closed") {
			return line
		}
	}
	return e.Stderr[0]
}

func (e *Error) Unwrap() error { return e.Cause }

// Retry says when trying the job again can help.
func (e *Error) Retry() Retry { return e.Class.Retry() }

func (e *Error) addPath(p PathError) {
	if len(e.Paths) == MaxPathErrors {
		e.Omitted++
		return
	}
	e.Paths = append(e.Paths, p)
}

// merge adds what went wrong in a later run of the same job. The graver class wins.
func (e *Error) merge(next *Error) *Error {
	if e == nil {
		return next
	}
	if next == nil {
		return e
	}
	if gravity[next.Class] > gravity[e.Class] {
		e.Class, e.Code, e.Stderr = next.Class, next.Code, next.Stderr
	}
	for _, p := range next.Paths {
		e.addPath(p)
	}
	e.Omitted += next.Omitted
	if next.Cause != nil {
		e.Cause = errors.Join(e.Cause, next.Cause)
	}
	return e
}

// gravity orders the classes after which a job goes on with its next run; all others end it.
var gravity = map[Class]int{Vanished: 1, Partial: 2, MaxDelete: 3}

func bad(class Class, cause error) *Error { return &Error{Class: class, Code: -1, Cause: cause} }
