// Package collector keeps what the mirrors report: where each stands with each module, and the last outcomes of each serial.
//
// Reports arrive by any transport, doubled and in any order. Each carries its mirror's run counter, so the newest is known without a clock.
package collector

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/sqlite"
)

const schema = `
CREATE TABLE standing (            -- one row per mirror and module: the newest report
	module TEXT NOT NULL, mirror TEXT NOT NULL,
	run INTEGER NOT NULL, epoch TEXT NOT NULL, applied INTEGER NOT NULL, head TEXT NOT NULL,
	heard_at INTEGER NOT NULL,     -- milliseconds since 1970, this host's clock: of the newest report of any kind
	said_run INTEGER NOT NULL,     -- run of the newest that was not "have"; -1 if there was none
	outcome TEXT NOT NULL, serial INTEGER NOT NULL, error TEXT NOT NULL, said_at INTEGER NOT NULL, -- what that one said
	PRIMARY KEY (module, mirror)
) WITHOUT ROWID;
CREATE TABLE outcome (             -- the newest word of each mirror on each serial
	module TEXT NOT NULL, epoch TEXT NOT NULL, serial INTEGER NOT NULL, mirror TEXT NOT NULL,
	run INTEGER NOT NULL, outcome TEXT NOT NULL, error TEXT NOT NULL, via TEXT NOT NULL,
	took_ms INTEGER NOT NULL, heard_ms INTEGER NOT NULL, files INTEGER NOT NULL, bytes INTEGER NOT NULL, deleted INTEGER NOT NULL,
	received_at INTEGER NOT NULL, done_at INTEGER NOT NULL, -- milliseconds since 1970, this host's clock, 0 = not yet
	PRIMARY KEY (module, epoch, serial, mirror)
) WITHOUT ROWID;
CREATE INDEX outcome_age ON outcome (module, mirror, run);`

// keepSerials is of how many serials of a module each mirror's word is kept. It is counted for each mirror, so that what one says, even of
// serials and epochs that never were, takes nothing from the others.
const keepSerials = 1000

// A Collector stores reports.
type Collector struct {
	db *sql.DB

	mu      sync.Mutex
	changed chan struct{} // closed and replaced at each change
}

// Open opens or creates the collector's database in dir.
func Open(ctx context.Context, dir string) (*Collector, error) {
	db, err := sqlite.Open(ctx, filepath.Join(dir, "reports.db"), sqlite.Options{Durability: sqlite.Full, Schema: []sqlite.Component{{Name: "collector", Steps: []string{schema}}}})
	if err != nil {
		return nil, err
	}
	return &Collector{db: db, changed: make(chan struct{})}, nil
}

// Close closes the database.
func (c *Collector) Close() error { return c.db.Close() }

// Changed returns a channel that is closed at the next change.
func (c *Collector) Changed() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

func (c *Collector) notify() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.changed)
	c.changed = make(chan struct{})
}

// Put stores a verified report and returns once it is durable. In whatever order reports come, and however often, what is known in the end is
// the same, but for the times at which they came.
func (c *Collector) Put(ctx context.Context, r event.Report, now time.Time) error {
	r.Error = onOneLine(r.Error)
	err := sqlite.Tx(ctx, c.db, func(tx *sql.Tx) error {
		if err := putStanding(ctx, tx, r, now); err != nil {
			return err
		}
		if r.Outcome == event.Have {
			return nil
		}
		return putOutcome(ctx, tx, r, now)
	})
	if err != nil {
		return fmt.Errorf("store report of %s on %s: %w", r.Mirror, r.Module, err)
	}
	c.notify()
	return nil
}

func putStanding(ctx context.Context, tx *sql.Tx, r event.Report, now time.Time) error {
	rows, err := tx.QueryContext(ctx, "SELECT "+standingColumns+" FROM standing WHERE module = ? AND mirror = ?", r.Module, r.Mirror)
	old, err := scan(rows, err, scanRecord)
	if err != nil {
		return err
	}
	var s Record
	if len(old) > 0 {
		s = old[0]
	}
	s = s.Take(r, now)
	_, err = tx.ExecContext(ctx, "INSERT OR REPLACE INTO standing (module, "+standingColumns+") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
		r.Module, s.Mirror, s.Run, s.Epoch, s.Applied, s.Head.String(), s.Heard.UnixMilli(), s.Word, s.Outcome, s.Serial, s.Error, s.Said.UnixMilli())
	return err
}

// putOutcome takes the newest word, and from an older one what the newer did not say: by which way it came and when it was done.
func putOutcome(ctx context.Context, tx *sql.Tx, r event.Report, now time.Time) error {
	at := now.UnixMilli()
	received, done := at, int64(0)
	if r.Outcome == event.Applied || r.Outcome == event.Skipped {
		done = at
	}
	_, err := tx.ExecContext(ctx, `
		INSERT INTO outcome (module, epoch, serial, mirror, run, outcome, error, via, took_ms, heard_ms, files, bytes, deleted, received_at, done_at)
		VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)
		ON CONFLICT DO UPDATE SET run = max(run, ?5), outcome = iif(?5 > run, ?6, outcome), error = iif(?5 > run, ?7, error),
			via = iif(via = '' OR ?5 > run AND ?8 <> '', ?8, via), heard_ms = iif(heard_ms = 0 OR ?5 > run AND ?10 <> 0, ?10, heard_ms),
			took_ms = iif(?5 > run, ?9, took_ms), files = iif(?5 > run, ?11, files), bytes = iif(?5 > run, ?12, bytes),
			deleted = iif(?5 > run, ?13, deleted), done_at = iif(done_at > 0, done_at, ?15)`,
		r.Module, r.Epoch, r.Serial, r.Mirror, r.Run, r.Outcome, r.Error, r.Via, r.Took.Milliseconds(), r.Heard.Milliseconds(),
		r.Files, r.Bytes, r.Deleted, received, done)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `DELETE FROM outcome WHERE module = ?1 AND mirror = ?2 AND run <=
		(SELECT run FROM outcome WHERE module = ?1 AND mirror = ?2 ORDER BY run DESC LIMIT 1 OFFSET ?3)`, r.Module, r.Mirror, keepSerials)
	return err
}

