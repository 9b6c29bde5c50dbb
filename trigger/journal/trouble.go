package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/mirrorbus/mirrorbus/internal/fault"
)

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
