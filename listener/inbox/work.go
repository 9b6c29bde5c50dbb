package inbox

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/failpoint"
)

// noTrouble sets a module's columns as they are when nothing is in the way.
const noTrouble = "trouble = '', error = '', path = x'', through = 0, since = 0, attempts = 0, next = 0"

// Done is a finished batch.
type Done struct {
	Module  event.Module
	Epoch   event.Epoch    // another one than the module's: the tree was compared with that epoch's manifest
	Through event.Serial   // everything up to it, Except apart, is checked and synced to disk
	Digest  event.Digest   // of its line
	Except  []event.Serial // flips up to it that wait for their time, in order
	Entries int64          // names in the module now, 0 if not known anew
	At      time.Time
	Reports []event.Report

	Overtaken map[event.Serial][]string // paths of earlier flips that the batch states anew, see Heard.Overtaken
}

// Finish notes a batch as done, moves the applied serial to the end of the unbroken row of what is done, puts the reports into the outbox, forgets
// what is no longer needed and tells whether more waits: all in one transaction, so that what arrives meanwhile is either part of the answer or
// wakes the agent itself.
func (b *Inbox) Finish(ctx context.Context, d Done) (more bool, err error) {
	err = b.tx(ctx, func(tx *sql.Tx) error {
		m, err := module(ctx, tx, d.Module)
		if err != nil {
			return err
		}
		if m.Epoch == d.Epoch && d.Through < m.Applied {
			return fmt.Errorf("serial %d is below the applied %d", d.Through, m.Applied)
		}
		if err := errors.Join(markDone(ctx, tx, d), overtake(ctx, tx, d.Module, d.Epoch, d.Overtaken)); err != nil {
			return err
		}
		var before event.Digest
		if len(d.Except) > 0 {
			if before, err = digestOf(ctx, tx, m, d.Epoch, d.Except[0]-1); err != nil {
				return err
			}
		}
		m = m.Finished(d, before)
		if err := b.advance(ctx, tx, &m, d.At, d.Reports); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "UPDATE push SET confirmed = 0 WHERE module = ?", d.Module); err != nil {
			return err
		}
		more, err = pending(ctx, tx, m)
		failpoint.Here("applied.commit")
		return err
	})
	if err != nil {
		return false, fmt.Errorf("finish serial %d of module %s: %w", d.Through, d.Module, err)
	}
	b.refill()
	return more, nil
}

// markDone marks what the batch did. A flip that it left out may be done meanwhile, and stays so.
func markDone(ctx context.Context, tx *sql.Tx, d Done) error {
	except, err := json.Marshal(append([]event.Serial{}, d.Except...))
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, "UPDATE heard SET state = 'done' WHERE module = ? AND epoch = ? AND serial <= ? AND serial NOT IN (SELECT value FROM json_each(?))",
		d.Module, d.Epoch, d.Through, string(except))
	if err == nil {
		_, err = tx.ExecContext(ctx, "UPDATE module SET "+noTrouble+" WHERE name = ?", d.Module)
	}
	return err
}

// overtake notes the paths of flips that something newer states anew.
func overtake(ctx context.Context, tx *sql.Tx, module event.Module, epoch event.Epoch, paths map[event.Serial][]string) error {
	for serial, paths := range paths {
		var stored []byte
		err := tx.QueryRowContext(ctx, "SELECT overtaken FROM heard WHERE module = ? AND epoch = ? AND serial = ?", module, epoch, serial).Scan(&stored)
		if errors.Is(err, sql.ErrNoRows) {
			continue
		}
		if err != nil {
			return err
		}
		have := names(stored)
		for _, path := range paths {
			if !have[path] {
				stored = append(append(stored, path...), 0)
			}
		}
		if _, err := tx.ExecContext(ctx, "UPDATE heard SET overtaken = ? WHERE module = ? AND epoch = ? AND serial = ?", stored, module, epoch, serial); err != nil {
			return err
		}
	}
	return nil
}

// advance moves the applied serial over what is done next to it, stores it, trims and reports.
func (b *Inbox) advance(ctx context.Context, tx *sql.Tx, m *Module, at time.Time, reports []event.Report) error {
	rows, err := above(ctx, tx, *m)
	if err != nil {
		return err
	}
	*m = m.Advance(rows)
	_, err = tx.ExecContext(ctx, "UPDATE module SET epoch = ?, applied = ?, digest = ?, applied_at = ?, confirmed = ?, entries = ? WHERE name = ?",
		m.Epoch, m.Applied, m.Digest[:], stamp(at), m.Confirmed, m.Entries, m.Name)
	if err != nil {
		return err
	}
	if err := b.trim(ctx, tx, *m); err != nil {
		return err
	}
	for _, r := range reports {
		if err := b.report(ctx, tx, *m, r); err != nil {
			return err
		}
	}
	return nil
}

