package manifest

import (
	"context"
	"database/sql"
	"errors"

	"github.com/mirrorbus/mirrorbus/internal/sqlite"
)

// A renumbered is a row whose inode has another number than it says, or that has none because it is from before numbers were kept.
type renumbered struct {
	dir  int64
	name string
	ino  uint64
}

const renumber = "UPDATE entry SET ino = ? WHERE dir = ? AND name = ? AND mode <> 0 AND serial <= ?"

// noteNumbers writes the numbers that the comparison came by. They are hints, of which mirrors know nothing; so the rows are as they were to everybody else. What
// was announced since the comparison began was looked at later, and is left.
func (c *comparer) noteNumbers(ctx context.Context) error {
	if len(c.numbers) == 0 {
		return nil
	}
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	err := sqlite.Tx(ctx, c.m.db, func(tx *sql.Tx) (err error) {
		stmt, err := tx.PrepareContext(ctx, renumber)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, stmt.Close()) }()
		for _, n := range c.numbers {
			if _, err := stmt.ExecContext(ctx, number(n.ino), n.dir, []byte(n.name), c.pos.Serial); err != nil {
				return err
			}
		}
		return nil
	})
	c.numbers = c.numbers[:0]
	return err
}

// renumber notes which inode a path is of whose row needs no other change.
func (a *applier) renumber(i inode) error {
	dir, name := split(i.Path)
	id, err := dirID(a.ctx, a.tx, dir)
	if err == nil {
		_, err = a.tx.ExecContext(a.ctx, renumber, number(i.ino), id, []byte(name), a.change.Serial)
	}
	return err
}
