package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/mirrorbus/mirrorbus/internal/fault"
)

// stateLock is the lock file of a state folder. It names the owner while there is one, so what is left there by an owner that is gone tells that it
// did not end in order.
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
			"commands talk to the running hub over its socket; to replace it, stop that process first")
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
	if _, err := l.file.WriteAt(fmt.Appendf(nil, "process %d\n", os.Getpid()), 0); err != nil {
		return fmt.Errorf("state folder: %w", err)
	}
	return nil
}

// release gives the folder up after everything was closed in order.
func (l *stateLock) release() error { return errors.Join(l.file.Truncate(0), l.file.Close()) }

// abandon gives the folder up and leaves what the file says.
func (l *stateLock) abandon() error { return l.file.Close() }

// quickCheck looks a database over after an owner that did not end in order.
func quickCheck(ctx context.Context, db *sql.DB, path string) error {
	var verdict string
	err := db.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&verdict)
	if err == nil && verdict != "ok" {
		err = errors.New(verdict)
	}
	if err != nil {
		return corrupt(path, err)
	}
	return nil
}

func corrupt(path string, err error) error {
	return fault.With(fmt.Errorf("journal %s: %w: %w", path, ErrCorrupt, err), fault.Failed,
		"restore the file from a backup, or move it aside, and begin a new epoch: mirrors then compare themselves with the manifest once")
}

// SQLite's result codes, from sqlite.org/rescode.html.
const (
	codeCorrupt = 11
	codeFull    = 13
	codeNotADB  = 26
)

func isCorrupt(err error) bool { return code(err) == codeCorrupt || code(err) == codeNotADB }

// isFull tells whether err is for want of room.
func isFull(err error) bool {
	return code(err) == codeFull || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

// code is SQLite's primary result code in err, or 0.
func code(err error) int {
	var coded interface{ Code() int }
	if errors.As(err, &coded) {
		return coded.Code() & 0xff
	}
	return 0
}
