// Package fault carries what a command line owes its user beside an error: a hint at the remedy and an exit status.
package fault

import "errors"

// The exit statuses, from sysexits.h where it has one.
const (
	OK          = 0
	Failed      = 1
	Usage       = 2
	Unavailable = 69 // a daemon or an upstream that is needed does not answer
	TryAgain    = 75 // nothing is lost; the same command may work later
	Config      = 78
)

// A Fault is an error with its hint and status.
type Fault struct {
	Err    error
	Hint   string
	Status int
}

func (f *Fault) Error() string { return f.Err.Error() }
func (f *Fault) Unwrap() error { return f.Err }

// With adds a status and a hint to an error. nil stays nil.
func With(err error, status int, hint string) error {
	if err == nil {
		return nil
	}
	return &Fault{Err: err, Hint: hint, Status: status}
}

// StatusOf is the exit status that err asks for: that of the outermost Fault, or Failed.
func StatusOf(err error) int {
	var f *Fault
	switch {
	case err == nil:
		return OK
	case errors.As(err, &f) && f.Status != 0:
		return f.Status
	}
	return Failed
}

// HintOf is the outermost hint in err, or "".
func HintOf(err error) string {
	var f *Fault
	for errors.As(err, &f) {
		if f.Hint != "" {
			return f.Hint
		}
		err = f.Err
	}
	return ""
}
