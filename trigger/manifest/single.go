package manifest

import (
	"context"
	"errors"
	"maps"
	"os"
	"slices"

	"github.com/mirrorbus/mirrorbus/event"
)

// maxLinked bounds how many names of one inode are looked for: empty files of a whole module may be one inode.
const maxLinked = 1000

const linkedQuery = "SELECT path, name FROM entry JOIN dir USING (dir) WHERE ino = ? AND mode <> 0 ORDER BY path, name LIMIT ?"

// Linked are the paths that were names of the inode ino of the tree when they were looked at, whether it had one name then or several. They need not be that any
// more, and where walks cross mounts the inode may be one of another file system: the caller looks. At most 1000 are returned.
func (m *Manifest) Linked(ctx context.Context, ino uint64) (paths []string, err error) {
	rows, err := m.linked.QueryContext(ctx, int64(ino), maxLinked)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var dir, name []byte
		if err := rows.Scan(&dir, &name); err != nil {
			return nil, err
		}
		paths = append(paths, join(string(dir), string(name)))
	}
	return paths, rows.Err()
}

// HasLinks tells whether there is a file of several names.
func (m *Manifest) HasLinks(ctx context.Context) (has bool, err error) {
	err = m.look.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM entry WHERE link IS NOT NULL)").Scan(&has)
	return has, err
}

// Mates are the other names of the inodes that had a name at one of some paths, or below it, as far as the manifest knows; but not those of the inode that is
// at that path now: there has its number, or 0.
func (m *Manifest) Mates(ctx context.Context, there map[string]uint64) (map[string]bool, error) {
	was, err := m.rows(ctx, slices.Collect(maps.Keys(there)))
	if err != nil {
		return nil, err
	}
	mates := map[string]bool{}
	for path, old := range was {
		if old.Mode == 0 {
			continue
		}
		inodes := []uint64{old.ino}
		if old.IsDir() {
			if inodes, err = m.linkedBelow(ctx, path); err != nil {
				return nil, err
			}
		}
		for _, i := range inodes {
			if i == 0 || i == there[path] {
				continue
			}
			names, err := m.Linked(ctx, i)
			if err != nil {
				return nil, err
			}
			for _, name := range names {
				if name != path && !event.Under(path, name) {
					mates[name] = true
				}
			}
		}
	}
	return mates, nil
}

const linkedBelowQuery = `SELECT DISTINCT ino FROM entry AS e WHERE dir IN (SELECT dir FROM dir WHERE path = ? OR path > ? AND path < ?)
	AND mode <> 0 AND EXISTS (SELECT 1 FROM entry AS other WHERE other.link = e.ino) LIMIT ?`

// linkedBelow are the inodes of several names that have one below dir. The name below it may be from when it was the only one.
func (m *Manifest) linkedBelow(ctx context.Context, dir string) (inodes []uint64, err error) {
	rows, err := m.look.QueryContext(ctx, linkedBelowQuery, []byte(dir), []byte(dir+"/"), []byte(after(dir)), maxLinked)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var n int64
		if err := rows.Scan(&n); err != nil {
			return nil, err
		}
		inodes = append(inodes, uint64(n))
	}
	return inodes, rows.Err()
}

// MayHold tells which of some paths mirrors may have: those that are there as far as the manifest knows, or were in a directory that was touched when it had
// been announced already.
func (m *Manifest) MayHold(ctx context.Context, paths []string) (map[string]bool, error) {
	there, err := m.rows(ctx, paths)
	if err != nil {
		return nil, err
	}
	above := map[string]bool{}
	for _, path := range paths {
		if dir, _ := split(path); dir != "" {
			above[dir] = true
		}
	}
	dirs, err := m.rows(ctx, slices.Collect(maps.Keys(above)))
	if err != nil {
		return nil, err
	}
	may := map[string]bool{}
	for _, path := range paths {
		dir, _ := split(path)
		may[path] = there[path].Mode != 0 || dirs[dir].late == lateEntries
	}
	return may, nil
}

// Still leaves out of a set the single paths that are, in the tree at path, as the manifest says by now.
func (m *Manifest) Still(ctx context.Context, path string, set event.PathSet) (event.PathSet, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	defer root.Close() //nolint:errcheck // only read
	var still event.PathSet
	for _, r := range set {
		if r.Op == event.Write || r.Op == event.Meta || r.Op == event.Gone {
			changed, relinked, err := m.differs(ctx, root, r.Path)
			if err != nil {
				return nil, err
			}
			if !changed && !relinked {
				continue
			}
		}
		still = append(still, r)
	}
	return still, nil
}

// Changed tells whether a path is not in the tree at root as the manifest says. What other names its inode has is not looked at.
func (m *Manifest) Changed(ctx context.Context, root *os.Root, path string) (bool, error) {
	changed, _, err := m.differs(ctx, root, path)
	return changed, err
}

// differs compares a path in the tree at root with its row; relinked tells whether it is another inode, or has got or lost other names.
func (m *Manifest) differs(ctx context.Context, root *os.Root, path string) (changed, relinked bool, err error) {
	i, there, err := lstat(root, path)
	if err != nil {
		return false, false, err
	}
	old, had, err := m.row(ctx, path)
	if err != nil {
		return false, false, err
	}
	had = had && old.Mode != 0
	if !there {
		return had, false, nil
	}
	return differs(i, old, had) != 0, i.Link != old.Link, nil
}
