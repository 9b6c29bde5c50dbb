package inbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
)

// A Push is where a module stands with those who say that something has changed and not what. They are counted, so that one that comes while another is
// worked on is not taken for done with it.
type Push struct {
	Asked       uint64    // the number of the newest one; 0: there was none
	AskedWhole  uint64    // of the newest one that asks for everything, not for content only
	AskedHops   uint64    // of the newest one for content that mirrors below are to have as well before it is done
	ContentDone uint64    // content was brought for those up to this number
	WholeDone   uint64    // likewise everything
	Confirmed   bool      // an operator has allowed the deletions of the next work for them
	Plain       bool      // the upstream exported nothing when it was last asked for one
	Synced      time.Time // when everything was last brought from an upstream that exports nothing; zero: never
	At          time.Time // when the oldest came that is not done; zero if there is none
	From        string    // whence the newest one came
}

// Waits tells whether there is one that is not done.
func (p Push) Waits() bool { return p.AskedWhole > p.WholeDone || p.Asked > p.ContentDone }

// Whole tells whether everything is to be brought now, not content only: also where nobody has asked for anything.
func (p Push) Whole() bool { return p.AskedWhole > p.WholeDone || p.Asked <= p.ContentDone }

// Done tells whether one is done.
func (p Push) Done(n uint64, whole bool) bool {
	return whole && p.WholeDone >= n || !whole && p.ContentDone >= n
}

// Hops tells whether mirrors below are to be told of content.
func (p Push) Hops() bool { return p.AskedHops > p.ContentDone }

// An Order is one push.
type Order struct {
	Whole bool   // it asks for everything, not for content only
	Hops  bool   // of content: mirrors below are to have it as well before it is done
	From  string // whence it came
}

const pushColumns = "asked, asked_whole, asked_hops, content_done, whole_done, confirmed, plain, synced, at, origin"

func push(ctx context.Context, tx *sql.Tx, name event.Module) (p Push, err error) {
	var synced, at int64
	err = tx.QueryRowContext(ctx, "SELECT "+pushColumns+" FROM push WHERE module = ?", name).
		Scan(&p.Asked, &p.AskedWhole, &p.AskedHops, &p.ContentDone, &p.WholeDone, &p.Confirmed, &p.Plain, &synced, &at, &p.From)
	if errors.Is(err, sql.ErrNoRows) {
		return Push{}, nil
	}
	p.Synced, p.At = fromStamp(synced), fromStamp(at)
	return p, err
}

func putPush(ctx context.Context, tx *sql.Tx, name event.Module, p Push) error {
	_, err := tx.ExecContext(ctx, "INSERT OR REPLACE INTO push (module, "+pushColumns+") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
		name, p.Asked, p.AskedWhole, p.AskedHops, p.ContentDone, p.WholeDone, p.Confirmed, p.Plain, stamp(p.Synced), stamp(p.At), p.From)
	return err
}

// changePush changes what is stored of a module's pushes.
func (b *Inbox) changePush(ctx context.Context, name event.Module, f func(*sql.Tx, *Push) error) error {
	err := b.tx(ctx, func(tx *sql.Tx) error {
		if _, err := module(ctx, tx, name); err != nil {
			return err
		}
		p, err := push(ctx, tx, name)
		if err != nil {
			return err
		}
		if err := f(tx, &p); err != nil {
			return err
		}
		if !p.Waits() {
			p.At = time.Time{}
		}
		return putPush(ctx, tx, name, p)
	})
	if err != nil {
		return fmt.Errorf("push of module %s: %w", name, err)
	}
	return nil
}

// Push notes that somebody says that a module has changed, and returns its number. What waits to be tried again is due now.
func (b *Inbox) Push(ctx context.Context, name event.Module, o Order, at time.Time) (n uint64, err error) {
	err = b.changePush(ctx, name, func(tx *sql.Tx, p *Push) error {
		if !p.Waits() {
			p.At = at
		}
		p.Asked++
		if n = p.Asked; o.Whole {
			p.AskedWhole = n
		} else if o.Hops {
			p.AskedHops = n
		}
		p.From = o.From
		_, err := tx.ExecContext(ctx, "UPDATE module SET next = ? WHERE name = ? AND next <> 0", stamp(at), name)
		return err
	})
	return n, err
}

// Pushed notes that pushes up to a number are done, or at least their content, and that nothing is in the way any more.
func (b *Inbox) Pushed(ctx context.Context, name event.Module, n uint64, whole, plain bool, at time.Time) error {
	return b.changePush(ctx, name, func(tx *sql.Tx, p *Push) error {
		p.ContentDone, p.Plain = max(p.ContentDone, n), plain
		if whole {
			p.WholeDone, p.Confirmed = max(p.WholeDone, n), false
			if plain {
				p.Synced = at
			}
		}
		_, err := tx.ExecContext(ctx, "UPDATE module SET "+noTrouble+" WHERE name = ?", name)
		return err
	})
}
