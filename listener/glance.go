package listener

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// A looker tells what a path is, nil if there is nothing: a tree does, and a glance.
type looker interface {
	lstat(path string) (fs.FileInfo, error)
}

// A glance looks at many paths of a tree, one after the other, and keeps the directory of the last one open: from there a name costs a tenth of what it
// costs from the root. It is for moments in which no directory is put into the place of another.
type glance struct {
	t    *tree
	root *os.Root
	dir  string   // relative to root
	open *os.File // that directory, nil if there is none
}

func (t *tree) glance() *glance { return &glance{t: t} }

// close ends it.
func (g *glance) close() {
	if g.open != nil {
		g.open.Close() //nolint:errcheck // only looked at
		g.open = nil
	}
}

// lstat is tree.lstat.
func (g *glance) lstat(name string) (fs.FileInfo, error) {
	if slices.ContainsFunc(g.t.roots, func(r treeRoot) bool { return r.link == name }) {
		return g.t.lstat(name)
	}
	root, within := g.t.at(name)
	if dir := parentOf(within); g.open == nil || root != g.root || dir != g.dir {
		g.close()
		if dir == "" {
			dir = "."
		}
		f, err := root.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			return g.t.lstat(name) // which says why
		}
		g.root, g.dir, g.open = root, parentOf(within), f
	}
	var s stat
	s.name = path.Base(within)
	err := unix.Fstatat(int(g.open.Fd()), s.name, &s.Stat_t, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil, nil
	case err != nil:
		return g.t.lstat(name)
	}
	return s, nil
}

// A stat is what the kernel says of a path, as an fs.FileInfo.
type stat struct {
	unix.Stat_t
	name string
}

func (s stat) Name() string       { return s.name }
func (s stat) Size() int64        { return s.Stat_t.Size }
func (s stat) ModTime() time.Time { return time.Unix(s.Mtim.Unix()) }
func (s stat) IsDir() bool        { return s.Mode().IsDir() }
func (s stat) Sys() any           { return &s.Stat_t }

// Mode writes the type and the permissions as package fs does.
func (s stat) Mode() fs.FileMode {
	m := goMode(s.Stat_t.Mode)
	switch s.Stat_t.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		m |= fs.ModeDir
	case unix.S_IFLNK:
		m |= fs.ModeSymlink
	case unix.S_IFIFO:
		m |= fs.ModeNamedPipe
	case unix.S_IFSOCK:
		m |= fs.ModeSocket
	case unix.S_IFBLK:
		m |= fs.ModeDevice
	case unix.S_IFCHR:
		m |= fs.ModeDevice | fs.ModeCharDevice
	}
	return m
}
