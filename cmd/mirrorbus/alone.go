package main

import (
	"errors"
	"fmt"

	"github.com/mirrorbus/mirrorbus/internal/control"
	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/internal/statelock"
)

// orAlone has the daemon behind socket do it or, while none answers, does it alone. Who else has the state folder may be a daemon that has just
// started: it is asked once more.
func orAlone(socket string, ask, alone func() error) error {
	err := ask()
	if !control.IsDown(err) {
		return err
	}
	if err = alone(); !errors.Is(err, statelock.ErrInUse) {
		return err
	}
	if again := ask(); !control.IsDown(again) {
		return again
	}
	return fault.With(fmt.Errorf("%w, and no daemon answers on %s", err, socket), fault.Unavailable,
		"if that process is a daemon, its control socket was removed or is set differently there: restart it; else try again when it has ended")
}
