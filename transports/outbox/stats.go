package outbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// A Stat says how one transport stands, for status. A zero time means never.
type Stat struct {
	Transport string
	Waiting   int       // messages
	Oldest    time.Time // when the oldest of them was accepted
	Dropped   int       // messages too large for the transport even in their short form, ever
	Err       string    // why the last attempt failed, "" if it did not
	Since     time.Time // when it first failed so
	Next      time.Time // when the next attempt is due; zero if none failed
}

// Stats returns a Stat for each transport that something waits for, or whose relay fails or has dropped something, sorted by name.
func Stats(ctx context.Context, db *sql.DB) (all []Stat, err error) {
	rows, err := db.QueryContext(ctx, `
		WITH part AS (
			SELECT transport, count(*) AS waiting, min(message) AS oldest, 0 AS dropped, '' AS error, 0 AS since, 0 AS next
			FROM outbox_waiting GROUP BY transport
			UNION ALL
			SELECT transport, 0, NULL, dropped, error, since, next FROM outbox_relay
		), whole AS (
			SELECT transport, sum(waiting) AS waiting, max(oldest) AS oldest, sum(dropped) AS dropped, max(error) AS error, max(since) AS since,
				max(next) AS next
			FROM part GROUP BY transport
		)
		SELECT transport, waiting, coalesce(put_at, 0), dropped, error, since, next
		FROM whole LEFT JOIN outbox_message ON message = oldest
		WHERE waiting > 0 OR dropped > 0 OR error != ''
		ORDER BY transport`)
	if err != nil {
		return nil, fmt.Errorf("outbox: stats: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var s Stat
		var oldest, since, next int64
		if err := rows.Scan(&s.Transport, &s.Waiting, &oldest, &s.Dropped, &s.Err, &since, &next); err != nil {
			return nil, fmt.Errorf("outbox: stats: %w", err)
		}
		s.Oldest, s.Since, s.Next = fromMillis(oldest), fromMillis(since), fromMillis(next)
		all = append(all, s)
	}
	return all, rows.Err()
}

func fromMillis(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMilli(n)
}

func toMillis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}
