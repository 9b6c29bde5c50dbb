package catchup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

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
	f, err := root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	entries, err := f.ReadDir(-1)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	steps := make([]string, 0, len(entries)) // "a" is the entry, "a/" what is below it: "a-b" comes in between
	for _, e := range entries {
		steps = append(steps, e.Name())
		if e.IsDir() || slices.Contains(w.s.Links, join(path, e.Name())) {
			steps = append(steps, e.Name()+"/")
		}
	}
	slices.Sort(steps)
	for _, step := range steps {
		if err := w.step(root, name, path, step); err != nil {
			return err
		}
	}
	return nil
}

func (w walker) step(root *os.Root, dir, above, step string) error {
	base, below := strings.CutSuffix(step, "/")
	path, name := join(above, base), filepath.Join(dir, base)
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
		return w.dir(root, name, path)
	}
	info, err := root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) { // it went while it was looked at
		return nil
	}
	if err != nil {
		return err
	}
	return w.entry(path, info)
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
		var info fs.FileInfo
		if info, err = root.Stat("."); err == nil {
			err = w.entry(path, info)
		}
	}
	return errors.Join(err, root.Close())
}

func (w walker) entry(path string, info fs.FileInfo) error {
	if !w.s.Rules.Included(path, info.IsDir()) {
		return nil
	}
	r := event.Record{Op: event.Write, Mode: unixMode(info.Mode()), MTime: event.StampOf(info.ModTime()), Path: path}
	if t := r.Mode & event.ModeType; t == event.ModeFile || t == event.ModeLink {
		r.Size = info.Size()
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

// unixMode is st_mode.
func unixMode(m fs.FileMode) uint32 {
	mode := uint32(m.Perm())
	for _, bit := range []struct {
		mode fs.FileMode
		unix uint32
	}{{fs.ModeSetuid, 0o4000}, {fs.ModeSetgid, 0o2000}, {fs.ModeSticky, 0o1000}} {
		if m&bit.mode != 0 {
			mode |= bit.unix
		}
	}
	switch {
	case m.IsRegular():
		return mode | event.ModeFile
	case m.IsDir():
		return mode | event.ModeDir
	case m&fs.ModeSymlink != 0:
		return mode | event.ModeLink
	case m&fs.ModeNamedPipe != 0:
		return mode | 0o010000
	case m&fs.ModeSocket != 0:
		return mode | 0o140000
	case m&fs.ModeCharDevice != 0:
		return mode | 0o020000
	}
	return mode | 0o060000
}
