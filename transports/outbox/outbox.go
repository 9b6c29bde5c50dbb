// Package outbox is the durable "still to send": messages wait in a database until a transport has taken responsibility for each.
//
// It owns tables in a database that belongs to somebody else, so that what is to be sent is stored in the transaction that makes it true: the
// journal's announcement, the inbox's "applied". [Put] is the only way in. A [Relay] for each transport sends what waits for it, in order, as
// often as it takes. A message may be sent twice (a crash between sending and forgetting), it is never lost.
package outbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/sqlite"
	"github.com/mirrorbus/mirrorbus/transports"
)

// Schema is the outbox as a component of somebody's database.
func Schema() sqlite.Component { return sqlite.Component{Name: "outbox", Steps: []string{tables}} }

// A body is stored once for all transports and goes with the last of them.
const tables = `
CREATE TABLE outbox_message (
	message  INTEGER PRIMARY KEY AUTOINCREMENT, -- in the order of Put, never used again: a relay may still forget an old one
	kind     TEXT NOT NULL,
	module   TEXT NOT NULL,
	id       TEXT NOT NULL,
	body     BLOB NOT NULL,
	short    BLOB,
	replaces TEXT,
	put_at   INTEGER NOT NULL -- Unix time in milliseconds
);
CREATE INDEX outbox_message_replaces ON outbox_message(kind, module, replaces) WHERE replaces IS NOT NULL;
CREATE TABLE outbox_waiting (
	transport TEXT NOT NULL,
	message   INTEGER NOT NULL REFERENCES outbox_message(message),
	PRIMARY KEY (transport, message)
) WITHOUT ROWID;
CREATE INDEX outbox_waiting_message ON outbox_waiting(message);
CREATE TRIGGER outbox_last AFTER DELETE ON outbox_waiting
WHEN NOT EXISTS (SELECT 1 FROM outbox_waiting WHERE message = OLD.message)
BEGIN
	DELETE FROM outbox_message WHERE message = OLD.message;
END;
CREATE TABLE outbox_relay (
	transport TEXT PRIMARY KEY,
	error     TEXT NOT NULL DEFAULT '', -- why the last attempt failed, '' if it did not
	since     INTEGER NOT NULL DEFAULT 0, -- when it first failed so, Unix time in milliseconds
	next      INTEGER NOT NULL DEFAULT 0, -- when the next attempt is due, likewise
	dropped   INTEGER NOT NULL DEFAULT 0  -- messages too large for this transport
) WITHOUT ROWID;
`

// An Entry is a message to send.
type Entry struct {
	transports.Message // From is not kept

	// Short is sent instead of Body where Body is larger than the transport can carry. nil: there is no shorter form.
	Short []byte

	// Replaces, if not "", supersedes what waits unsent with the same topic and the same Replaces: of a module's heads only the newest matters.
	Replaces string

	// At is when the message was accepted, for the age in Stats. Zero means now.
	At time.Time
}

// Put stores m for the named transports, within the transaction of the caller. Wake their relays after the commit. With no transports it does
// nothing.
func Put(ctx context.Context, tx *sql.Tx, m Entry, names []string) error {
	if err := m.check(); err != nil {
		return fmt.Errorf("outbox: %w", err)
	}
	if len(names) == 0 {
		return nil
	}
	if err := put(ctx, tx, m, names); err != nil {
		return fmt.Errorf("outbox: put %s on %s: %w", m.ID, m.Topic, err)
	}
	return nil
}

func (m Entry) check() error {
	if m.Short != nil && len(m.Short) == 0 {
		return errors.New("short form of a message has no body")
	}
	return transports.Capabilities{MaxBody: math.MaxInt}.Check(m.Message)
}

func put(ctx context.Context, tx *sql.Tx, m Entry, names []string) error {
	if m.At.IsZero() {
		m.At = time.Now()
	}
	if m.Replaces != "" {
		if err := supersede(ctx, tx, m, names); err != nil {
			return err
		}
	}
	res, err := tx.ExecContext(ctx, `INSERT INTO outbox_message (kind, module, id, body, short, replaces, put_at) VALUES (?, ?, ?, ?, ?, ?, ?)`,
		m.Topic.Kind, m.Topic.Module, m.ID, m.Body, m.Short, sql.NullString{String: m.Replaces, Valid: m.Replaces != ""}, m.At.UnixMilli())
	if err != nil {
		return err
	}
	row, err := res.LastInsertId()
	if err != nil {
		return err
	}
	for _, name := range names {
		if _, err := tx.ExecContext(ctx, `INSERT OR IGNORE INTO outbox_waiting (transport, message) VALUES (?, ?)`, name, row); err != nil {
			return err
		}
	}
	return nil
}

// supersede forgets what m replaces.
func supersede(ctx context.Context, tx *sql.Tx, m Entry, names []string) error {
	for _, name := range names {
		_, err := tx.ExecContext(ctx, `DELETE FROM outbox_waiting WHERE transport = ? AND message IN (
			SELECT message FROM outbox_message WHERE kind = ? AND module = ? AND replaces = ?)`, name, m.Topic.Kind, m.Topic.Module, m.Replaces)
		if err != nil {
			return err
		}
	}
	return nil
}

// Forget drops what waits for transports other than the configured ones, as nobody will ever send it, and tells how many messages that were
// by transport.
func Forget(ctx context.Context, tx *sql.Tx, configured []string) (map[string]int, error) {
	names, err := jsonList(configured)
	if err != nil {
		return nil, fmt.Errorf("outbox: forget: %w", err)
	}
	const others = ` WHERE transport NOT IN (SELECT value FROM json_each(?))`
	rows, err := tx.QueryContext(ctx, `SELECT transport, count(*) FROM outbox_waiting`+others+` GROUP BY transport`, names)
	if err != nil {
		return nil, fmt.Errorf("outbox: forget: %w", err)
	}
	dropped, err := counts(rows)
	if err != nil {
		return nil, fmt.Errorf("outbox: forget: %w", err)
	}
	for _, table := range []string{"outbox_waiting", "outbox_relay"} {
		if _, err := tx.ExecContext(ctx, `DELETE FROM `+table+others, names); err != nil {
			return nil, fmt.Errorf("outbox: forget: %w", err)
		}
	}
	return dropped, nil
}

func counts(rows *sql.Rows) (_ map[string]int, err error) {
	defer func() { err = errors.Join(err, rows.Close()) }()
	all := make(map[string]int)
	for rows.Next() {
		var name string
		var n int
		if err := rows.Scan(&name, &n); err != nil {
			return nil, err
		}
		all[name] = n
	}
	return all, rows.Err()
}
