package manifest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/internal/sqlite"
)

// A place is where a tree lies. It tells a tree from an empty folder on which nothing is mounted, and from another disk.
type place struct {
	kind  int64 // of file system
	fsid  int64 // 0 where the file system has none
	inode int64 // of the root of the tree
}

func placeOf(root *os.Root) (p place, err error) {
	f, err := root.Open(".")
	if err != nil {
		return place{}, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	var at unix.Statfs_t
	var st unix.Stat_t
	if err := unix.Fstatfs(int(f.Fd()), &at); err != nil {
		return place{}, &os.PathError{Op: "statfs", Path: root.Name(), Err: err}
	}
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return place{}, &os.PathError{Op: "stat", Path: root.Name(), Err: err}
	}
	return place{kind: int64(at.Type), fsid: int64(at.Fsid.Val[0])<<32 | int64(uint32(at.Fsid.Val[1])), inode: int64(st.Ino)}, nil
}

// settle notes where the tree lies, and the mount points in it.
func settle(ctx context.Context, tx *sql.Tx, at place, mounts []string) error {
	for _, table := range []string{"root", "mount"} {
		if _, err := tx.ExecContext(ctx, "DELETE FROM "+table); err != nil {
			return err
		}
	}
	if _, err := tx.ExecContext(ctx, "INSERT INTO root (type, fsid, inode) VALUES (?, ?, ?)", at.kind, at.fsid, at.inode); err != nil {
		return err
	}
	for _, path := range mounts {
		if _, err := tx.ExecContext(ctx, "INSERT INTO mount (path) VALUES (?)", []byte(path)); err != nil {
			return err
		}
	}
	return nil
}

// Settle notes that the tree lies where d, a comparison of all of it, has found it.
func (m *Manifest) Settle(ctx context.Context, d Difference) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return sqlite.Tx(ctx, m.db, func(tx *sql.Tx) error { return settle(ctx, tx, d.at, d.Mounts) })
}

// settled is where the tree lay, ok false if that was not noted, and the mount points in it.
func (m *Manifest) settled(ctx context.Context) (at place, mounts map[string]bool, ok bool, err error) {
	err = m.look.QueryRowContext(ctx, "SELECT type, fsid, inode FROM root").Scan(&at.kind, &at.fsid, &at.inode)
	if errors.Is(err, sql.ErrNoRows) {
		return place{}, nil, false, nil
	}
	if err != nil {
		return place{}, nil, false, err
	}
	rows, err := m.look.QueryContext(ctx, "SELECT path FROM mount")
	if err != nil {
		return place{}, nil, false, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	mounts = map[string]bool{}
	for rows.Next() {
		var path []byte
		if err := rows.Scan(&path); err != nil {
			return place{}, nil, false, err
		}
		mounts[string(path)] = true
	}
	return at, mounts, true, rows.Err()
}

// ErrElsewhere says that a tree, or a part of it, is not the one that the manifest was made of: a file system was mounted or unmounted.
var ErrElsewhere = errors.New("the tree is not the one that the manifest was made of")

const movedHint = "nothing was announced; mount what belongs there, or if it is meant to be like this, scan the whole module with --moved"

func elsewhere(format string, args ...any) error {
	return fault.With(fmt.Errorf("%w: "+format, append([]any{ErrElsewhere}, args...)...), fault.Failed, movedHint)
}
