package rsync

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// A Link is a symbolic link on the mirror that stands for a directory of the module, such as iso -> /data2/iso.
type Link struct {
	Path    string // relative to the module
	TempDir string // as Config.TempDir, for the directory behind the link
}

// roots finds the directories that the destination and its links lead to now. The destination is the first; links sort by length, so that one
// behind another comes later. A configured link that is a directory at present, or missing, is none.
func (r *Runner) roots() ([]root, error) {
	main, err := newRoot("", r.cfg.Dest, r.cfg.TempDir)
	if err != nil {
		return nil, err
	}
	roots := []root{main}
	links := slices.SortedFunc(slices.Values(r.cfg.Links), func(a, b Link) int { return len(a.Path) - len(b.Path) })
	for _, l := range links {
		if err := CheckPath(l.Path); err != nil || !remotePath.MatchString(l.Path) {
			return nil, fmt.Errorf("link %q: must be a path in the module without blanks and wildcards", l.Path)
		}
		at := &roots[deepest(roots, l.Path)]
		name := strings.TrimPrefix(strings.TrimPrefix(l.Path, at.link), "/")
		info, err := os.Lstat(filepath.Join(at.real, name))
		if errors.Is(err, fs.ErrNotExist) || err == nil && info.Mode()&fs.ModeSymlink == 0 {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("link %s: %w", l.Path, err)
		}
		real, err := directory(filepath.Join(at.real, name))
		if err != nil {
			return nil, fmt.Errorf("link %s: %w", l.Path, err)
		}
		next, err := newRoot(l.Path, real, l.TempDir)
		if err != nil {
			return nil, fmt.Errorf("link %s: %w", l.Path, err)
		}
		at.keep = append(at.keep, name)
		roots = append(roots, next)
	}
	return roots, nil
}

// newRoot checks the temporary folder of a root and makes it.
func newRoot(link, real, temp string) (root, error) {
	r := root{link: link, real: real, temp: temp}
	if temp == "" {
		r.temp = filepath.Join(filepath.Dir(real), TempPrefix+"-"+filepath.Base(real))
	}
	inside := filepath.Dir(r.temp) == real && strings.HasPrefix(filepath.Base(r.temp), TempPrefix)
	if !filepath.IsAbs(r.temp) || within(r.temp, real) && !inside {
		return r, fmt.Errorf("temporary folder %s: must be an absolute path outside of %s, or be named %s/%s", r.temp, real, real, TempPrefix)
	}
	if inside {
		r.keep = []string{filepath.Base(r.temp)}
	}
	for _, sub := range []string{"run", "flip", "unfinished", "aside/" + asideTree} {
		if err := os.MkdirAll(filepath.Join(r.temp, sub), 0o700); err != nil {
			return r, fmt.Errorf("temporary folder: %w", err)
		}
	}
	same, err := sameFileSystem(r.temp, real)
	if err == nil && !same {
		err = fmt.Errorf("temporary folder %s is not on the file system of %s, so that files could not appear there at once: set it to %s/%s", r.temp, real, real, TempPrefix)
	}
	return r, err
}

func sameFileSystem(a, b string) (bool, error) {
	var sa, sb syscall.Stat_t
	if err := errors.Join(syscall.Stat(a, &sa), syscall.Stat(b, &sb)); err != nil {
		return false, fmt.Errorf("compare the file systems of %s and %s: %w", a, b, err)
	}
	return sa.Dev == sb.Dev, nil
}

// directory returns the absolute path of a directory with its links resolved.
func directory(path string) (string, error) {
	if !filepath.IsAbs(path) {
		return "", fmt.Errorf("%q: give an absolute path", path)
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", fmt.Errorf("%w: make it, or mount it, first", err)
	}
	info, err := os.Stat(real)
	switch {
	case err != nil:
		return "", err
	case !info.IsDir():
		return "", fmt.Errorf("%s is not a directory", path)
	case real == "/":
		return "", errors.New("/ cannot be a module")
	}
	return real, nil
}

// within tells whether the absolute path lies in dir, or is it.
func within(path, dir string) bool {
	return below(filepath.Clean(path), dir)
}

// keepsNanoseconds tells whether the file system of dir stores times to the nanosecond.
func keepsNanoseconds(dir string) (bool, error) {
	f, err := os.CreateTemp(dir, "time-")
	if err != nil {
		return false, fmt.Errorf("temporary folder: %w", err)
	}
	defer os.Remove(f.Name()) //nolint:errcheck // the folder is emptied before each job
	at := time.Unix(1_700_000_000, 123_456_789)
	if err := errors.Join(f.Close(), os.Chtimes(f.Name(), at, at)); err != nil {
		return false, err
	}
	info, err := os.Stat(f.Name())
	return err == nil && info.ModTime().Equal(at), err
}

func isNotDir(err error) bool { return errors.Is(err, syscall.ENOTDIR) }

// behindLinks are the parts of names that lead through links of the mirror, of a job that writes nothing there: the link may be about to become a
// directory. What is behind it is no basis for them.
func behindLinks(roots []root, refused []PathError, j Job) (parts []part) {
	byRoot := make([][]string, len(roots))
	for _, e := range refused {
		i := deepest(roots, e.Path)
		byRoot[i] = append(byRoot[i], strings.TrimPrefix(strings.TrimPrefix(e.Path, roots[i].link), "/"))
	}
	for i, root := range roots {
		j.Paths = byRoot[i]
		for _, one := range cut(root, j) {
			one.fresh = true
			parts = append(parts, one)
		}
	}
	return parts
}
