package manifest

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/fault"
)

// A Difference is what is true of a tree and not said by its manifest.
type Difference struct {
	Progress
	Set   event.PathSet // what to announce, empty if nothing differs
	Whole bool          // so much differs that no list is worth having: anything may have changed; Set is nil
	Found Found

	Unseen    []string // directories that were asked for and are neither in the tree nor in the manifest
	Unsettled bool     // where the tree lies was not known, or is believed to have changed: Settle notes it
	at        place
}

// Found counts paths that differ. Of what is gone or was renamed only the topmost counts.
type Found struct {
	Added, Changed, Meta, Removed, Renamed int64
}

// CompareOptions narrow a comparison and bound what it holds. Zero numbers mean no bound.
type CompareOptions struct {
	Dirs         []string // only these and what is below them; everything if empty
	PerDirectory int      // more records about names in one directory become one about the directory, when there are too many
	Limit        int      // records that are held at most before directories are named in their place
	Moved        bool     // the tree lies elsewhere than before, or other things are mounted in it, and that is meant
}

// Compare walks the tree at path and returns how it differs from the manifest, which it leaves as it is. A name is as the manifest says if its type, mode,
// size and modification time are, and if it shares its inode with the names that it is said to share it with. Of a directory the time does not count, since it
// changes with what is in it. So a change is not seen that leaves size and time as they were, even if st_ctime tells of it: that time changes
// for many reasons that mirrors need not know, and jumps with the clock.
//
// A directory that is gone, and another one that appeared with the same names, sizes and times in it, is one that was renamed, unless there are several such.
// What is touched while the tree is walked may or may not be seen. Whatever cannot be read is an error, and so is a file system that is mounted, or no longer
// mounted, where it was not so when the manifest was built: what cannot be seen is never taken for removed. The error Is ErrElsewhere, or ErrNotBuilt.
func (m *Manifest) Compare(ctx context.Context, path string, o CompareOptions, progress func(Progress)) (Difference, error) {
	m.walks.Lock()
	defer m.walks.Unlock()
	c := &comparer{m: m, o: o, start: time.Now(), progress: progress, inside: map[string]*arrival{}, said: map[string]bool{}, relinked: map[uint64][]event.Record{}}
	err := c.run(ctx, path)
	if errors.Is(err, errWhole) {
		c.d.Set, c.d.Whole, err = nil, true, nil
	}
	if err != nil {
		return Difference{Progress: c.d.Progress}, m.named(fmt.Errorf("compare %s with the manifest of %s: %w", path, m.module, err))
	}
	c.report(time.Now())
	return c.d, nil
}

type comparer struct {
	m        *Manifest
	o        CompareOptions
	root     *os.Root
	ids      *sql.Stmt // of a directory, and its digest
	rows     *sql.Stmt // of one directory
	pos      Position  // when it began
	same     []unchanged
	buf      []byte // for digests
	numbers  []renumbered
	d        Difference
	start    time.Time
	last     time.Time // of progress
	progress func(Progress)

	dev    uint64          // of the file system of the tree
	firm   bool            // it is known where the tree lay, and it is to lie there
	mounts map[string]bool // the mount points that there were
	masks  []string        // directories on which something is mounted that was not
	said   map[string]bool // what was found above directories that were asked for, and ends the way to them

	records  []event.Record
	held     int                 // records, here and in arrivals
	arrivals []*arrival          // directories that appeared
	inside   map[string]*arrival // theirs that are not read yet
	departed []event.Record      // directories that are gone
	relinked map[uint64][]event.Record
}

func (c *comparer) run(ctx context.Context, path string) (err error) {
	if c.pos, err = c.m.Position(ctx); err != nil {
		return err
	}
	if c.root, err = os.OpenRoot(path); err != nil {
		return err
	}
	defer c.root.Close() //nolint:errcheck // only read
	if err := c.locate(ctx); err != nil {
		return err
	}
	if c.ids, err = c.m.look.PrepareContext(ctx, "SELECT dir, seen FROM dir WHERE path = ?"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.ids.Close()) }()
	c.rows, err = c.m.look.PrepareContext(ctx, "SELECT name, mode, size, sec, nsec, link, late, ino FROM entry WHERE dir = ? AND mode <> 0 ORDER BY name")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.rows.Close()) }()
	if err := c.walk(ctx); err != nil {
		return err
	}
	if err := c.finish(ctx); err != nil {
		return err
	}
	if err := c.noteNumbers(ctx); err != nil {
		return err
	}
	return c.m.noteSeen(ctx, c.pos, c.same)
}

// locate makes sure that the tree lies where it lay.
func (c *comparer) locate(ctx context.Context) error {
	top, _, err := lstat(c.root, ".")
	if err != nil {
		return err
	}
	c.dev = top.dev
	if c.d.at, err = placeOf(c.root); err != nil {
		return err
	}
	before, mounts, ok, err := c.m.settled(ctx)
	if err != nil {
		return err
	}
	c.firm, c.mounts, c.d.Unsettled = ok && !c.o.Moved, mounts, !ok || c.o.Moved
	if c.firm && before != c.d.at {
		return elsewhere("%s is on another file system, or another folder", c.root.Name())
	}
	return nil
}

