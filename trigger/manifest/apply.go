package manifest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/failpoint"
)

// A Change is one announcement, for Apply.
type Change struct {
	Serial event.Serial
	Set    event.PathSet // nil: anything may have changed

	// Before is when the announcement before this one was made, zero if there is none. What was touched later cannot be known to be on mirrors that are at that
	// serial, even if this manifest has seen it already.
	Before time.Time

	// At is when this announcement was made. What a directory holds that was touched later, mirrors need not have; zero: no such thing.
	At time.Time
}

// Applied counts what Apply found.
type Applied struct{ Added, Changed, Removed int64 }

// Apply takes the next announcement in. Records of single paths are believed; where one speaks for a directory, that directory, or everything below it, is looked at
// in the tree at root. A serial that was applied before is ignored; one must not be left out.
func (m *Manifest) Apply(ctx context.Context, ch Change, root string) (Applied, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var done Applied
	err := m.change(ctx, func(c *changer) error {
		pos, err := position(ctx, c.tx)
		if err != nil || ch.Serial <= pos.Serial {
			return err
		}
		if ch.Serial != pos.Serial+1 {
			return fmt.Errorf("is at serial %d", pos.Serial)
		}
		failpoint.Here("manifest.apply")
		tree, err := os.OpenRoot(root)
		if err != nil {
			return err
		}
		defer tree.Close() //nolint:errcheck // only read
		a := &applier{changer: c, change: ch, since: ch.since(), late: ch.late(), root: tree, crossMounts: m.o.CrossMounts}
		if err := a.apply(); err != nil {
			return err
		}
		done = a.done
		_, err = c.tx.ExecContext(ctx, "UPDATE position SET serial = ?", ch.Serial)
		return err
	})
	if err != nil {
		return Applied{}, m.named(fmt.Errorf("manifest of %s: apply serial %d: %w", m.module, ch.Serial, err))
	}
	return done, nil
}

type applier struct {
	*changer
	change      Change
	since       int64 // ctime, in nanoseconds, from which on an inode counts as touched
	late        int64 // time, in nanoseconds, after which what is touched was touched too late to be announced
	root        *os.Root
	crossMounts bool
	done        Applied
}

func (a *applier) apply() error {
	if a.change.Set == nil {
		return a.walk("")
	}
	for _, r := range a.change.Set { // first what goes, since a later record may say that something is there again
		var err error
		switch r.Op {
		case event.Gone:
			err = a.remove(r.Path)
		case event.Renamed:
			err = a.remove(r.From)
		}
		if err != nil {
			return err
		}
	}
	for _, r := range a.change.Set {
		if r.Op == event.Gone {
			continue
		}
		if err := a.record(r); err != nil {
			return fmt.Errorf("path %.200q: %w", r.Path, err)
		}
	}
	return nil
}

func (a *applier) remove(path string) error {
	n, err := a.bury(path, a.change.Serial)
	a.done.Removed += n
	return err
}

func (a *applier) record(r event.Record) error {
	if err := a.parents(r.Path); err != nil {
		return err
	}
	switch {
	case r.Op == event.Level:
		return a.level(r)
	case r.Op == event.Tree || r.Op == event.Renamed:
		return a.tree(r)
	case r.Mode != 0 && !(inode{Record: r}).mirrored():
		return a.remove(r.Path)
	case r.Mode == 0 || r.Link != 0: // the numbers of link groups in a path set mean nothing outside it
		return a.look(r)
	}
	return a.set(r, a.inoOf(r))
}

// parents makes sure that the directories above a path are in the manifest.
func (a *applier) parents(path string) error {
	dir, _ := split(path)
	if dir == "" {
		return nil
	}
	if old, ok, err := get(a.ctx, a.tx, dir); err != nil || (ok && old.IsDir()) {
		return err
	}
	if err := a.parents(dir); err != nil {
		return err
	}
	return a.look(event.Record{Path: dir})
}

