// Package manifest keeps what a module holds: one row for each path with the serial that last touched it, and a tombstone for what was removed.
// It is built by one walk and from then on maintained from announcements, so that the master's tree is not walked again.
//
// It is a SQLite file of its own, with Normal durability: it can lose the last changes in a power cut, never its consistency, and remembers up to
// which serial it is applied, so that the journal brings it up to date. Two tables, directories and names within them, take half the room of one
// table of paths; a build appends to them in order.
package manifest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/internal/sqlite"
)

// ErrNotBuilt says that there is no manifest yet, or that building it was interrupted.
var ErrNotBuilt = errors.New("the manifest is not built")

// A row of entry with mode 0 is a tombstone. The row of shard with start x covers the paths from x up to the next start; the first start is empty.
const schema = `
CREATE TABLE dir (
	dir    INTEGER PRIMARY KEY,
	parent INTEGER,
	path   BLOB NOT NULL UNIQUE
);
CREATE INDEX dir_parent ON dir(parent, path);
CREATE TABLE entry (
	dir    INTEGER NOT NULL,
	name   BLOB NOT NULL,
	mode   INTEGER NOT NULL,
	size   INTEGER NOT NULL,
	sec    INTEGER NOT NULL,
	nsec   INTEGER NOT NULL,
	serial INTEGER NOT NULL,
	link   INTEGER,
	sum    BLOB,
	PRIMARY KEY (dir, name)
) WITHOUT ROWID;
CREATE TABLE shard (
	start   BLOB PRIMARY KEY,
	first   BLOB NOT NULL,
	digest  BLOB NOT NULL,
	entries INTEGER NOT NULL,
	bytes   INTEGER NOT NULL,
	content INTEGER NOT NULL,
	dirty   INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE position (
	epoch  TEXT NOT NULL,
	serial INTEGER NOT NULL,
	floor  INTEGER NOT NULL
);
`

// scanned is what comparisons need. A row is late if its inode, or with lateEntries what a directory holds, was touched after the announcement by which it
// came here: mirrors need not have it like that. root and mount say which file systems the tree lay on. seen is a digest of what a directory holds, where that
// is known, so that its rows need not be read to find that they are all as they were.
const scanned = `
ALTER TABLE entry ADD COLUMN late INTEGER;
ALTER TABLE dir ADD COLUMN seen BLOB;
CREATE INDEX entry_link ON entry(link) WHERE link IS NOT NULL;
CREATE TABLE root (
	type  INTEGER NOT NULL,
	fsid  INTEGER NOT NULL,
	inode INTEGER NOT NULL
);
CREATE TABLE mount (path BLOB PRIMARY KEY) WITHOUT ROWID;
`

// numbered is what finds the names of an inode. link is the number of an inode that had several names when they were looked at, as mirrors were told; ino is
// that of every file and symbolic link, also of those with one name, which may get another one. It is only a hint where to look, and may be out of date. Of names
// from before, the next comparison brings it: the digests of their directories say nothing of it.
const numbered = `
ALTER TABLE entry ADD COLUMN ino INTEGER;
UPDATE entry SET ino = link WHERE link IS NOT NULL;
UPDATE dir SET seen = NULL WHERE seen IS NOT NULL;
CREATE INDEX entry_ino ON entry(ino) WHERE ino IS NOT NULL;
`

// Options adjust a manifest.
type Options struct {
	// CrossMounts lets walks enter other file systems mounted inside the module. One that is unmounted later looks as if all in it were removed.
	CrossMounts bool

	// ShardEntries is the mean number of records in an exported shard, a power of two; 65536 if zero. To change it is to export everything anew.
	ShardEntries int
}

// A Position is what a manifest is the state after.
type Position struct {
	Epoch  event.Epoch
	Serial event.Serial
	Floor  event.Serial // tombstones are complete for serials above it
}

