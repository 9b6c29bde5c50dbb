package inbox

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
)

// MaxAhead is how far above what is known a serial may be and still be stored. One further ahead may be the work of a stolen key that wants
// every later announcement to look old; only a journal that leads up to it makes it true.
const MaxAhead = 100_000

// A Verdict is what became of a message.
type Verdict string

// The verdicts.
const (
	Stored       Verdict = "stored"
	Repeated     Verdict = "repeated"     // heard already; at most its path set was new
	Old          Verdict = "old"          // at or below what is applied, or a head older than the known one
	TooFar       Verdict = "too far"      // see MaxAhead: not stored, ask the upstream
	Strange      Verdict = "strange"      // of another epoch than the module's: stored for the case that the upstream agrees, ask it
	Equivocation Verdict = "equivocation" // one serial, two different lines: the module is now in quarantine
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
		m, err := module(ctx, tx, h.Module)
		if err != nil {
			return err
		}
		if v, err = judge(ctx, tx, m, h); err != nil {
			return err
		}
		switch v {
		case Stored, Strange:
			if err := insert(ctx, tx, h); err != nil || r == nil || v == Strange {
				return err
			}
			return b.report(ctx, tx, m, *r)
		case Repeated:
			return addSet(ctx, tx, h)
		case Equivocation:
			return b.quarantine(ctx, tx, m, h.Epoch, h.Serial, h.At, "it was heard with two different lines")
		}
		return nil
	})
	return v, err
}

// judge compares an announcement with what is known.
func judge(ctx context.Context, tx *sql.Tx, m Module, h Heard) (Verdict, error) {
	same := m.Epoch == h.Epoch
	known, err := digestOf(ctx, tx, m, h.Epoch, h.Serial)
	switch {
	case err != nil:
		return "", err
	case !known.IsZero() && known != h.Digest:
		return Equivocation, nil
	case same && h.Serial <= m.Applied:
		return Old, nil
	}
	if stored, err := exists(ctx, tx, h); err != nil || stored {
		return Repeated, err
	}
	before, err := digestOf(ctx, tx, m, h.Epoch, h.Serial-1)
	if err != nil {
		return "", err
	}
	next, err := prevOf(ctx, tx, h.Epoch, h.Module, h.Serial+1)
	if err != nil {
		return "", err
	}
	if !before.IsZero() && before != h.Prev || !next.IsZero() && next != h.Digest {
		return Equivocation, nil
	}
	top, err := highest(ctx, tx, h.Module, h.Epoch)
	if err != nil {
		return "", err
	}
	if same {
		top = max(top, m.Applied)
	}
	switch {
	case h.Serial > top+MaxAhead && (top > 0 || m.Epoch != ""):
		return TooFar, nil
	case !same && m.Epoch != "":
		return Strange, nil
	}
	return Stored, nil
}

func exists(ctx context.Context, tx *sql.Tx, h Heard) (yes bool, err error) {
	err = tx.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM heard WHERE module = ? AND epoch = ? AND serial = ?)", h.Module, h.Epoch, h.Serial).Scan(&yes)
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

// PutHead stores a head that has passed the gate unless a newer one is known: within an epoch the higher serial, and of one serial the later
// signature, which says that it still holds; of another epoch the later signature, or one of the same second.
// Of a repeat only Via is taken over: that the upstream says the same is worth knowing.
func (b *Inbox) PutHead(ctx context.Context, h Head) (v Verdict, err error) {
	err = b.tx(ctx, func(tx *sql.Tx) error {
		m, err := module(ctx, tx, h.Module)
		if err != nil {
			return err
		}
		if v, err = judgeHead(ctx, tx, m, h); err != nil {
			return err
		}
		switch v {
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

func judgeHead(ctx context.Context, tx *sql.Tx, m Module, h Head) (Verdict, error) {
	known, err := digestOf(ctx, tx, m, h.Epoch, h.Serial)
	if err != nil {
		return "", err
	}
	if !known.IsZero() && known != h.Last {
		return Equivocation, nil
	}
	old, err := head(ctx, tx, m.Name)
	switch {
	case err != nil:
		return "", err
	case old != nil && bytes.Equal(old.Line, h.Line):
		return Repeated, nil
	case old != nil && old.Epoch == h.Epoch && h.Serial < old.Serial:
		return Old, nil
	case old != nil && old.Epoch == h.Epoch && old.Serial == h.Serial && !h.Head.At.After(old.Head.At):
		return Old, nil
	case old != nil && old.Epoch != h.Epoch && h.Head.At.Before(old.Head.At):
		return Old, nil
	case m.Epoch == h.Epoch && h.Serial < m.Applied:
		return Old, nil
	case m.Epoch != h.Epoch:
		return Strange, nil
	}
	return Stored, nil
}
