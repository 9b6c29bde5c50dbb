package inbox

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/transports"
)

// report counts, signs and enqueues a report within the transaction. What the module has applied is filled in from m.
func (b *Inbox) report(ctx context.Context, tx *sql.Tx, m Module, r event.Report) error {
	msg, err := b.seal(ctx, tx, m, r)
	if err != nil {
		return err
	}
	if err := b.o.Enqueue(ctx, tx, msg); err != nil {
		return fmt.Errorf("enqueue report: %w", err)
	}
	return nil
}

// nextRun counts reports: each run is above the one before, and not below the time in microseconds. So the first after a state that was restored from a
// backup comes after those that it has forgotten, and masters remember.
const nextRun = `UPDATE counter SET value = MAX(value + 1, CAST(unixepoch('subsec') * 1000000 AS INTEGER)) WHERE name = 'run' RETURNING value`

func (b *Inbox) seal(ctx context.Context, tx *sql.Tx, m Module, r event.Report) (transports.Message, error) {
	r.Applied, r.Head = m.Applied, m.Digest
	if err := tx.QueryRowContext(ctx, nextRun).Scan(&r.Run); err != nil {
		return transports.Message{}, fmt.Errorf("count reports: %w", err)
	}
	msg, err := b.o.Seal(r)
	if err != nil {
		return msg, fmt.Errorf("sign report: %w", err)
	}
	return msg, nil
}

// NoEpoch stands in a report for a module whose tree was never compared with a manifest; the form of a report has no room for none.
const NoEpoch event.Epoch = "00000000"

// Have makes the report on where a module stands: "have", or what r says is wrong there. It is not put into the outbox: it is of use only now.
func (b *Inbox) Have(ctx context.Context, r event.Report) (msg transports.Message, err error) {
	err = b.tx(ctx, func(tx *sql.Tx) error {
		m, err := module(ctx, tx, r.Module)
		if err != nil {
			return err
		}
		r.Serial, r.Epoch = m.Applied, m.Epoch
		if r.Outcome == "" {
			r.Outcome = event.Have
		} else {
			r.Serial++
		}
		if m.Epoch == "" {
			r.Epoch = NoEpoch
		}
		msg, err = b.seal(ctx, tx, m, r)
		return err
	})
	return msg, err
}
