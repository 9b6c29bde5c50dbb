package inbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/mirrorbus/mirrorbus/internal/fault"
)

// Primary result codes of SQLite, from https://www.sqlite.org/rescode.html.
const (
	codeCorrupt = 11
	codeFull    = 13
	codeNotADB  = 26
	codeShmSize = 10 | 19<<8 // extended: the shared index of the write-ahead log could not grow
)

// code is the primary result code of SQLite in err, 0 for none.
func code(err error) int {
	var e interface{ Code() int } // the driver's error; only package sqlite imports the driver
	if errors.As(err, &e) {
		if e.Code() == codeShmSize {
			return codeFull
		}
		return e.Code() & 0xff
	}
	return 0
}

func isCorrupt(err error) bool { return code(err) == codeCorrupt || code(err) == codeNotADB }

// isFull tells whether err is for want of room.
func isFull(err error) bool {
	return code(err) == codeFull || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

// corrupt names the file and the remedy.
func corrupt(path string, err error) error {
	return fault.With(fmt.Errorf("database %s is %w: %w", path, ErrCorrupt, err), fault.Failed,
		"move "+path+" and its -wal and -shm files aside and start again: the agent rebuilds its state from the upstream's head and manifest, without a new transfer")
}

// quickCheck looks over the database after a stop that was not in order.
func quickCheck(ctx context.Context, db *sql.DB, path string) error {
	var answer string
	err := db.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&answer)
	switch {
	case isCorrupt(err):
		return corrupt(path, err)
	case err != nil:
		return fmt.Errorf("check %s: %w", path, err)
	case answer != "ok":
		return corrupt(path, errors.New(answer))
	}
	return nil
}

func (b *Inbox) ballastPath() string { return filepath.Join(b.dir, "ballast") }

// dropBallast gives the ballast's room back and tells whether there was any.
func (b *Inbox) dropBallast() bool { return os.Remove(b.ballastPath()) == nil }

// refill makes the ballast again if it is missing and there is room for twice as much. Without room there is no ballast, and that is no error.
func (b *Inbox) refill() {
	var fs unix.Statfs_t
	if _, err := os.Lstat(b.ballastPath()); err == nil || unix.Statfs(b.dir, &fs) != nil || int64(fs.Bavail)*fs.Bsize < 2*b.o.Ballast {
		return
	}
	f, err := os.OpenFile(b.ballastPath(), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return
	}
	if err := errors.Join(unix.Fallocate(int(f.Fd()), 0, 0, b.o.Ballast), f.Close()); err != nil {
		b.dropBallast()
	}
}
