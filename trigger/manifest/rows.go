package manifest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/sqlite"
)

// A changer writes rows in one transaction, and notes which shards are no longer what was exported.
type changer struct {
	ctx     context.Context
	tx      *sql.Tx
	dirs    map[string]int64 // ids of known directories
	changed map[int64]bool   // directories of which a row was written
	starts  []string         // of the shards, in order
	dirty   []bool           // by start
}

// change runs f in one transaction.
func (m *Manifest) change(ctx context.Context, f func(*changer) error) error {
	return sqlite.Tx(ctx, m.db, func(tx *sql.Tx) error {
		c := &changer{ctx: ctx, tx: tx, dirs: map[string]int64{}, changed: map[int64]bool{}}
		if err := c.loadStarts(); err != nil {
			return err
		}
		if err := f(c); err != nil {
			return err
		}
		if err := c.forgetSeen(); err != nil {
			return err
		}
		return c.saveDirty()
	})
}

func (c *changer) loadStarts() (err error) {
	rows, err := c.tx.QueryContext(c.ctx, "SELECT start FROM shard ORDER BY start")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var start []byte
		if err := rows.Scan(&start); err != nil {
			return err
		}
		c.starts = append(c.starts, string(start))
	}
	c.dirty = make([]bool, len(c.starts))
	return rows.Err()
}

func (c *changer) saveDirty() error {
	for i, dirty := range c.dirty {
		if !dirty {
			continue
		}
		if _, err := c.tx.ExecContext(c.ctx, "UPDATE shard SET dirty = 1 WHERE start = ?", []byte(c.starts[i])); err != nil {
			return err
		}
	}
	return nil
}

// soil marks the shards that cover the paths from first up to but not including last.
func (c *changer) soil(first, last string) {
	i, found := slices.BinarySearch(c.starts, first)
	if !found {
		i--
	}
	for i = max(i, 0); i < len(c.starts) && (c.starts[i] < last || c.starts[i] <= first); i++ {
		c.dirty[i] = true
	}
}

