// Package journal is the master's truth: which announcements were made, in one SQLite database, and how they are exported for mirrors to read.
//
// What Append has returned for is on disk with its serial, its signed line, its path set and whatever the outbox hook stored, all or nothing,
// after any crash (synchronous=FULL). An [Exporter] brings the folder .mirrorbus/ up to date with the journal; it acts on what is stored, so it
// repairs what a crash left undone.
//
// The state folder holds the database journal.db and the file lock: one process at a time has it.
package journal

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/internal/sqlite"
	"github.com/mirrorbus/mirrorbus/internal/statelock"
)

// DatabaseName is the database's name in the state folder.
const DatabaseName = "journal.db"

// Errors that a caller may want to tell apart. Where there is a remedy, it is the hint of a fault around them.
var (
	ErrInUse         = statelock.ErrInUse
	ErrCorrupt       = errors.New("damaged")
	ErrUnknownModule = errors.New("no such module in the journal")
	ErrUnknownSerial = errors.New("no such serial in the journal")
	ErrOtherEpoch    = errors.New("another epoch")
	ErrTrimmed       = errors.New("no longer in the journal")
	ErrRestored      = errors.New("the journal is older than what it has exported")
	ErrRefused       = errors.New("cannot be announced")
	ErrOvertaken     = errors.New("something newer was announced of the same names")
)

// Options are what a journal needs from its surroundings.
type Options struct {
	// Signer signs announcements, flips and heads.
	Signer ssh.Signer

	// Schema are further components of the same database: the outbox.
	Schema []sqlite.Component

	// Outbox stores what is to be sent, in the transaction that makes the announcement true. An error refuses this announcement alone. May be nil.
	Outbox func(context.Context, *sql.Tx, Appended) error

	// LockWait is how long Open waits for another process that has the state folder. Zero: not at all.
	LockWait time.Duration

	// Now is the clock; time.Now if nil.
	Now func() time.Time
}

// A Journal is an open state folder. Its methods may be called from several goroutines.
type Journal struct {
	dir  string
	o    Options
	db   *sql.DB
	lock *statelock.Held

	mu    sync.Mutex // guards queue
	queue []*request
	lead  chan struct{} // held by the one that commits

	spoken spoken // the one that commits knows it
}

const schema = `
CREATE TABLE module (
	module   TEXT PRIMARY KEY,
	epoch    TEXT NOT NULL,
	serial   INTEGER NOT NULL DEFAULT 0,       -- of the newest announcement
	last     BLOB,                             -- digest of its line
	floor    INTEGER NOT NULL DEFAULT 1,       -- entries below were trimmed
	manifest BLOB,                             -- digest of the index that is exported, NULL if none
	manifest_serial INTEGER NOT NULL DEFAULT 0,
	manifest_at     INTEGER NOT NULL DEFAULT 0, -- Unix time
	restored TEXT NOT NULL DEFAULT ''          -- why this epoch must not go on, '' if it may
) WITHOUT ROWID;
CREATE TABLE entry (
	entry     INTEGER PRIMARY KEY,
	module    TEXT NOT NULL REFERENCES module(module),
	epoch     TEXT NOT NULL,
	serial    INTEGER NOT NULL,
	size      INTEGER NOT NULL, -- of line and path set
	created   INTEGER NOT NULL, -- milliseconds since 1970
	records   INTEGER NOT NULL, -- in the path set
	principal TEXT NOT NULL,
	source    TEXT NOT NULL,
	line      BLOB NOT NULL,
	packed    BLOB,             -- compressed path set, NULL if the line names none
	UNIQUE (module, epoch, serial)
);
`

// Open opens or makes the state folder dir and keeps other processes out of it until Close.
func Open(ctx context.Context, dir string, o Options) (*Journal, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	lock, err := statelock.Lock(ctx, dir, statelock.Options{Wait: o.LockWait,
		Hint: "commands talk to the running hub over its socket; to replace it, stop that process first"})
	if err != nil {
		return nil, err
	}
	j := &Journal{dir: dir, o: o, lock: lock, lead: make(chan struct{}, 1)}
	if err := j.open(ctx); err != nil {
		return nil, errors.Join(err, lock.Abandon())
	}
	return j, nil
}

func (j *Journal) open(ctx context.Context) error {
	path := filepath.Join(j.dir, DatabaseName)
	own := []sqlite.Component{{Name: "journal", Steps: []string{schema}}, compositions()}
	db, err := sqlite.Open(ctx, path, sqlite.Options{Durability: sqlite.Full, Schema: slices.Concat(own, j.o.Schema)})
	switch {
	case errors.Is(err, sqlite.ErrNewer):
		return fault.With(err, fault.Config, "run the newer version again; a journal is not read by an older one")
	case isCorrupt(err):
		return corrupt(path, err)
	case err != nil:
		return err
	}
	if j.lock.Unclean() {
		err = quickCheck(ctx, db, path)
	}
	if err == nil {
		err = j.lock.Claim()
	}
	if err != nil {
		return errors.Join(err, db.Close())
	}
	j.db = db
	return nil
}

// Close closes the database and gives the state folder up. No other method may be under way.
func (j *Journal) Close() error {
	if err := j.db.Close(); err != nil {
		return errors.Join(err, j.lock.Abandon())
	}
	return j.lock.Release()
}

// DB is the database, for the outbox that lives in it.
func (j *Journal) DB() *sql.DB { return j.db }

// CreateModule adds a module with a new random epoch. For a module that is there already it returns its epoch and changes nothing.
func (j *Journal) CreateModule(ctx context.Context, m event.Module) (event.Epoch, error) {
	if _, err := event.ParseModule(string(m)); err != nil {
		return "", err
	}
	var epoch event.Epoch
	err := sqlite.Tx(ctx, j.db, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, "INSERT INTO module (module, epoch) VALUES (?, ?) ON CONFLICT DO NOTHING", m, newEpoch()); err != nil {
			return err
		}
		return tx.QueryRowContext(ctx, "SELECT epoch FROM module WHERE module = ?", m).Scan(&epoch)
	})
	return epoch, wrap(err, "create module %s", m)
}

// NewEpoch begins a new history of a module: serials start again at 1, its old entries are gone, and every mirror compares itself with the manifest
// (or the whole tree) once.
func (j *Journal) NewEpoch(ctx context.Context, m event.Module) (event.Epoch, error) {
	epoch := newEpoch()
	err := sqlite.Tx(ctx, j.db, func(tx *sql.Tx) error {
		if _, err := state(ctx, tx, m); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "DELETE FROM entry WHERE module = ?", m); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `UPDATE module SET epoch = ?, serial = 0, last = NULL, floor = 1, manifest = NULL, manifest_serial = 0,
			manifest_at = 0, restored = '' WHERE module = ?`, epoch, m)
		return err
	})
	return epoch, wrap(err, "new epoch of module %s", m)
}

func newEpoch() event.Epoch {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails, since Go 1.24
	return event.Epoch(hex.EncodeToString(b[:]))
}

func wrap(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	err = fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), err)
	if isFull(err) {
		return fault.With(err, fault.TryAgain, "make room on the file system of the journal; nothing that was announced is lost")
	}
	return err
}
