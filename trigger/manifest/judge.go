package manifest

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"slices"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
)

// each compares one directory.
func (c *comparer) each(ctx context.Context, l listing, waiting int) error {
	c.d.Dirs++
	c.d.Waiting = int64(waiting)
	c.d.Special += int64(len(l.special))
	for _, i := range l.inodes {
		c.d.Entries++
		c.d.Bytes += i.Size
	}
	if now := time.Now(); now.Sub(c.last) >= progressEvery {
		c.report(now)
	}
	a := c.inside[l.dir]
	delete(c.inside, l.dir)
	var err error
	if a != nil {
		c.arrive(a, l)
	} else {
		err = c.compare(ctx, l)
	}
	if err == nil && c.o.Limit > 0 && c.held > c.o.Limit {
		err = c.shrink()
	}
	return err
}

// compare compares a directory: by its digest if there is one, else name by name.
func (c *comparer) compare(ctx context.Context, l listing) error {
	var id int64
	var before, now []byte
	err := c.ids.QueryRowContext(ctx, []byte(l.dir)).Scan(&id, &before)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	now, c.buf = digest(c.buf, l)
	if before == nil || !bytes.Equal(before, now) || !c.firm { // a tree that was moved has other inodes
		same, err := c.names(ctx, l, id)
		if err == nil && len(c.numbers) >= rowsPerTx {
			err = c.noteNumbers(ctx)
		}
		if same && len(c.same) < maxUnchanged {
			c.same = append(c.same, unchanged{id, now})
		}
		return err
	}
	for _, i := range l.inodes {
		if err := c.mounted(i); err != nil {
			return err
		}
	}
	return nil
}

// names goes through a directory's names and rows side by side. same tells whether they agree in everything that a digest tells.
func (c *comparer) names(ctx context.Context, l listing, id int64) (same bool, err error) {
	rows, err := c.rows.QueryContext(ctx, id)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	left := l.inodes
	known, agree := 0, 0
	for rows.Next() {
		var name sql.RawBytes
		old, err := scanRow(rows, &name)
		if err != nil {
			return false, err
		}
		known++
		for len(left) > 0 && nameIn(l.dir, left[0].Path) < string(name) {
			if err := c.added(left[0]); err != nil {
				return false, err
			}
			left = left[1:]
		}
		switch {
		case len(left) > 0 && nameIn(l.dir, left[0].Path) == string(name):
			if differs(left[0], old, true) == 0 && left[0].Link == old.Link {
				agree++
			}
			if left[0].ino != old.ino {
				c.numbers = append(c.numbers, renumbered{id, string(name), left[0].ino})
			}
			err = c.judge(left[0], old, true)
			left = left[1:]
		case slices.Contains(l.special, string(name)): // mirrors cannot remove what the upstream has, even if it is nothing for them
		default:
			old.Path = join(l.dir, string(name))
			err = c.gone(old.Record)
		}
		if err != nil {
			return false, err
		}
	}
	if l.dir == "" && known > 0 && len(l.inodes) == 0 {
		return false, elsewhere("%s is empty", c.root.Name())
	}
	for _, i := range left {
		if err := c.added(i); err != nil {
			return false, err
		}
	}
	return agree > 0 && agree == known && agree == len(l.inodes), rows.Err()
}

// scanRow reads a row of the rows statement.
func scanRow(rows *sql.Rows, name *sql.RawBytes) (known, error) {
	var link, late, ino sql.Null[int64]
	old := known{Record: event.Record{Op: event.Write}}
	err := rows.Scan(name, &old.Mode, &old.Size, &old.MTime.Sec, &old.MTime.Nsec, &link, &late, &ino)
	old.Link, old.late, old.ino = uint64(link.V), late.V, uint64(ino.V)
	return old, err
}

func (c *comparer) added(i inode) error { return c.judge(i, known{}, false) }

