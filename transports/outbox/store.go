package outbox

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/failpoint"
	"github.com/mirrorbus/mirrorbus/internal/sqlite"
	"github.com/mirrorbus/mirrorbus/transports"
)

// A batch is read into memory; it ends with the message that reaches one of these.
const (
	batchMessages = 500
	batchBytes    = 1 << 20
)

// waiting is a message read from the database. Its Body is nil if it is larger than the transport can carry.
type waiting struct {
	transports.Message
	row   int64
	short []byte
}

// read returns the next messages to send.
func (r *Relay) read(ctx context.Context) (batch []waiting, err error) {
	var topics []string
	for t := range r.stuck {
		topics = append(topics, t.String())
	}
	stuck, err := jsonList(topics)
	if err != nil {
		return nil, fmt.Errorf("outbox: read: %w", err)
	}
	rows, err := r.o.DB.QueryContext(ctx, `
		SELECT message, kind, module, id, CASE WHEN length(body) <= ? THEN body END, short
		FROM outbox_waiting JOIN outbox_message USING (message)
		WHERE transport = ? AND kind || '/' || module NOT IN (SELECT value FROM json_each(?))
		ORDER BY message LIMIT ?`, r.o.Caps.MaxBody, r.o.Name, stuck, batchMessages)
	if err != nil {
		return nil, fmt.Errorf("outbox: read: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for size := 0; size < batchBytes && rows.Next(); {
		var m waiting
		if err := rows.Scan(&m.row, &m.Topic.Kind, &m.Topic.Module, &m.ID, &m.Body, &m.short); err != nil {
			return nil, fmt.Errorf("outbox: read: %w", err)
		}
		batch = append(batch, m)
		size += len(m.Body) + len(m.short)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("outbox: read: %w", err)
	}
	return batch, nil
}

// settle is how long a write may take that is made although ctx is done.
const settle = 10 * time.Second

// forget removes what the transport has taken. It does so although ctx is done: sent is sent.
func (r *Relay) forget(ctx context.Context) error {
	if len(r.sent) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settle)
	defer cancel()
	sent, err := jsonList(r.sent)
	if err != nil {
		return fmt.Errorf("outbox: forget what was sent: %w", err)
	}
	_, err = r.o.DB.ExecContext(ctx, `DELETE FROM outbox_waiting WHERE transport = ? AND message IN (SELECT value FROM json_each(?))`, r.o.Name, sent)
	if err != nil {
		r.down = true
		return fmt.Errorf("outbox: forget what was sent: %w", err)
	}
	failpoint.Here("relay.forgotten")
	r.sent = r.sent[:0]
	return nil
}

// drop gives up on a message that the transport cannot carry.
func (r *Relay) drop(ctx context.Context, m waiting) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settle)
	defer cancel()
	err := sqlite.Tx(ctx, r.o.DB, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM outbox_waiting WHERE transport = ? AND message = ?`, r.o.Name, m.row); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO outbox_relay (transport, dropped) VALUES (?, 1)
			ON CONFLICT (transport) DO UPDATE SET dropped = dropped + 1`, r.o.Name)
		return err
	})
	if err != nil {
		r.down = true
		return fmt.Errorf("outbox: drop message %s: %w", m.ID, err)
	}
	r.o.Log.Warn("message dropped, too large for this transport even in its short form",
		"topic", m.Topic.String(), "id", m.ID, "short", len(m.short), "limit", r.o.Caps.MaxBody)
	return nil
}

// record keeps for Stats how sending stands. That it could not is logged and nothing else: a database that cannot be written stops the sending
// itself, and is said there.
func (r *Relay) record(ctx context.Context, text string, since, next time.Time) {
	// Where all is well and was, nothing is written.
	_, err := r.o.DB.ExecContext(ctx, `
		INSERT INTO outbox_relay (transport, error, since, next) SELECT ?1, ?2, ?3, ?4
		WHERE ?2 != '' OR EXISTS (SELECT 1 FROM outbox_relay WHERE transport = ?1 AND error != '')
		ON CONFLICT (transport) DO UPDATE SET error = excluded.error, since = excluded.since, next = excluded.next`,
		r.o.Name, text, toMillis(since), toMillis(next))
	if err != nil && ctx.Err() == nil {
		r.o.Log.Debug("outbox: the state of a transport was not recorded", "error", err)
	}
}

func jsonList[T any](list []T) (string, error) {
	if list == nil {
		return "[]", nil // not null
	}
	b, err := json.Marshal(list)
	return string(b), err
}
