package watch

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A node is a directory that inotify watches. Its path is that of its parents, so that a rename of one of them is a change at one place.
type node struct {
	name     string
	parent   *node
	children map[string]*node // directories that are watched
	wd       int32
	ino      uint64
	filled   bool // what is below was read once
}

// path is relative to the root, "" of the root itself.
func (n *node) path() string {
	if n.parent == nil {
		return n.name
	}
	return n.parent.join(n.name)
}

// below tells whether n is top, or lies below it: not if it was moved away.
func (n *node) below(top *node) bool {
	for ; n != nil; n = n.parent {
		if n == top {
			return true
		}
	}
	return false
}

// join is the path of a name in n, or of n itself if name is "".
func (n *node) join(name string) string {
	dir := n.path()
	switch {
	case name == "":
		return dir
	case dir == "":
		return name
	}
	return dir + "/" + name
}

// link puts n below parent. It does nothing if parent lies below n: then an event that is still to come says how that is.
func (n *node) link(parent *node, name string) {
	for up := parent; up != nil; up = up.parent {
		if up == n {
			return
		}
	}
	n.unlink()
	n.parent, n.name = parent, name
	if parent == nil {
		return
	}
	if parent.children == nil {
		parent.children = map[string]*node{}
	}
	parent.children[name] = n
}

// unlink takes n from its parent, unless another has its place already.
func (n *node) unlink() {
	if n.parent != nil && n.parent.children[n.name] == n {
		delete(n.parent.children, n.name)
	}
	n.parent = nil
}

// open opens the directory of n, or returns nil: then its path is not what it was when the event at hand happened, and it is read again later.
func (b *inotify) open(n *node) *os.File {
	full := b.root
	if dir := n.path(); dir != "" {
		full += "/" + dir
	}
	f, st, err := openDir(unix.AT_FDCWD, full, full)
	if err == nil && st.Ino == n.ino && uint64(st.Dev) == b.dev {
		return f
	}
	if err == nil {
		f.Close() //nolint:errcheck // only read
	}
	if errors.Is(err, unix.EACCES) {
		b.deny(full)
		return nil
	}
	b.readAgain(n)
	return nil
}

// readAgain has a directory read again when more was heard.
func (b *inotify) readAgain(n *node) {
	n.filled = false
	b.again[n] = true
}

// openDir opens a directory in another, and says which one it is.
func openDir(dir int, name, full string) (*os.File, unix.Stat_t, error) {
	var st unix.Stat_t
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, st, err
	}
	f := os.NewFile(uintptr(fd), full)
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, st, errors.Join(err, f.Close())
	}
	return f, st, nil
}

// A finder is told what is found in directories that were not watched before.
type finder interface {
	found(path string, dir bool)
	arrived(path string) // a directory that was watched elsewhere; what is below it is not told
}

// nobody is told where all of it is known, or announced anyway.
type nobody struct{}

func (nobody) found(string, bool) {}
func (nobody) arrived(string)     {}

// enter watches the directory name in parent and everything below it, says what is below, and returns its node: nil if there is none now.
func (b *inotify) enter(parent *node, name string, to finder) (*node, error) {
	if !b.rules.Enters(parent.join(name)) {
		return nil, nil
	}
	dir := b.open(parent)
	if dir == nil {
		return nil, nil
	}
	defer dir.Close() //nolint:errcheck // only read
	return b.adopt(dir, parent, name, to)
}

// adopt is enter for a parent that is open.
func (b *inotify) adopt(dir *os.File, parent *node, name string, to finder) (*node, error) {
	full := dir.Name() + "/" + name
	f, st, err := openDir(int(dir.Fd()), name, full)
	switch {
	case errors.Is(err, unix.EACCES):
		b.deny(full)
		return nil, nil
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP): // it has gone on, and an event says where
		return nil, nil
	case err != nil:
		return nil, &os.PathError{Op: "open", Path: full, Err: err}
	}
	defer f.Close() //nolint:errcheck // only read
	if uint64(st.Dev) != b.dev {
		return nil, nil
	}
	known := len(b.nodes)
	n, err := b.watch(f, st.Ino)
	if err != nil {
		return nil, err
	}
	moved := len(b.nodes) == known && (n.parent != parent || n.name != name)
	n.link(parent, name)
	if moved {
		to.arrived(n.path())
	}
	if n.filled {
		return n, nil
	}
	return n, b.fill(f, n, to)
}