// differs says by which op an inode is to be announced whose row is old, if it had one; 0 if it is as the row says, but perhaps for the names that it
// is linked to.
func differs(i inode, old known, had bool) event.Op {
	switch {
	case !had, i.Mode&event.ModeType != old.Mode&event.ModeType:
		return event.Write
	case i.IsDir() && old.late == lateEntries:
		return event.Level
	case i.IsDir() && (i.Mode != old.Mode || old.late != 0):
		return event.Meta
	case i.IsDir():
		return 0
	case i.Size != old.Size || i.MTime != old.MTime || old.late != 0:
		return event.Write
	case i.Mode != old.Mode && (i.Link == 0 || i.Link == old.Link):
		return event.Meta
	case i.Mode != old.Mode:
		return event.Write
	}
	return 0
}

// enters tells whether the walk goes into the directory i.
func (c *comparer) enters(i inode) bool { return i.IsDir() && (i.dev == c.dev || c.m.o.CrossMounts) }

// mounted makes sure that something is mounted on a directory if that was so before. What is mounted only now is noted.
func (c *comparer) mounted(i inode) error {
	switch {
	case !i.IsDir() || !c.firm:
	case c.enters(i) && c.mounts[i.Path]:
		return elsewhere("nothing is mounted on %.200q any more", i.Path)
	case !c.enters(i) && !c.mounts[i.Path]:
		c.masks = append(c.masks, i.Path)
	}
	return nil
}

// judge takes one name that is there; had tells whether it has a row.
func (c *comparer) judge(i inode, old known, had bool) error {
	if err := c.mounted(i); err != nil {
		return err
	}
	r := i.Record
	r.Op = differs(i, old, had)
	switch {
	case r.Op == 0 && !i.IsDir() && i.Link != 0 && i.Link != old.Link:
		r.Op = event.Write
		c.relinked[i.Link] = append(c.relinked[i.Link], r)
		c.held++
		return nil
	case r.Op == 0:
		return nil
	case !had:
		c.d.Found.Added++
	case r.Op == event.Meta:
		c.d.Found.Meta++
	default:
		c.d.Found.Changed++
	}
	c.held++
	if c.enters(i) && (!had || !old.IsDir()) {
		a := &arrival{top: r, fresh: !had}
		c.arrivals, c.inside[i.Path] = append(c.arrivals, a), a
		return nil
	}
	c.records = append(c.records, r)
	return nil
}

// gone takes one name that is not there any more.
func (c *comparer) gone(old event.Record) error {
	for mount := range c.mounts {
		if c.firm && (mount == old.Path || event.Under(old.Path, mount)) {
			return elsewhere("the mount point %.200q is gone", mount)
		}
	}
	c.d.Found.Removed++
	c.held++
	c.records = append(c.records, event.Record{Op: event.Gone, Path: old.Path})
	if old.IsDir() {
		c.departed = append(c.departed, old)
	}
	return nil
}

// regroup takes in the names that differ only in what they are linked to. A number of other names may lie outside the module, which is nobody's business; so
// one counts only if another name of the module is the same inode.
func (c *comparer) regroup(ctx context.Context) error {
	if len(c.relinked) == 0 {
		return nil
	}
	names := map[uint64]int{}
	for _, r := range c.records {
		names[r.Link]++
	}
	for ino, records := range c.relinked {
		if names[ino]+len(records) < 2 {
			other, err := c.another(ctx, records[0])
			if err != nil {
				return err
			}
			if !other {
				continue
			}
		}
		c.d.Found.Changed += int64(len(records))
		c.records = append(c.records, records...)
	}
	return nil
}

// another tells whether the inode of r has another name, of those that the manifest knows.
func (c *comparer) another(ctx context.Context, r event.Record) (bool, error) {
	paths, err := c.m.Linked(ctx, r.Link)
	if err != nil {
		return false, err
	}
	for _, path := range paths {
		if path == r.Path {
			continue
		}
		if i, ok, err := lstat(c.root, path); err == nil && ok && i.Link == r.Link {
			return true, nil
		}
	}
	return false, nil
}
