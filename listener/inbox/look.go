package inbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
)

// A Snapshot is what a decision about a module is made from. All of it is of one moment.
type Snapshot struct {
	Module
	Head    *Head        // nil if none was ever heard
	Through event.Serial // the end of the unbroken row of announcements after Applied; Applied if there is none
	Todo    []Item       // those of that row that are not done, in order
	Top     event.Serial // the highest serial of the module's epoch that was heard of, by announcement or head
	Oldest  time.Time    // when the oldest announcement above Applied was heard; zero if there is none
	Flips   []Heard      // not done yet, in order, also beyond a gap; at most 100
	Strange bool         // announcements of another epoch were heard
	Budgets map[string]Bucket
	Push    Push
}

// CameBy is how the newest announcement of a module's epoch came first: by which transport, or from the journal; "" if none is remembered.
func (b *Inbox) CameBy(ctx context.Context, name event.Module) (via string, err error) {
	err = b.db.QueryRowContext(ctx, `SELECT via FROM heard JOIN module ON module.name = heard.module AND module.epoch = heard.epoch
		WHERE heard.module = ? ORDER BY serial DESC LIMIT 1`, name).Scan(&via)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("how an announcement of module %s came: %w", name, err)
	}
	return via, nil
}

// An Item is an announcement that is to be done.
type Item struct {
	Serial event.Serial
	Kind   event.Kind
	Set    bool // its path set is here
	Wide   bool // it names no path set: anything may have changed
	At     time.Time
}

// Look reads a module's state.
func (b *Inbox) Look(ctx context.Context, name event.Module) (s Snapshot, err error) {
	err = b.tx(ctx, func(tx *sql.Tx) error {
		if s.Module, err = module(ctx, tx, name); err != nil {
			return err
		}
		if s.Head, err = head(ctx, tx, name); err != nil {
			return err
		}
		if err := s.row(ctx, tx); err != nil {
			return err
		}
		s.Flips, err = query(ctx, tx, scanHeard, "SELECT "+heardColumns+` FROM heard WHERE module = ? AND epoch = ? AND kind = 'flip' AND state = 'pending'
			AND serial > ? ORDER BY serial LIMIT 100`, name, s.Epoch, s.Applied)
		if err != nil {
			return err
		}
		if s.Budgets, err = budgets(ctx, tx, name); err != nil {
			return err
		}
		s.Push, err = push(ctx, tx, name)
		return err
	})
	if err != nil {
		return s, fmt.Errorf("state of module %s: %w", name, err)
	}
	return s, nil
}

// maxRow is how much of an unbroken row one look takes in; what is beyond comes with the next batch.
const maxRow = 5000

// row finds how far the announcements follow each other without a gap.
func (s *Snapshot) row(ctx context.Context, tx *sql.Tx) error {
	rows, err := query(ctx, tx, func(r scanner) (w Row, err error) {
		var at int64
		err = r.Scan(&w.Serial, &w.Kind, &w.Set, &w.Wide, &at, &w.Done)
		w.At = fromStamp(at)
		return w, err
	}, "SELECT serial, kind, paths IS NOT NULL, wide, at, state = 'done' FROM heard WHERE module = ? AND epoch = ? AND serial > ? ORDER BY serial LIMIT ?",
		s.Name, s.Epoch, s.Applied, maxRow)
	if err != nil {
		return err
	}
	top, err := highest(ctx, tx, s.Name, s.Epoch)
	if err != nil {
		return err
	}
	s.Follow(rows, top)
	return tx.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM heard WHERE module = ? AND epoch <> ?)", s.Name, s.Epoch).Scan(&s.Strange)
}

// Batch reads the announcements after Applied up to a serial that are not done, in order: at most about maxBytes of compressed path sets, but at
// least one announcement.
func (b *Inbox) Batch(ctx context.Context, name event.Module, through event.Serial, maxBytes int) (batch []Heard, err error) {
	err = b.tx(ctx, func(tx *sql.Tx) error {
		m, err := module(ctx, tx, name)
		if err != nil {
			return err
		}
		batch, err = pendingRows(ctx, tx, name, m.Epoch, m.Applied, through, maxBytes)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("announcements of module %s: %w", name, err)
	}
	return batch, nil
}

func pendingRows(ctx context.Context, tx *sql.Tx, name event.Module, e event.Epoch, after, through event.Serial, maxBytes int) (all []Heard, err error) {
	rows, err := tx.QueryContext(ctx, "SELECT "+heardColumns+` FROM heard WHERE module = ? AND epoch = ? AND serial > ? AND serial <= ? AND state = 'pending'
		ORDER BY serial`, name, e, after, through)
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // rows.Err says what matters
	for (maxBytes > 0 || len(all) == 0) && rows.Next() {
		h, err := scanHeard(rows)
		if err != nil {
			return nil, err
		}
		maxBytes -= len(h.Set) + 256
		all = append(all, h)
	}
	return all, rows.Err()
}

// Newer reads, of one moment, the announcements after a flip that are not done, in order and as Batch does, and the flip's own Overtaken.
func (b *Inbox) Newer(ctx context.Context, h Heard, maxBytes int) (rows []Heard, overtaken map[string]bool, err error) {
	err = b.tx(ctx, func(tx *sql.Tx) error {
		var stored []byte
		err := tx.QueryRowContext(ctx, "SELECT overtaken FROM heard WHERE module = ? AND epoch = ? AND serial = ?", h.Module, h.Epoch, h.Serial).Scan(&stored)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		overtaken = names(stored)
		rows, err = pendingRows(ctx, tx, h.Module, h.Epoch, h.Serial, event.MaxSerial, maxBytes)
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("announcements of module %s after %d: %w", h.Module, h.Serial, err)
	}
	return rows, overtaken, nil
}

// Flipped reads the flips that were done ahead of their turn and whose turn has not come, in order.
func (b *Inbox) Flipped(ctx context.Context, name event.Module) (rows []Heard, err error) {
	err = b.tx(ctx, func(tx *sql.Tx) error {
		m, err := module(ctx, tx, name)
		if err != nil {
			return err
		}
		rows, err = query(ctx, tx, scanHeard, "SELECT "+heardColumns+` FROM heard WHERE module = ? AND epoch = ? AND kind = 'flip' AND state = 'done'
			AND serial > ? ORDER BY serial`, name, m.Epoch, m.Applied)
		return err
	})
	return rows, err
}

// Modules lists all modules by name.
func (b *Inbox) Modules(ctx context.Context) (all []Module, err error) {
	err = b.tx(ctx, func(tx *sql.Tx) error {
		all, err = query(ctx, tx, scanModule, "SELECT "+moduleColumns+" FROM module ORDER BY name")
		return err
	})
	return all, err
}

func budgets(ctx context.Context, tx *sql.Tx, name event.Module) (map[string]Bucket, error) {
	all := map[string]Bucket{}
	_, err := query(ctx, tx, func(r scanner) (struct{}, error) {
		var kind string
		var u Bucket
		var at int64
		err := r.Scan(&kind, &u.Tokens, &at)
		u.At = fromStamp(at)
		all[kind] = u
		return struct{}{}, err
	}, "SELECT kind, tokens, at FROM budget WHERE module = ?", name)
	return all, err
}