// watch watches a directory that is open.
func (b *inotify) watch(f *os.File, ino uint64) (*node, error) {
	if b.most > 0 && len(b.nodes) >= b.most {
		return nil, b.errLimit()
	}
	wd, err := unix.InotifyAddWatch(b.queue, fmt.Sprintf("/proc/self/fd/%d", f.Fd()), inMask)
	if errors.Is(err, unix.ENOSPC) {
		return nil, b.errLimit()
	}
	if err != nil {
		return nil, &os.PathError{Op: "watch", Path: f.Name(), Err: err}
	}
	n := b.nodes[int32(wd)]
	if n == nil { // else it was known under another name
		n = &node{wd: int32(wd), ino: ino}
		b.nodes[n.wd] = n
	}
	return n, nil
}

func (b *inotify) deny(full string) {
	if b.denied.dirs == 0 {
		b.denied.first = full
	}
	b.denied.dirs++
}

// readAtOnce is how many names of a directory are read at once.
const readAtOnce = 1000

// fill watches what is below n, which is open and is watched already: what is made from then on is heard of, what was made before is found.
func (b *inotify) fill(f *os.File, n *node, to finder) error {
	n.filled = true
	if _, err := f.Seek(0, io.SeekStart); err != nil { // btrfs lists what was there when it was opened, which is longer ago than it is watched
		return &os.PathError{Op: "rewind", Path: f.Name(), Err: err}
	}
	var dirs []string
	for {
		entries, err := f.ReadDir(readAtOnce)
		for _, e := range entries {
			to.found(n.join(e.Name()), e.IsDir())
			if e.IsDir() && b.rules.Enters(n.join(e.Name())) {
				dirs = append(dirs, e.Name())
			}
		}
		if err != nil || len(entries) == 0 { // removed meanwhile, which is heard of
			break
		}
	}
	for _, name := range dirs {
		if _, err := b.adopt(f, n, name, to); err != nil {
			return err
		}
	}
	return nil
}

// retry reads the directories whose paths were not what they had been, now that more was heard.
func (b *inotify) retry(in *intake) error {
	todo := slices.Collect(maps.Keys(b.again))
	clear(b.again) // what fails again comes back
	for _, n := range todo {
		if !n.below(b.top) {
			if b.nodes[n.wd] == n { // it may come back
				b.again[n] = true
			}
			continue
		}
		f := b.open(n)
		if f == nil {
			continue
		}
		err := b.fill(f, n, in)
		f.Close() //nolint:errcheck // only read
		if err != nil {
			return err
		}
	}
	return nil
}

// uncover watches the directories that have come to light, since what was mounted over them is gone.
func (b *inotify) uncover(in *intake) error {
	dirs := in.uncovered()
	slices.Sort(dirs) // the outer ones first
	for _, dir := range dirs {
		parent, rest := b.top, strings.Split(dir, "/")
		for ; parent != nil && len(rest) > 1; rest = rest[1:] {
			parent = parent.children[rest[0]]
		}
		if parent == nil { // not watched either
			continue
		}
		if _, err := b.enter(parent, rest[0], in); err != nil {
			return err
		}
	}
	return nil
}

// forget drops a directory whose watch has ended by itself, since it was removed or unmounted.
func (b *inotify) forget(n *node) {
	delete(b.nodes, n.wd)
	n.unlink()
}

// drop ends the watches of a directory that has left the tree, and of what is below it.
func (b *inotify) drop(n *node) {
	for _, child := range n.children {
		b.drop(child)
	}
	b.forget(n)
	b.unwatch(n.wd)
}

// unwatch ends a watch. One that has ended by itself is none any more.
func (b *inotify) unwatch(wd int32) {
	_, _ = unix.InotifyRmWatch(b.queue, uint32(wd))
}