// A Manifest is an open manifest. Its methods may be called from several goroutines; those that change it, and Export, wait for one another.
type Manifest struct {
	module event.Module
	path   string // of the database
	o      Options
	db     *sql.DB
	look   *sql.DB    // for short questions, which need not wait until a transaction of db has ended
	rowOf  *sql.Stmt  // rowQuery, prepared on look
	linked *sql.Stmt  // linkedQuery likewise
	walks  sync.Mutex // held by Build and Compare; taken before mu
	mu     sync.Mutex // held by Build, Apply, Forget, Settle and Export
}

// Open opens or makes the database file path for a module. The caller must hold a lock that keeps other processes out.
func Open(ctx context.Context, path string, m event.Module, o Options) (*Manifest, error) {
	if o.ShardEntries == 0 {
		o.ShardEntries = 1 << 16
	}
	tables := []sqlite.Component{{Name: "manifest", Steps: []string{schema, scanned, numbered}}}
	db, err := sqlite.Open(ctx, path, sqlite.Options{Durability: sqlite.Normal, Schema: tables, CacheKiB: 65536})
	var look *sql.DB
	if err == nil {
		if look, err = sqlite.Open(ctx, path, sqlite.Options{Durability: sqlite.Normal}); err != nil {
			err = errors.Join(err, db.Close())
		}
	}
	opened := &Manifest{module: m, path: path, o: o, db: db, look: look}
	if err == nil {
		if err = opened.prepare(ctx); err != nil {
			err = errors.Join(err, opened.Close())
		}
	}
	if err != nil {
		return nil, fault.With(fmt.Errorf("manifest: %w", err), fault.Failed, "remove "+path+" and build the manifest again")
	}
	return opened, nil
}

// prepare readies the questions that are asked for many names at one time.
func (m *Manifest) prepare(ctx context.Context) (err error) {
	if m.rowOf, err = m.look.PrepareContext(ctx, rowQuery); err == nil {
		m.linked, err = m.look.PrepareContext(ctx, linkedQuery)
	}
	return err
}

// Close closes the database. No other method may be under way.
func (m *Manifest) Close() error { return errors.Join(m.look.Close(), m.db.Close()) }

// Position tells what the manifest is the state after. The error Is ErrNotBuilt if there is none.
func (m *Manifest) Position(ctx context.Context) (Position, error) {
	p, err := position(ctx, m.look)
	return p, m.named(err)
}

// querier is a database or a transaction.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

func position(ctx context.Context, q querier) (Position, error) {
	var p Position
	err := q.QueryRowContext(ctx, "SELECT epoch, serial, floor FROM position").Scan(&p.Epoch, &p.Serial, &p.Floor)
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNotBuilt
	}
	return p, err
}

// A Count sums a manifest up.
type Count struct {
	Entries    int64 // paths that are there
	Bytes      int64 // of them, in bytes
	Tombstones int64
}

// Count sums the manifest up, by reading it.
func (m *Manifest) Count(ctx context.Context) (Count, error) {
	var c Count
	err := m.db.QueryRowContext(ctx, "SELECT count(*), coalesce(sum(size), 0), coalesce(sum(mode = 0), 0) FROM entry").Scan(&c.Entries, &c.Bytes, &c.Tombstones)
	c.Entries -= c.Tombstones
	return c, err
}

// Size is the size of the database in bytes.
func (m *Manifest) Size(ctx context.Context) (int64, error) {
	var pages, size int64
	err := m.db.QueryRowContext(ctx, "SELECT page_count, page_size FROM pragma_page_count, pragma_page_size").Scan(&pages, &size)
	return pages * size, err
}

// Forget drops the tombstones of serials up to floor: mirrors further behind compare their tree with the manifest.
func (m *Manifest) Forget(ctx context.Context, floor event.Serial) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.change(ctx, func(c *changer) error {
		pos, err := position(ctx, c.tx)
		if err != nil || floor <= pos.Floor {
			return err
		}
		floor = min(floor, pos.Serial)
		if err := c.forget(floor); err != nil {
			return err
		}
		_, err = c.tx.ExecContext(ctx, "UPDATE position SET floor = ?", floor)
		return err
	})
}
