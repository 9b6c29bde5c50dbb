package inbox

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
)

// A Snapshot is what a decision about a module is made from. All of it is of one moment.
type Snapshot struct {
	Module
	Head    *Head        // nil if none was ever heard
	Through event.Serial // the end of the unbroken row of announcements after Applied; Applied if there is none
	NoSet   event.Serial // the first of that row whose path set is missing, 0 if all are there
	Top     event.Serial // the highest serial of the module's epoch that was heard of, by announcement or head
	Oldest  time.Time    // when the oldest unapplied announcement was heard; zero if there is none
	Flips   []Heard      // that wait for their time or their content, oldest first; not those that were applied ahead
	Strange bool         // announcements or a head of another epoch were heard
	Budgets map[string]Bucket
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
		s.Budgets, err = budgets(ctx, tx, name)
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
	type item struct {
		serial event.Serial
		set    bool
		at     int64
	}
	items, err := query(ctx, tx, func(r scanner) (i item, err error) { return i, r.Scan(&i.serial, &i.set, &i.at) },
		"SELECT serial, paths IS NOT NULL, at FROM heard WHERE module = ? AND epoch = ? AND serial > ? ORDER BY serial LIMIT ?", s.Name, s.Epoch, s.Applied, maxRow)
	if err != nil {
		return err
	}
	s.Through, s.Top = s.Applied, s.Applied
	for _, i := range items {
		if s.Oldest.IsZero() || fromStamp(i.at).Before(s.Oldest) {
			s.Oldest = fromStamp(i.at)
		}
		if i.serial != s.Through+1 {
			break
		}
		s.Through = i.serial
		if !i.set && s.NoSet == 0 {
			s.NoSet = i.serial
		}
	}
	top, err := highest(ctx, tx, s.Name, s.Epoch)
	if err != nil {
		return err
	}
	s.Top = max(s.Top, top)
	if h := s.Head; h != nil && h.Epoch == s.Epoch {
		s.Top = max(s.Top, h.Serial)
		if h.Serial > s.Applied && (s.Oldest.IsZero() || h.At.Before(s.Oldest)) {
			s.Oldest = h.At
		}
	}
	return tx.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM heard WHERE module = ? AND epoch <> ?)", s.Name, s.Epoch).Scan(&s.Strange)
}

// Batch reads the announcements after Applied up to a serial, in order, at most about maxBytes of compressed path sets but at least one
// announcement.
func (b *Inbox) Batch(ctx context.Context, name event.Module, through event.Serial, maxBytes int) (rows []Heard, err error) {
	err = b.tx(ctx, func(tx *sql.Tx) error {
		m, err := module(ctx, tx, name)
		if err != nil {
			return err
		}
		for n := m.Applied + 1; n <= through && (maxBytes > 0 || len(rows) == 0); n++ {
			h, err := scanHeard(tx.QueryRowContext(ctx, "SELECT "+heardColumns+" FROM heard WHERE module = ? AND epoch = ? AND serial = ?", name, m.Epoch, n))
			if err != nil {
				return fmt.Errorf("serial %d: %w", n, err)
			}
			maxBytes -= len(h.Set) + 256
			rows = append(rows, h)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("announcements of module %s: %w", name, err)
	}
	return rows, nil
}

// Flipped reads the flips that were applied ahead of their turn and whose turn has not come, in order.
func (b *Inbox) Flipped(ctx context.Context, name event.Module) (rows []Heard, err error) {
	err = b.tx(ctx, func(tx *sql.Tx) error {
		m, err := module(ctx, tx, name)
		if err != nil {
			return err
		}
		rows, err = query(ctx, tx, scanHeard, "SELECT "+heardColumns+` FROM heard WHERE module = ? AND epoch = ? AND kind = 'flip' AND state = 'ahead'
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
