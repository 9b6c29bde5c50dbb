package inbox

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/mirrorbus/mirrorbus/internal/fault"
)

// stateLock is the lock file of a state folder. It holds the owner's process id while it is owned, so that what is left there after the owner
// has gone tells that it did not end in order.
type stateLock struct {
	file    *os.File
	unclean bool
}

func lockDir(dir string) (*stateLock, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("state folder: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state folder: %w", err)
	}
	locked := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	owner, err := io.ReadAll(io.LimitReader(f, 64))
	switch {
	case errors.Is(locked, unix.EWOULDBLOCK):
		err = fault.With(fmt.Errorf("state folder %s: %w (%s)", dir, ErrInUse, strings.TrimSpace(string(owner))), fault.Unavailable,
			"stop the other agent, or give this one a state folder of its own")
	case locked != nil:
		err = fmt.Errorf("lock state folder %s: %w", dir, locked)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &stateLock{file: f, unclean: len(owner) > 0}, nil
}

// claim writes who owns the folder from now on.
func (l *stateLock) claim() error {
	if err := l.file.Truncate(0); err != nil {
		return fmt.Errorf("state folder: %w", err)
	}
	if _, err := l.file.WriteAt(fmt.Appendf(nil, "process %d\n", os.Getpid()), 0); err != nil && !isFull(err) {
		return fmt.Errorf("state folder: %w", err)
	}
	return nil
}

// release gives the folder up after everything was closed in order.
func (l *stateLock) release() error {
	return errors.Join(l.file.Truncate(0), l.file.Close())
}

// abandon gives the folder up and leaves what the file says.
func (l *stateLock) abandon() error { return l.file.Close() }
