// Package inbox keeps what a mirror has heard and what it has done, in one SQLite database: the announcements per module, the newest head, how
// far each module is, what is wrong with it, and (in the same database) the reports still to be sent.
//
// Every method that changes something is one transaction, with synchronous=FULL: what Put has returned for may be acknowledged to the bus, and
// what Finish has returned for is done, after any crash. Nothing here decides; package listener does, from what [Inbox.Look] returns.
//
// The state folder holds the database state.db, the file lock (one process at a time; its content tells an unclean stop) and the file ballast,
// room that is given back when the disk is full, so that even this can be written down.
package inbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/internal/sqlite"
	"github.com/mirrorbus/mirrorbus/internal/statelock"
	"github.com/mirrorbus/mirrorbus/transports"
)

// DatabaseName is the database's name in the state folder.
const DatabaseName = "state.db"

// Errors of Open that a caller may want to tell apart. Their faults carry the remedy.
var (
	ErrInUse   = statelock.ErrInUse
	ErrCorrupt = errors.New("damaged")
)

// Options are what an inbox needs from its surroundings.
type Options struct {
	// Schema are further components of the same database: the outbox.
	Schema []sqlite.Component

	// LockWait is how long Open waits for another process that has the state folder. Zero: not at all.
	LockWait time.Duration

	// Seal signs a report and makes the message that carries it.
	Seal func(event.Report) (transports.Message, error)

	// Enqueue puts a message into the outbox within the transaction.
	Enqueue func(context.Context, *sql.Tx, transports.Message) error

	// Keep is how many applied announcements per module are kept, without their path sets, to know repeats and equivocation by. 1000 if zero.
	Keep int

	// Ballast is the size of the ballast file in bytes, 8 MiB if zero.
	Ballast int64
}

// An Inbox is an open state folder.
type Inbox struct {
	dir  string
	o    Options
	db   *sql.DB
	lock *statelock.Held
}

// Open opens or makes the state folder dir and keeps other processes out of it until Close.
func Open(ctx context.Context, dir string, o Options) (*Inbox, error) {
	if o.Keep == 0 {
		o.Keep = 1000
	}
	if o.Ballast == 0 {
		o.Ballast = 8 << 20
	}
	lock, err := statelock.Lock(ctx, dir, statelock.Options{Wait: o.LockWait,
		Hint: "stop the other agent, or give this one a state folder of its own"})
	if err != nil {
		return nil, err
	}
	b := &Inbox{dir: dir, o: o, lock: lock}
	if err := b.open(ctx); err != nil {
		return nil, errors.Join(err, lock.Abandon())
	}
	return b, nil
}

func (b *Inbox) open(ctx context.Context) error {
	path := filepath.Join(b.dir, DatabaseName)
	own := []sqlite.Component{{Name: "inbox", Steps: schema}}
	db, err := sqlite.Open(ctx, path, sqlite.Options{Durability: sqlite.Full, Schema: slices.Concat(own, b.o.Schema)})
	switch {
	case errors.Is(err, sqlite.ErrNewer):
		return fault.With(err, fault.Config, "run the newer version again, or move the state folder aside: the agent rebuilds it from the upstream's head and manifest")
	case isCorrupt(err):
		return corrupt(path, err)
	case err != nil:
		return err
	}
	if b.lock.Unclean() {
		err = quickCheck(ctx, db, path)
	}
	if err == nil {
		err = b.lock.Claim()
	}
	if err != nil {
		return errors.Join(err, db.Close())
	}
	b.db = db
	b.refill()
	return nil
}

// DB is the database, for the outbox that lives in it.
func (b *Inbox) DB() *sql.DB { return b.db }

// Close closes the database and gives the state folder up.
func (b *Inbox) Close() error {
	if err := b.db.Close(); err != nil {
		return errors.Join(err, b.lock.Abandon())
	}
	return b.lock.Release()
}

// tx runs f in one transaction. When the disk is full it gives the ballast back and tries once more.
func (b *Inbox) tx(ctx context.Context, f func(*sql.Tx) error) error {
	err := sqlite.Tx(ctx, b.db, f)
	if isFull(err) && b.dropBallast() {
		err = sqlite.Tx(ctx, b.db, f)
	}
	if isFull(err) {
		return fault.With(fmt.Errorf("write the state in %s: %w", b.dir, err), fault.TryAgain, "make room on the file system of the state folder")
	}
	return err
}
