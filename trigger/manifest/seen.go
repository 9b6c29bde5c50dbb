package manifest

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"errors"

	"github.com/mirrorbus/mirrorbus/internal/sqlite"
)

// seenSize is how much of a SHA-256 is kept of each directory.
const seenSize = 16

// digest sums up what a directory holds, as far as comparisons look at it. buf is used for the text of it, and returned for the next.
func digest(buf []byte, l listing) (seen, next []byte) {
	buf = buf[:0]
	for _, i := range l.inodes {
		name := nameIn(l.dir, i.Path)
		buf = binary.AppendUvarint(buf, uint64(len(name)))
		buf = append(buf, name...)
		buf = binary.AppendUvarint(buf, uint64(i.Mode))
		if i.IsDir() {
			continue
		}
		buf = binary.AppendUvarint(buf, uint64(i.Size))
		buf = binary.AppendVarint(buf, i.MTime.Sec)
		buf = binary.AppendVarint(buf, int64(i.MTime.Nsec))
		buf = binary.AppendUvarint(buf, i.Link)
	}
	sum := sha256.Sum256(buf)
	return sum[:seenSize], buf
}

// forgetSeen says that rows of a directory have changed.
func (c *changer) forgetSeen() error {
	for id := range c.changed {
		if _, err := c.tx.ExecContext(c.ctx, "UPDATE dir SET seen = NULL WHERE dir = ? AND seen IS NOT NULL", id); err != nil {
			return err
		}
	}
	return nil
}

// An unchanged is a directory whose rows a comparison has found to be as the tree is.
type unchanged struct {
	dir  int64
	seen []byte
}

// maxUnchanged bounds how many of them one comparison notes.
const maxUnchanged = 200_000

// noteSeen notes what was compared, so that the next comparison is faster; unless something was applied since the manifest was at pos.
func (m *Manifest) noteSeen(ctx context.Context, pos Position, dirs []unchanged) error {
	if len(dirs) == 0 {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return sqlite.Tx(ctx, m.db, func(tx *sql.Tx) (err error) {
		now, err := position(ctx, tx)
		if err != nil || now.Epoch != pos.Epoch || now.Serial != pos.Serial {
			return err
		}
		stmt, err := tx.PrepareContext(ctx, "UPDATE dir SET seen = ? WHERE dir = ?")
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, stmt.Close()) }()
		for _, d := range dirs {
			if _, err := stmt.ExecContext(ctx, d.seen, d.dir); err != nil {
				return err
			}
		}
		return nil
	})
}