// above are the announcements after the applied one, without path sets.
func above(ctx context.Context, tx *sql.Tx, m Module) ([]Heard, error) {
	return query(ctx, tx, scanHeard, "SELECT line, digest, NULL, at, via, state, ready, x'' FROM heard WHERE module = ? AND epoch = ? AND serial > ? ORDER BY serial LIMIT ?",
		m.Name, m.Epoch, m.Applied, maxRow)
}

// trim drops the path sets of what is done (of flips ahead of their turn only then: they may have to be done again), all but the last applied
// announcements, those of other epochs, and what is too far ahead: a module that was new could not tell.
func (b *Inbox) trim(ctx context.Context, tx *sql.Tx, m Module) error {
	_, err := tx.ExecContext(ctx, `UPDATE heard SET paths = NULL WHERE module = ? AND epoch = ? AND state = 'done' AND (serial <= ? OR kind <> 'flip') AND paths IS NOT NULL`,
		m.Name, m.Epoch, m.Applied)
	if err == nil {
		_, err = tx.ExecContext(ctx, "DELETE FROM heard WHERE module = ? AND (epoch <> ? OR serial <= ? OR serial > ?)", m.Name, m.Epoch, int64(m.Applied)-int64(b.o.Keep), m.Applied+MaxAhead)
	}
	return err
}

// pending tells whether something that was heard is not done.
func pending(ctx context.Context, tx *sql.Tx, m Module) (more bool, err error) {
	err = tx.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM heard WHERE module = ? AND epoch = ? AND serial > ? AND state = 'pending')", m.Name, m.Epoch, m.Applied).Scan(&more)
	return more, err
}

// Flip notes that a flip was done, perhaps ahead of its turn. With stay, which is for as long as a batch runs that might undo it, the applied serial does
// not move before Advance or Finish is called: the flip is among the Flipped until then. overtaken is as in Done.
func (b *Inbox) Flip(ctx context.Context, h Heard, stay bool, at time.Time, r event.Report, overtaken map[event.Serial][]string) error {
	err := b.tx(ctx, func(tx *sql.Tx) error {
		set := "state = 'done'"
		if r.Outcome == event.Skipped {
			set += ", paths = NULL" // nothing that could have to be done again
		}
		m, changed, err := mark(ctx, tx, h, set)
		switch {
		case err != nil || !changed:
			return err
		}
		err = overtake(ctx, tx, h.Module, h.Epoch, overtaken)
		switch {
		case err != nil:
			return err
		case stay:
			return b.report(ctx, tx, m, r)
		}
		return b.advance(ctx, tx, &m, at, []event.Report{r})
	})
	if err != nil {
		return fmt.Errorf("flip %d of module %s: %w", h.Serial, h.Module, err)
	}
	return nil
}

// Advance moves the applied serial over flips that stayed, see Flip, and reports that. What was in the way of only them is so no more.
func (b *Inbox) Advance(ctx context.Context, name event.Module, at time.Time) (moved bool, err error) {
	err = b.tx(ctx, func(tx *sql.Tx) error {
		m, err := module(ctx, tx, name)
		if err != nil {
			return err
		}
		rows, err := above(ctx, tx, m)
		if err != nil {
			return err
		}
		applied := m.Advance(rows).Applied
		if moved = applied > m.Applied; !moved {
			return nil
		}
		have := event.Report{Module: name, Epoch: m.Epoch, Serial: applied, Outcome: event.Have}
		if err := b.advance(ctx, tx, &m, at, []event.Report{have}); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, "UPDATE module SET "+noTrouble+" WHERE name = ? AND through <= applied", name)
		return err
	})
	if err != nil {
		return false, fmt.Errorf("advance module %s: %w", name, err)
	}
	return moved, nil
}

