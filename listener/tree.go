package listener

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/mirrorbus/mirrorbus/internal/failpoint"
)

// A tree is the mirrored directory, opened so that no path leads out of it: not by "..", not through a symbolic link. The links that the
// configuration names are directories of the module that live elsewhere; each is opened as a root of its own.
type tree struct {
	roots []treeRoot // the longest link first; the last is the module's own
}

type treeRoot struct {
	link string // relative to the module, "" for the module itself
	dir  *os.Root
}

// openTree opens the directory dir and those behind its links. A link that is missing, or a directory, at present is none.
func openTree(dir string, links []string) (*tree, error) {
	t := &tree{}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open tree: %w", err)
	}
	t.roots = []treeRoot{{dir: root}}
	for _, link := range links {
		path := filepath.Join(dir, link)
		info, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) || err == nil && info.Mode()&fs.ModeSymlink == 0 {
			continue
		}
		if err == nil {
			root, err = os.OpenRoot(path)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("open tree: link %s: %w", link, err), t.close())
		}
		t.roots = append(t.roots, treeRoot{link, root})
	}
	slices.SortStableFunc(t.roots, func(a, b treeRoot) int { return len(b.link) - len(a.link) })
	return t, nil
}

func (t *tree) close() error {
	var errs []error
	for _, r := range t.roots {
		errs = append(errs, r.dir.Close())
	}
	return errors.Join(errs...)
}

// at finds the root that holds path, and its name there.
func (t *tree) at(path string) (*os.Root, string) {
	for _, r := range t.roots {
		if rest, ok := strings.CutPrefix(path, r.link+"/"); ok && r.link != "" {
			return r.dir, rest
		}
	}
	return t.roots[len(t.roots)-1].dir, path
}

// lstat tells what path is, nil if there is nothing. A configured link counts as the directory behind it.
func (t *tree) lstat(path string) (fs.FileInfo, error) {
	dir, name := t.at(path)
	for _, r := range t.roots {
		if r.link == path && path != "" {
			dir, name = r.dir, "."
		}
	}
	info, err := dir.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil, nil
	}
	if err == nil {
		return info, nil
	}
	if through := t.through(path); through != nil {
		return nil, through
	}
	return nil, fmt.Errorf("look at %.300q: %w", path, err)
}

// through is an error if a symbolic link that is not configured stands above path: what is behind it has another name in the module, or none.
func (t *tree) through(path string) error {
	dir, name := t.at(path)
	for above := parentOf(name); above != ""; above = parentOf(above) {
		if info, err := dir.Lstat(above); err == nil && info.Mode()&fs.ModeSymlink != 0 {
			link := strings.TrimSuffix(path, name) + above
			return &pathError{path, fmt.Errorf("leads through the symbolic link %s: add it to the configured links, or put a directory in its place", link)}
		}
	}
	return nil
}

// chmod sets the permission bits of path, which must not be a symbolic link: that is checked on what was opened.
func (t *tree) chmod(path string, mode uint32) error {
	dir, name := t.at(path)
	info, err := dir.Lstat(name)
	if err != nil {
		return fmt.Errorf("change the mode of %.300q: %w", path, err)
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		return fmt.Errorf("change the mode of %.300q: is a symbolic link", path)
	}
	f, err := dir.OpenFile(name, unix.O_PATH, 0)
	if err != nil {
		return fmt.Errorf("change the mode of %.300q: %w", path, err)
	}
	opened, err := f.Stat()
	switch {
	case err != nil:
	case !os.SameFile(info, opened):
		err = errors.New("was replaced meanwhile")
	default: // through /proc, since what was opened with O_PATH, which needs no right to read, cannot be changed directly
		err = os.Chmod(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), goMode(mode))
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("change the mode of %.300q: %w", path, err)
	}
	return nil
}

// fsync makes the metadata of one inode durable.
func (t *tree) fsync(path string) error {
	dir, name := t.at(path)
	f, err := dir.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// linkTree fills the new directory to with hard links to what is in from, as far as that can be done: what is missing is fetched.
func (t *tree) linkTree(from, to string) error {
	dir, old := t.at(from)
	other, name := t.at(to)
	if dir != other {
		return nil
	}
	if _, err := dir.Lstat(name); err == nil {
		return nil
	}
	if err := dir.MkdirAll(name, 0o700); err != nil {
		return err
	}
	return fs.WalkDir(dir.FS(), old, func(p string, d fs.DirEntry, err error) error {
		rest := strings.TrimPrefix(p, old)
		switch {
		case err != nil || rest == "":
			return err
		case d.IsDir():
			return dir.Mkdir(name+rest, 0o700)
		case d.Type().IsRegular():
			return dir.Link(p, name+rest)
		}
		return nil
	})
}

// goMode writes permission bits as package fs does.
func goMode(mode uint32) fs.FileMode {
	m := fs.FileMode(mode & 0o777)
	for bit, as := range map[uint32]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if mode&bit != 0 {
			m |= as
		}
	}
	return m
}

// unixMode writes permission bits as stat(2) does.
func unixMode(m fs.FileMode) uint32 {
	mode := uint32(m.Perm())
	for bit, as := range map[uint32]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if m&as != 0 {
			mode |= bit
		}
	}
	return mode
}

// free is how many bytes the module's own file system has room for.
func (t *tree) free() (int64, error) {
	var fs unix.Statfs_t
	dir := t.roots[len(t.roots)-1].dir.Name()
	if err := unix.Statfs(dir, &fs); err != nil {
		return 0, fmt.Errorf("free space of %s: %w", dir, err)
	}
	return int64(fs.Bavail) * fs.Bsize, nil
}

// sync brings everything that was written to the file systems of the tree to disk. rsync's success alone is not durability: after a power cut
// none of 2,000 files that plain rsync had brought was there.
func (t *tree) sync() error {
	if failpoint.LeftOut(failpoint.Syncfs) {
		return nil
	}
	for _, r := range t.roots {
		f, err := r.dir.Open(".")
		if err != nil {
			return fmt.Errorf("sync: %w", err)
		}
		if err := errors.Join(unix.Syncfs(int(f.Fd())), f.Close()); err != nil {
			return fmt.Errorf("sync the file system of %s: %w", r.dir.Name(), err)
		}
	}
	return nil
}
