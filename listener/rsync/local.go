package rsync

import (
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// sweep makes the temporary folders of a job and empties them: what lies there was left by a run that was killed. The lock is held. After an
// Index run that failed it also removes what rsync had put aside in the listed directories.
func (r *Runner) sweep(j Job, p planned) error {
	if j.dry() {
		return nil
	}
	for _, part := range p.parts {
		if err := emptyDir(part.root.tempFor(j.Mode)); err != nil {
			return fmt.Errorf("temporary folder: %w", err)
		}
		if j.Mode == Index && j.Way != Aside {
			if err := part.removeDelayed(); err != nil {
				return err
			}
		}
	}
	if j.resumes() {
		if err := p.unconfused(); err != nil {
			return fmt.Errorf("unfinished files: %w", err)
		}
	}
	return nil
}

// emptyDir makes a folder, or empties it.
func emptyDir(path string) error {
	return eachIn(path, func(dir *os.Root, e fs.DirEntry) error { return dir.RemoveAll(e.Name()) })
}

// eachIn calls do for each entry of a folder, which it makes if there is none.
func eachIn(path string, do func(dir *os.Root, e fs.DirEntry) error) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	dir, err := os.OpenRoot(path)
	if err != nil {
		return err
	}
	defer dir.Close() //nolint:errcheck // nothing is written through it
	entries, err := fs.ReadDir(dir.FS(), ".")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := do(dir, e); err != nil {
			return err
		}
	}
	return nil
}

// delayedDir is where rsync --delay-updates keeps finished files until all are there.
const delayedDir = ".~tmp~"

func (p part) removeDelayed() error {
	dir, err := os.OpenRoot(p.root.real)
	if err != nil {
		return err
	}
	defer dir.Close() //nolint:errcheck // nothing is written through it
	seen := map[string]bool{}
	for _, name := range p.names {
		above := parent(name)
		if seen[above] {
			continue
		}
		seen[above] = true
		if err := dir.RemoveAll(join(above, delayedDir)); err != nil && !isNotDir(err) {
			return err
		}
	}
	return nil
}

// Rename moves what is at old to the name new, both relative to the module. It is a shortcut before a Content or Recursive job that makes sure:
// it saves the transfer of what is already here. An existing new name is an error, and so is a missing old one (fs.ErrExist, fs.ErrNotExist).
// Missing parents of new are made for the owner only; the job that follows sets their permissions.
func (r *Runner) Rename(from, to string) error {
	lock, e := r.lock(Job{Mode: Content})
	if e != nil {
		return e
	}
	defer lock.Close() //nolint:errcheck // unlocks; nothing was written
	root, names, err := r.together(from, to)
	if err != nil {
		return fmt.Errorf("rename %q to %q: %w", from, to, err)
	}
	dir, err := os.OpenRoot(root.real)
	if err != nil {
		return err
	}
	defer dir.Close() //nolint:errcheck // nothing is written through it
	if _, err := dir.Lstat(names[1]); err == nil {
		return fmt.Errorf("rename %q to %q: %w", from, to, fs.ErrExist)
	}
	if _, err := dir.Lstat(names[0]); err != nil {
		return err
	}
	if above := parent(names[1]); above != "" {
		if err := dir.MkdirAll(above, 0o700); err != nil {
			return err
		}
	}
	return dir.Rename(names[0], names[1])
}

// together returns the one root that all paths lie in, and their names in it.
func (r *Runner) together(paths ...string) (root, []string, error) {
	roots, err := r.roots()
	if err != nil {
		return root{}, nil, err
	}
	in, names := root{}, []string(nil)
	for i, path := range paths {
		if err := CheckPath(path); err != nil {
			return root{}, nil, err
		}
		at := roots[deepest(roots, path)]
		name := strings.TrimPrefix(strings.TrimPrefix(path, at.link), "/")
		if i > 0 && at.real != in.real || name == "" {
			return root{}, nil, fmt.Errorf("%q lies behind another link, or is one", path)
		}
		in, names = at, append(names, name)
	}
	_, refused, err := in.check(names)
	if err == nil && len(refused) > 0 {
		err = fmt.Errorf("%v", refused[0])
	}
	return in, names, err
}