// look takes the path of r as it is on disk, where r does not state how it was when it was announced; else it only looks at which inode it is. What is gone
// again is believed to be there if r states so: a comparison with the tree then finds that it went, and that nobody said so.
func (a *applier) look(r event.Record) error {
	i, ok, err := lstat(a.root, r.Path)
	switch {
	case err != nil:
		return err
	case ok && !i.mirrored(), !ok && r.Mode == 0:
		return a.remove(r.Path)
	case r.Mode != 0:
		r.Link = i.Link
		return a.set(r, i.ino)
	}
	old, had, err := get(a.ctx, a.tx, r.Path)
	if err != nil {
		return err
	}
	return a.take(old, had && old.Mode != 0, i)
}

// take writes what was found on disk in place of old, and notes if it was touched too late.
func (a *applier) take(old event.Record, had bool, i inode) error {
	if err := a.replace(old, had, i.Record, i.ino); err != nil || i.changed <= a.late {
		return err
	}
	return a.note(i.Path, lateInode)
}

// inoOf is the number of the inode that a record of one name is about, 0 if there is none to be told.
func (a *applier) inoOf(r event.Record) uint64 {
	if r.IsDir() {
		return 0
	}
	i, _, _ := lstat(a.root, r.Path)
	return i.ino
}

// set writes one path, which is inode ino.
func (a *applier) set(r event.Record, ino uint64) error {
	old, ok, err := get(a.ctx, a.tx, r.Path)
	if err != nil {
		return err
	}
	return a.replace(old, ok && old.Mode != 0, r, ino)
}

// replace writes r, which is inode ino, in place of old, which there is if had is true.
func (a *applier) replace(old event.Record, had bool, r event.Record, ino uint64) error {
	if r.Sum.IsZero() && old.Size == r.Size && old.MTime == r.MTime {
		r.Sum = old.Sum
	}
	r.Op, r.Serial = event.Write, a.change.Serial
	if err := a.put(r, ino); err != nil {
		return err
	}
	if !had {
		a.done.Added++
		return nil
	}
	a.done.Changed++
	if !old.IsDir() || r.IsDir() {
		return nil
	}
	n, err := a.buryBelow(r.Path, a.change.Serial)
	a.done.Removed += n
	return err
}

// level takes a directory and its own entries as they are on disk.
func (a *applier) level(r event.Record) error {
	if err := a.look(r); err != nil {
		return err
	}
	l, ok, err := list(a.root, r.Path)
	if err != nil || !ok {
		return err
	}
	return a.compare(l)
}

// tree takes a directory and everything below as it is on disk.
func (a *applier) tree(r event.Record) error {
	if err := a.look(r); err != nil {
		return err
	}
	return a.walk(r.Path)
}

// walk takes what is below a directory, "" for the module, as it is on disk.
func (a *applier) walk(dir string) error {
	w := &walk{root: a.root, crossMounts: a.crossMounts, each: func(l listing, _ int) error { return a.compare(l) }}
	return w.run(a.ctx, dir)
}

// compare brings the rows of one directory to what was found there.
func (a *applier) compare(l listing) error {
	if l.self.changed > a.late {
		if err := a.note(l.dir, lateEntries); err != nil {
			return err
		}
	}
	rows, err := a.rows(l.dir)
	if err != nil {
		return err
	}
	for _, i := range l.inodes {
		old, ok := rows[i.Path]
		delete(rows, i.Path)
		had := ok && old.Mode != 0
		if had && i.changed < a.since && old.late == 0 && same(old.Record, i.Record) {
			if old.ino != i.ino {
				if err := a.renumber(i); err != nil {
					return err
				}
			}
			continue
		}
		if err := a.take(old.Record, had, i); err != nil {
			return err
		}
	}
	for path, old := range rows {
		if old.Mode == 0 {
			continue
		}
		if err := a.remove(path); err != nil {
			return err
		}
	}
	return nil
}

func same(a, b event.Record) bool {
	return a.Mode == b.Mode && a.Size == b.Size && a.MTime == b.MTime && a.Link == b.Link
}

// rows are those of one directory, by path.
func (a *applier) rows(dir string) (all map[string]known, err error) {
	rows, err := a.tx.QueryContext(a.ctx, "SELECT "+knownColumns+" FROM entry WHERE dir = (SELECT dir FROM dir WHERE path = ?)", []byte(dir))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	all = map[string]known{}
	for rows.Next() {
		k, err := scanKnown(rows, dir)
		if err != nil {
			return nil, err
		}
		all[k.Path] = k
	}
	return all, rows.Err()
}
