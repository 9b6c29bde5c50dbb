package catchup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/export"
)

// errStop ends a walk whose reader has enough.
var errStop = errors.New("enough")

// walk yields what of the tree this mirror may carry, in order of the paths' bytes. It holds one directory for each level.
func (s *Source) walk() export.Records {
	return func(yield func(event.Record, error) bool) {
		root, err := os.OpenRoot(s.Tree)
		if err == nil {
			w := walker{s, yield}
			err = errors.Join(w.dir(root, ".", ""), root.Close())
		}
		if err != nil && !errors.Is(err, errStop) {
			yield(event.Record{}, fmt.Errorf("walk the tree %s: %w", s.Tree, err))
		}
	}
}

type walker struct {
	s     *Source
	yield func(event.Record, error) bool
}

// dir walks a directory: name in root, path in the module.
func (w walker) dir(root *os.Root, name, path string) error {
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP): // it went while it was looked at
		return nil
	case err != nil:
		return err
	}
	defer f.Close() //nolint:errcheck // only read
	entries, err := f.ReadDir(-1)
	if err != nil {
		return err
	}
	fd := int(f.Fd())
	steps := make([]string, 0, len(entries)) // "a" is the entry, "a/" what is below it: "a-b" comes in between
	for _, e := range entries {
		steps = append(steps, e.Name())
		if e.IsDir() || slices.Contains(w.s.Links, join(path, e.Name())) {
			steps = append(steps, e.Name()+"/")
		}
	}
	slices.Sort(steps)
	for _, step := range steps {
		if err := w.step(root, fd, name, path, step); err != nil {
			return err
		}
	}
	return nil
}

// step is one name of the directory dir, which is open as fd: to look a name up from there costs a tenth of what it costs from the root.
func (w walker) step(root *os.Root, fd int, dir, above, step string) error {
	base, below := strings.CutSuffix(step, "/")
	path := join(above, base)
	if skipped(path) {
		return nil
	}
	if slices.Contains(w.s.Links, path) {
		return w.link(path, below)
	}
	if below {
		if !w.s.Rules.Included(path, true) {
			return nil
		}
		return w.dir(root, filepath.Join(dir, base), path)
	}
	var st unix.Stat_t
	err := unix.Fstatat(fd, base, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) { // it went while it was looked at
		return nil
	}
	if err != nil {
		return &fs.PathError{Op: "lstat", Path: path, Err: err}
	}
	return w.entry(path, &st)
}

// link walks the directory behind a configured link as if it lay in its place.
func (w walker) link(path string, below bool) error {
	root, err := os.OpenRoot(filepath.Join(w.s.Tree, path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if below {
		err = w.dir(root, ".", path)
	} else {
		var st unix.Stat_t
		if err = unix.Stat(root.Name(), &st); err == nil {
			err = w.entry(path, &st)
		}
	}
	return errors.Join(err, root.Close())
}

func (w walker) entry(path string, st *unix.Stat_t) error {
	r := event.Record{Op: event.Write, Mode: st.Mode, MTime: event.Stamp{Sec: st.Mtim.Sec, Nsec: int32(st.Mtim.Nsec)}, Path: path}
	if !w.s.Rules.Included(path, r.IsDir()) {
		return nil
	}
	if t := r.Mode & event.ModeType; t == event.ModeFile || t == event.ModeLink {
		r.Size = st.Size
	}
	if !w.yield(r, nil) {
		return errStop
	}
	return nil
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}