// split cuts a path into its directory ("" for the module itself) and its name.
func split(path string) (dir, name string) {
	i := strings.LastIndexByte(path, '/')
	return path[:max(i, 0)], path[i+1:]
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// dir returns the id of a directory's row, or 0. The row exists for each path that has, or had, something below it.
func dirID(ctx context.Context, q querier, path string) (int64, error) {
	var id int64
	err := q.QueryRowContext(ctx, "SELECT dir FROM dir WHERE path = ?", []byte(path)).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	return id, err
}

// makeDir returns the id of a directory's row and makes it, and those above it, if need be.
func (c *changer) makeDir(path string) (int64, error) {
	if id, ok := c.dirs[path]; ok {
		return id, nil
	}
	id, err := dirID(c.ctx, c.tx, path)
	if err == nil && id == 0 {
		id, err = c.insertDir(path)
	}
	if err == nil {
		c.dirs[path] = id
	}
	return id, err
}

func (c *changer) insertDir(path string) (int64, error) {
	var parent any
	if path != "" {
		above, _ := split(path)
		id, err := c.makeDir(above)
		if err != nil {
			return 0, err
		}
		parent = id
	}
	done, err := c.tx.ExecContext(c.ctx, "INSERT INTO dir (parent, path) VALUES (?, ?)", parent, []byte(path))
	if err != nil {
		return 0, err
	}
	return done.LastInsertId()
}

const entryColumns = "name, mode, size, sec, nsec, serial, link, sum"

// scanRecord reads a row of entryColumns in directory dir.
func scanRecord(row scanner, dir string) (event.Record, error) {
	var name, sum []byte
	var link sql.Null[int64]
	r := event.Record{Op: event.Write}
	if err := row.Scan(&name, &r.Mode, &r.Size, &r.MTime.Sec, &r.MTime.Nsec, &r.Serial, &link, &sum); err != nil {
		return event.Record{}, err
	}
	r.Path, r.Link = join(dir, string(name)), uint64(link.V)
	copy(r.Sum[:], sum)
	if r.Mode == 0 {
		r.Op = event.Gone
	}
	return r, nil
}

// get returns the row of a path, if there is one.
func get(ctx context.Context, q querier, path string) (event.Record, bool, error) {
	dir, name := split(path)
	r, err := scanRecord(q.QueryRowContext(ctx, `SELECT `+entryColumns+` FROM entry WHERE dir = (SELECT dir FROM dir WHERE path = ?) AND name = ?`,
		[]byte(dir), []byte(name)), dir)
	if errors.Is(err, sql.ErrNoRows) {
		return event.Record{}, false, nil
	}
	return r, err == nil, err
}

// Get returns what the manifest says of a path: that it is there (op Write), that it was removed (Gone), or nothing.
func (m *Manifest) Get(ctx context.Context, path string) (event.Record, bool, error) {
	return get(ctx, m.db, path)
}

// put writes the row of r.Path, which is inode ino; 0 if that is not known, or nothing to tell.
func (c *changer) put(r event.Record, ino uint64) error {
	dir, name := split(r.Path)
	id, err := c.makeDir(dir)
	if err != nil {
		return err
	}
	if _, err := c.tx.ExecContext(c.ctx, insertEntry, entryValues(id, name, r, ino)...); err != nil {
		return fmt.Errorf("path %.200q: %w", r.Path, err)
	}
	c.changed[id] = true
	c.soil(r.Path, r.Path)
	return nil
}

const insertEntry = "INSERT OR REPLACE INTO entry (dir, " + entryColumns + ", ino) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"

// entryValues are the values for insertEntry.
func entryValues(dir int64, name string, r event.Record, ino uint64) []any {
	var sum any
	if !r.Sum.IsZero() {
		sum = r.Sum[:]
	}
	return []any{dir, []byte(name), r.Mode, r.Size, r.MTime.Sec, r.MTime.Nsec, r.Serial, number(r.Link), sum, number(ino)}
}

// number is the number of an inode as it is stored: of 64 bits, and NULL for 0.
func number(ino uint64) any {
	if ino == 0 {
		return nil
	}
	return int64(ino)
}

// bury makes tombstones of what is below path, and of path itself even if nothing is known of it.
func (c *changer) bury(path string, serial event.Serial) (int64, error) {
	old, _, err := get(c.ctx, c.tx, path)
	if err == nil {
		err = c.put(event.Record{Op: event.Gone, Path: path, Serial: serial}, 0)
	}
	if err != nil {
		return 0, err
	}
	n, err := c.buryBelow(path, serial)
	if old.Mode != 0 {
		n++
	}
	return n, err
}

// buryBelow makes tombstones of what is below path.
func (c *changer) buryBelow(path string, serial event.Serial) (int64, error) {
	done, err := c.tx.ExecContext(c.ctx, `UPDATE entry SET mode = 0, size = 0, sec = 0, nsec = 0, link = NULL, ino = NULL, sum = NULL, serial = ?
		WHERE mode <> 0 AND dir IN (SELECT dir FROM dir WHERE path = ? OR (path > ? AND path < ?))`, serial, []byte(path), []byte(path+"/"), []byte(after(path)))
	if err != nil {
		return 0, err
	}
	n, err := done.RowsAffected()
	if n == 0 || err != nil {
		return n, err
	}
	c.soil(path+"/", after(path))
	_, err = c.tx.ExecContext(c.ctx, "UPDATE dir SET seen = NULL WHERE path = ? OR (path > ? AND path < ?)", []byte(path), []byte(path+"/"), []byte(after(path)))
	return n, err
}

// after is greater than every path below dir, and no greater than any other path that follows them: "0" follows "/" in ASCII.
func after(dir string) string { return dir + "0" }

// forget drops tombstones of serials up to floor.
func (c *changer) forget(floor event.Serial) (err error) {
	rows, err := c.tx.QueryContext(c.ctx, "SELECT path, name FROM entry JOIN dir USING (dir) WHERE mode = 0 AND serial <= ?", floor)
	if err != nil {
		return err
	}
	for rows.Next() {
		var dir, name []byte
		if err := rows.Scan(&dir, &name); err != nil {
			return errors.Join(err, rows.Close())
		}
		path := join(string(dir), string(name))
		c.soil(path, path)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return err
	}
	_, err = c.tx.ExecContext(c.ctx, "DELETE FROM entry WHERE mode = 0 AND serial <= ?", floor)
	return err
}