// Ready notes that "ready" was reported of a flip.
func (b *Inbox) Ready(ctx context.Context, h Heard, r event.Report) error {
	err := b.tx(ctx, func(tx *sql.Tx) error {
		m, changed, err := mark(ctx, tx, h, "ready = 1")
		if err != nil || !changed {
			return err
		}
		return b.report(ctx, tx, m, r)
	})
	if err != nil {
		return fmt.Errorf("flip %d of module %s: %w", h.Serial, h.Module, err)
	}
	return nil
}

// mark changes the row of a flip that is still to be done; changed is false if it was done meanwhile.
func mark(ctx context.Context, tx *sql.Tx, h Heard, set string) (m Module, changed bool, err error) {
	m, err = module(ctx, tx, h.Module)
	if err != nil {
		return m, false, err
	}
	res, err := tx.ExecContext(ctx, "UPDATE heard SET "+set+" WHERE module = ? AND epoch = ? AND serial = ? AND state = 'pending'", h.Module, h.Epoch, h.Serial)
	if err != nil {
		return m, false, err
	}
	n, err := res.RowsAffected()
	return m, n > 0, err
}

// Fail notes what is in the way of a module, with a report if there is something new to say. A Trouble of no kind clears it.
func (b *Inbox) Fail(ctx context.Context, name event.Module, t Trouble, r *event.Report) error {
	err := b.tx(ctx, func(tx *sql.Tx) error {
		m, err := module(ctx, tx, name)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, "UPDATE module SET trouble = ?, error = ?, path = ?, through = ?, since = ?, attempts = ?, next = ? WHERE name = ?",
			t.Kind, t.Error, []byte(t.Path), t.Through, stamp(t.Since), t.Attempts, stamp(t.Next), name)
		if err != nil || r == nil {
			return err
		}
		return b.report(ctx, tx, m, *r)
	})
	if err != nil {
		return fmt.Errorf("note trouble of module %s: %w", name, err)
	}
	return nil
}

// Confirm allows the deletions that the module is held for. ok is false if it is not held: kind says which trouble means held.
func (b *Inbox) Confirm(ctx context.Context, name event.Module, kind string) (ok bool, err error) {
	err = b.tx(ctx, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, "UPDATE module SET confirmed = through, "+noTrouble+" WHERE name = ? AND trouble = ?", name, kind)
		if err != nil {
			return err
		}
		n, err := res.RowsAffected()
		if ok = n > 0; !ok || err != nil {
			return err
		}
		m, err := module(ctx, tx, name)
		if err != nil || m.Epoch != "" {
			return err
		}
		p, err := push(ctx, tx, name)
		if err != nil {
			return err
		}
		p.Confirmed = true // what it is held for has no serial
		return putPush(ctx, tx, name, p)
	})
	return ok, err
}

// Release takes a module out of quarantine. What was heard of it is forgotten, also how far it is: of two lines for one serial nobody here can
// tell the true one, so the upstream's manifest decides and the tree is compared with it.
func (b *Inbox) Release(ctx context.Context, name event.Module) (ok bool, err error) {
	err = b.tx(ctx, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, "UPDATE module SET quarantine = '', quarantined = 0, epoch = '', applied = 0, digest = NULL, "+noTrouble+
			" WHERE name = ? AND quarantine <> ''", name)
		if err != nil {
			return err
		}
		n, err := res.RowsAffected()
		if ok = n > 0; !ok || err != nil {
			return err
		}
		for _, table := range []string{"heard", "head", "budget"} {
			if _, err := tx.ExecContext(ctx, "DELETE FROM "+table+" WHERE module = ?", name); err != nil {
				return err
			}
		}
		return nil
	})
	return ok, err
}

// Retry makes the next attempt due now. The count of attempts stays.
func (b *Inbox) Retry(ctx context.Context, name event.Module, now time.Time) error {
	_, err := b.change(ctx, "UPDATE module SET next = ?2 WHERE name = ?1 AND next <> 0", name, stamp(now))
	return err
}

func (b *Inbox) change(ctx context.Context, text string, args ...any) (ok bool, err error) {
	err = b.tx(ctx, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, text, args...)
		if err != nil {
			return err
		}
		n, err := res.RowsAffected()
		ok = n > 0
		return err
	})
	return ok, err
}

// Spend stores what is left of a rate budget.
func (b *Inbox) Spend(ctx context.Context, name event.Module, kind string, left Bucket) error {
	_, err := b.change(ctx, "INSERT OR REPLACE INTO budget (module, kind, tokens, at) VALUES (?, ?, ?, ?)", name, kind, left.Tokens, stamp(left.At))
	return err
}
