package rsync

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// lock takes the lock that the job needs, nil for none. Closing the file gives it back, once rsync has ended too.
func (r *Runner) lock(j Job) (*os.File, *Error) {
	name := r.cfg.LockFile
	switch {
	case j.dry() || j.Mode == Fetch:
		return nil, nil
	case j.Mode == Flip:
		name += ".flip"
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return nil, bad(Permanent, err)
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, bad(Permanent, err)
	}
	if err = flock(f); err == nil {
		return f, nil
	}
	err = errors.Join(fmt.Errorf("lock %s: %w", name, err), f.Close())
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, bad(Locked, fmt.Errorf("%s is locked: another rsync of this destination is still running", name))
	}
	return nil, bad(Permanent, err)
}

// lockPatience is how long a lock is waited for. A process that this one is just starting for something else holds a copy of it until it has become another
// program, and an rsync whose agent was killed until it has noticed: on a busy machine that takes a moment.
const lockPatience = 2 * time.Second

// flock locks f.
func flock(f *os.File) (err error) {
	for end := time.Now().Add(lockPatience); ; time.Sleep(5 * time.Millisecond) {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(end) {
			return err
		}
	}
}