func (c *comparer) walk(ctx context.Context) error {
	if len(c.o.Dirs) == 0 { // every shard that was exported tells how many names it had
		err := c.m.look.QueryRowContext(ctx, "SELECT coalesce(sum(entries), 0) FROM shard").Scan(&c.d.Expected)
		if err != nil {
			return err
		}
	}
	w := &walk{root: c.root, crossMounts: c.m.o.CrossMounts, dev: c.dev, each: func(l listing, waiting int) error { return c.each(ctx, l, waiting) }}
	for _, dir := range topmost(c.o.Dirs) {
		there, err := c.enter(ctx, dir)
		if err == nil && there {
			err = w.run(ctx, dir)
		}
		if err != nil {
			return err
		}
	}
	c.d.Waiting, c.d.Mounts = 0, slices.Sorted(slices.Values(w.mounts))
	return nil
}

// topmost are the directories that lie below no other, the module itself if there are none.
func topmost(dirs []string) []string {
	if len(dirs) == 0 {
		return []string{""}
	}
	dirs = slices.Compact(slices.Sorted(slices.Values(dirs)))
	return slices.DeleteFunc(slices.Clone(dirs), func(dir string) bool {
		return slices.ContainsFunc(dirs, func(above string) bool { return event.Under(above, dir) })
	})
}

// enter compares a directory that was asked for, and those above it; there tells whether it is to be walked. One that is gone, or is no directory any more, is a
// difference like others.
func (c *comparer) enter(ctx context.Context, dir string) (there bool, err error) {
	if dir == "" {
		return true, nil
	}
	if err := event.CheckPath(dir); err != nil {
		return false, fault.With(err, fault.Usage, "name directories relative to the module")
	}
	for end := range len(dir) + 1 {
		if end < len(dir) && dir[end] != '/' {
			continue
		}
		path := dir[:end]
		i, ok, err := lstat(c.root, path)
		if err != nil {
			return false, err
		}
		old, had, err := c.m.row(ctx, path)
		switch known := had && old.Mode != 0; {
		case err != nil:
			return false, err
		case c.said[path]:
			return false, nil
		case !ok && known:
			c.said[path] = true
			return false, c.gone(old.Record)
		case !ok:
			c.d.Unseen = append(c.d.Unseen, dir)
			return false, nil
		case i.dev != c.dev && !c.m.o.CrossMounts:
			return false, fault.With(fmt.Errorf("directory %.200q: another file system is mounted at %.200q", dir, path), fault.Usage, "scans do not enter it")
		case !i.IsDir() && !(known && old.IsDir()):
			return false, fault.With(fmt.Errorf("%.200q is no directory", path), fault.Usage, "name directories of the module, by their real names")
		case !i.IsDir() || end == len(dir):
			c.said[path] = !i.IsDir()
			return i.IsDir(), c.judge(i, old, known)
		}
	}
	return true, nil
}

func (c *comparer) report(now time.Time) {
	c.last, c.d.Elapsed = now, now.Sub(c.start)
	if c.progress != nil {
		c.progress(c.d.Progress)
	}
}

// finish makes the path set.
func (c *comparer) finish(ctx context.Context) error {
	if err := c.unmask(ctx); err != nil {
		return err
	}
	if err := c.rename(ctx); err != nil {
		return err
	}
	for _, a := range c.arrivals {
		c.records = append(c.records, a.all()...)
	}
	if err := c.regroup(ctx); err != nil {
		return err
	}
	slices.SortStableFunc(c.records, func(a, b event.Record) int { return cmp.Compare(a.Path, b.Path) })
	c.d.Set = c.records
	return c.d.Set.Check()
}

// errWhole ends a comparison that finds more than is worth naming.
var errWhole = errors.New("too much differs")

// shrink names directories in the place of what is in them, where so much differs that it must not be held.
func (c *comparer) shrink() error {
	c.held = len(c.records)
	for _, a := range c.arrivals {
		a.records = nil
		a.whole = true
		c.held++
	}
	if c.held <= c.o.Limit/2 {
		return nil
	}
	set, err := event.NewPathSet(c.records)
	if err != nil {
		return err
	}
	set, ok := set.Condense(c.o.PerDirectory, max(c.o.Limit/2-len(c.arrivals), 0))
	if !ok {
		return errWhole
	}
	c.records, c.held = set, len(set)+len(c.arrivals)
	return nil
}

// unmask makes sure that no name of the manifest is hidden below what was mounted since.
func (c *comparer) unmask(ctx context.Context) error {
	for _, path := range c.masks {
		var one int
		err := c.m.look.QueryRowContext(ctx, "SELECT 1 FROM entry JOIN dir USING (dir) WHERE mode <> 0 AND (path = ? OR (path > ? AND path < ?)) LIMIT 1",
			[]byte(path), []byte(path+"/"), []byte(after(path))).Scan(&one)
		switch {
		case err == nil:
			return elsewhere("a file system is mounted on %.200q, over names that mirrors have", path)
		case !errors.Is(err, sql.ErrNoRows):
			return err
		}
	}
	return nil
}

// nameIn is a path without the directory dir above it.
func nameIn(dir, path string) string {
	return strings.TrimPrefix(path[len(dir):], "/")
}