// A Standing is where one mirror stands with one module, by its own word.
type Standing struct {
	Mirror  string        `json:"mirror"`
	Epoch   event.Epoch   `json:"epoch"`
	Applied event.Serial  `json:"applied"` // everything up to this serial is on its disk
	Head    event.Digest  `json:"head"`    // of the line of that serial
	Heard   time.Time     `json:"heard"`   // when anything was last heard of it
	Outcome event.Outcome `json:"outcome"` // what it last said of a serial, or "have"
	Serial  event.Serial  `json:"serial"`  // which serial that was
	Error   string        `json:"error,omitempty"`
	Said    time.Time     `json:"said"` // when it said so
}

// Standings lists the mirrors known for a module, by name.
func (c *Collector) Standings(ctx context.Context, m event.Module) ([]Standing, error) {
	rows, err := c.db.QueryContext(ctx, "SELECT "+standingColumns+" FROM standing WHERE module = ? ORDER BY mirror", m)
	return scan(rows, err, func(rows *sql.Rows) (Standing, error) {
		s, err := scanRecord(rows)
		return s.Standing, err
	})
}

const standingColumns = "mirror, run, epoch, applied, head, heard_at, said_run, outcome, serial, error, said_at"

func scanRecord(rows *sql.Rows) (s Record, err error) {
	var head string
	var heard, said int64
	if err = rows.Scan(&s.Mirror, &s.Run, &s.Epoch, &s.Applied, &head, &heard, &s.Word, &s.Outcome, &s.Serial, &s.Error, &said); err != nil {
		return s, err
	}
	s.Heard, s.Said = time.UnixMilli(heard), time.UnixMilli(said)
	s.Head, err = event.ParseDigest(head)
	return s, err
}

// A Word is what one mirror last said of one serial.
type Word struct {
	Mirror   string        `json:"mirror"`
	Outcome  event.Outcome `json:"outcome"`
	Error    string        `json:"error,omitempty"`
	Via      string        `json:"via,omitempty"`
	Took     time.Duration `json:"took_ns"`
	Heard    time.Duration `json:"heard_ns"` // announced to received, by two clocks
	Files    int64         `json:"files"`
	Bytes    int64         `json:"bytes"`
	Deleted  int64         `json:"deleted"`
	Received time.Time     `json:"received"`      // by this host's clock: when its first word on the serial came
	Done     time.Time     `json:"done,omitzero"` // by this host's clock: when it first said applied or skipped
}

// Words lists what the mirrors said of a serial, by name.
func (c *Collector) Words(ctx context.Context, m event.Module, e event.Epoch, s event.Serial) ([]Word, error) {
	rows, err := c.db.QueryContext(ctx, `SELECT mirror, outcome, error, via, took_ms, heard_ms, files, bytes, deleted, received_at, done_at
		FROM outcome WHERE module = ? AND epoch = ? AND serial = ? ORDER BY mirror`, m, e, s)
	return scan(rows, err, func(rows *sql.Rows) (w Word, err error) {
		var took, heard, received, done int64
		err = rows.Scan(&w.Mirror, &w.Outcome, &w.Error, &w.Via, &took, &heard, &w.Files, &w.Bytes, &w.Deleted, &received, &done)
		w.Took, w.Heard = time.Duration(took)*time.Millisecond, time.Duration(heard)*time.Millisecond
		w.Received = time.UnixMilli(received)
		if done != 0 {
			w.Done = time.UnixMilli(done)
		}
		return w, err
	})
}

// ErrUnknown is of a mirror that never reported.
var ErrUnknown = errors.New("no mirror of that name has ever reported")

// Forget drops a mirror that is no longer one. The error Is ErrUnknown if nothing was known of it.
func (c *Collector) Forget(ctx context.Context, mirror string) error {
	err := sqlite.Tx(ctx, c.db, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, "DELETE FROM outcome WHERE mirror = ?", mirror); err != nil {
			return err
		}
		res, err := tx.ExecContext(ctx, "DELETE FROM standing WHERE mirror = ?", mirror)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n > 0 {
			return err
		}
		return ErrUnknown
	})
	if err != nil {
		return fmt.Errorf("forget mirror %s: %w", mirror, err)
	}
	c.notify()
	return nil
}

func scan[T any](rows *sql.Rows, err error, one func(*sql.Rows) (T, error)) ([]T, error) {
	if err != nil {
		return nil, err
	}
	var all []T
	for rows.Next() {
		v, err := one(rows)
		if err != nil {
			return nil, errors.Join(err, rows.Close())
		}
		all = append(all, v)
	}
	return all, errors.Join(rows.Err(), rows.Close())
}

// onOneLine makes a mirror's text fit to be shown: what a terminal would obey is written as Go writes it in a string.
func onOneLine(s string) string {
	var b strings.Builder
	for _, c := range s {
		if unicode.IsPrint(c) {
			b.WriteRune(c)
			continue
		}
		b.WriteString(strings.Trim(strconv.QuoteRune(c), "'"))
	}
	return b.String()
}
