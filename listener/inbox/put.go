package inbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/failpoint"
)

// Ensure makes the modules known that are not yet.
func (b *Inbox) Ensure(ctx context.Context, now time.Time, names ...event.Module) error {
	return b.tx(ctx, func(tx *sql.Tx) error {
		for _, name := range names {
			if _, err := tx.ExecContext(ctx, "INSERT INTO module (name, created) VALUES (?, ?) ON CONFLICT DO NOTHING", name, stamp(now)); err != nil {
				return err
			}
		}
		return nil
	})
}

// Put stores an announcement that has passed the gate, and with it the report that it was received, if r is not nil.
func (b *Inbox) Put(ctx context.Context, h Heard, r *event.Report) (v Verdict, err error) {
	err = b.tx(ctx, func(tx *sql.Tx) error {
		v, err = b.put(ctx, tx, h, r)
		return err
	})
	return v, err
}

// PutAll stores announcements that have passed the gate, in order and in one transaction, and returns a verdict for each. They end with one that contradicts
// what is known.
func (b *Inbox) PutAll(ctx context.Context, all []Heard) (verdicts []Verdict, err error) {
	err = b.tx(ctx, func(tx *sql.Tx) error {
		verdicts = nil
		for _, h := range all {
			v, err := b.put(ctx, tx, h, nil)
			if err != nil {
				return err
			}
			if verdicts = append(verdicts, v); v == Equivocation {
				return nil
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return verdicts, nil
}

func (b *Inbox) put(ctx context.Context, tx *sql.Tx, h Heard, r *event.Report) (Verdict, error) {
	m, err := module(ctx, tx, h.Module)
	if err != nil {
		return "", err
	}
	k, err := known(ctx, tx, m, h.Epoch, h.Serial)
	if err != nil {
		return "", err
	}
	v := Judge(k, h)
	switch v {
	case Stored, Strange:
		if err := insert(ctx, tx, h); err != nil || r == nil || v == Strange {
			return v, err
		}
		if err = b.report(ctx, tx, m, *r); err == nil {
			failpoint.Here("inbox.commit")
		}
	case Repeated:
		err = addSet(ctx, tx, h)
	case Equivocation:
		err = b.quarantine(ctx, tx, m, h.Epoch, h.Serial, h.At, "it was heard with two different lines")
	}
	return v, err
}

// known reads what is known of the serial that a message is about.
func known(ctx context.Context, tx *sql.Tx, m Module, e event.Epoch, n event.Serial) (k Known, err error) {
	k.Epoch, k.Applied = m.Epoch, m.Applied
	if k.Digest, err = digestOf(ctx, tx, m, e, n); err != nil {
		return k, err
	}
	if k.Before, err = digestOf(ctx, tx, m, e, n-1); err != nil {
		return k, err
	}
	if k.Prev, err = prevOf(ctx, tx, e, m.Name, n+1); err != nil {
		return k, err
	}
	if k.Here, err = exists(ctx, tx, m.Name, e, n); err != nil {
		return k, err
	}
	k.Top, err = highest(ctx, tx, m.Name, e)
	return k, err
}

func exists(ctx context.Context, tx *sql.Tx, name event.Module, e event.Epoch, n event.Serial) (yes bool, err error) {
	err = tx.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM heard WHERE module = ? AND epoch = ? AND serial = ?)", name, e, n).Scan(&yes)
	return yes, err
}

// digestOf is the digest of the line of a serial, zero if it is not known.
func digestOf(ctx context.Context, tx *sql.Tx, m Module, e event.Epoch, n event.Serial) (event.Digest, error) {
	if e == m.Epoch && n == m.Applied && !m.Digest.IsZero() {
		return m.Digest, nil
	}
	d, err := digest(tx.QueryRowContext(ctx, "SELECT digest FROM heard WHERE module = ? AND epoch = ? AND serial = ?", m.Name, e, n))
	if err != nil || !d.IsZero() {
		return d, err
	}
	h, err := head(ctx, tx, m.Name)
	if err == nil && h != nil && h.Epoch == e && h.Serial == n {
		d = h.Last
	}
	return d, err
}

func prevOf(ctx context.Context, tx *sql.Tx, e event.Epoch, name event.Module, n event.Serial) (event.Digest, error) {
	return digest(tx.QueryRowContext(ctx, "SELECT prev FROM heard WHERE module = ? AND epoch = ? AND serial = ?", name, e, n))
}

func digest(row scanner) (d event.Digest, err error) {
	var raw []byte
	if err = row.Scan(&raw); errors.Is(err, sql.ErrNoRows) {
		return d, nil
	}
	copy(d[:], raw)
	return d, err
}

func highest(ctx context.Context, tx *sql.Tx, name event.Module, e event.Epoch) (n event.Serial, err error) {
	err = tx.QueryRowContext(ctx, "SELECT COALESCE(MAX(serial), 0) FROM heard WHERE module = ? AND epoch = ?", name, e).Scan(&n)
	return n, err
}

func insert(ctx context.Context, tx *sql.Tx, h Heard) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO heard (module, epoch, serial, kind, line, digest, prev, paths, wide, at, via, state) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'pending')`,
		h.Module, h.Epoch, h.Serial, h.Kind, h.Line, h.Digest[:], h.Prev[:], blob(h.Set), h.Announcement.Set.IsZero(), stamp(h.At), h.Via)
	return err
}

// addSet keeps a path set that came with a repeat.
func addSet(ctx context.Context, tx *sql.Tx, h Heard) error {
	if h.Set == nil {
		return nil
	}
	_, err := tx.ExecContext(ctx, "UPDATE heard SET paths = ? WHERE module = ? AND epoch = ? AND serial = ? AND paths IS NULL AND state = 'pending'",
		h.Set, h.Module, h.Epoch, h.Serial)
	return err
}

// blob keeps "no set" apart from an empty one: NULL.
func blob(b []byte) any {
	if b == nil {
		return nil
	}
	return b
}

// quarantine stops a module because of what was heard about a serial, and reports that, once.
func (b *Inbox) quarantine(ctx context.Context, tx *sql.Tx, m Module, e event.Epoch, n event.Serial, at time.Time, what string) error {
	why := fmt.Sprintf("serial %d of epoch %s: %s", n, e, what)
	res, err := tx.ExecContext(ctx, "UPDATE module SET quarantine = ?, quarantined = ? WHERE name = ? AND quarantine = ''", why, stamp(at), m.Name)
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return err
	}
	return b.report(ctx, tx, m, event.Report{Module: m.Name, Epoch: e, Serial: n, Outcome: event.Blocked,
		Error: "quarantined: " + why + "; an operator has to look, then: mirrorbus agent release " + string(m.Name)})
}

// PutHead stores a head that has passed the gate unless a newer one is known, see JudgeHead. Of a repeat only Via is taken over: that the upstream
// says the same is worth knowing.
func (b *Inbox) PutHead(ctx context.Context, h Head) (v Verdict, err error) {
	err = b.tx(ctx, func(tx *sql.Tx) error {
		m, err := module(ctx, tx, h.Module)
		if err != nil {
			return err
		}
		k := Known{Epoch: m.Epoch, Applied: m.Applied}
		if k.Digest, err = digestOf(ctx, tx, m, h.Epoch, h.Serial); err != nil {
			return err
		}
		if k.Top, err = highest(ctx, tx, m.Name, h.Epoch); err != nil {
			return err
		}
		old, err := head(ctx, tx, m.Name)
		if err != nil {
			return err
		}
		switch v = JudgeHead(k, old, h); v {
		case Repeated:
			_, err = tx.ExecContext(ctx, "UPDATE head SET via = ? WHERE module = ?", h.Via, h.Module)
			return err
		case Stored, Strange:
			_, err = tx.ExecContext(ctx, "INSERT OR REPLACE INTO head (module, line, at, via) VALUES (?, ?, ?, ?)", h.Module, h.Line, stamp(h.At), h.Via)
			return err
		case Equivocation:
			return b.quarantine(ctx, tx, m, h.Epoch, h.Serial, h.At, "a head names another line than the one heard")
		}
		return nil
	})
	return v, err
}
