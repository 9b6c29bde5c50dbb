package watch

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/trigger/source/rules"
)

const inMask = unix.IN_CREATE | unix.IN_DELETE | unix.IN_CLOSE_WRITE | unix.IN_ATTRIB | unix.IN_MOVED_FROM | unix.IN_MOVED_TO |
	unix.IN_ONLYDIR

// An inotify watches each directory below its root. Directories that are made while it looks elsewhere are read after they are watched, and what
// is in them is taken for new.
type inotify struct {
	queue  int
	root   string
	dev    uint64
	rules  *rules.Rules
	most   int // watches; 0: as many as the system allows
	denied denied
	buf    []byte

	top    *node
	nodes  map[int32]*node      // by watch
	again  map[*node]bool       // to be read again
	moved  map[uint32]*halfMove // renames of which the other half has not come, by cookie
	round  int
	astray int // rounds in which directories were not where they should be
}

// A denied is what of a tree may not be read.
type denied struct {
	dirs  int
	first string
}

// A halfMove is the first half of a rename.
type halfMove struct {
	from  *node // directory it was in
	name  string
	path  string
	dir   bool
	node  *node // of a directory that is watched
	round int   // in which it came
}

// openInotify watches every directory that is there.
func openInotify(at *place, r *rules.Rules, most int) (*inotify, error) {
	queue, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if errors.Is(err, unix.EMFILE) {
		err = fault.With(fmt.Errorf("inotify_init: %w: this user has too many inotify instances", err), fault.Unavailable, "raise fs.inotify.max_user_instances with sysctl")
	}
	if err != nil {
		return nil, err
	}
	b := &inotify{queue: queue, root: at.root, dev: at.dev, rules: r, most: most, buf: make([]byte, readSize), again: map[*node]bool{}, moved: map[uint32]*halfMove{}}
	if err := b.rebuild(); err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

func (b *inotify) fd() int { return b.queue }

func (b *inotify) close() error { return unix.Close(b.queue) }

// rebuild watches everything anew, after directories may have been made that were not heard of.
func (b *inotify) rebuild() error {
	before := b.nodes
	b.nodes, b.denied, b.top = map[int32]*node{}, denied{}, nil
	clear(b.moved)
	clear(b.again)
	f, st, err := openDir(unix.AT_FDCWD, b.root, b.root)
	if err != nil {
		return &os.PathError{Op: "open", Path: b.root, Err: err}
	}
	defer f.Close() //nolint:errcheck // only read
	if b.top, err = b.watch(f, st.Ino); err != nil {
		return err
	}
	if err := b.fill(f, b.top, nobody{}); err != nil {
		return err
	}
	for wd := range before {
		if b.nodes[wd] == nil {
			b.unwatch(wd)
		}
	}
	return nil
}

// mostAstray is how many rounds, of 10 ms or more, events may take to say where a directory is.
const mostAstray = 500

func (b *inotify) read(in *intake) (bool, error) {
	b.round++
	overflowed := false
	var failed error
	for {
		n, err := unix.Read(b.queue, b.buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if errors.Is(err, unix.EAGAIN) || err == nil && n == 0 {
			break
		}
		if err != nil {
			return false, os.NewSyscallError("read inotify", err)
		}
		err = decodeIn(b.buf[:n], func(ev inEvent) {
			if ev.mask&unix.IN_Q_OVERFLOW != 0 {
				overflowed = true
			} else if err := b.take(in, ev); err != nil && failed == nil {
				failed = err
			}
		})
		if err != nil {
			return false, fmt.Errorf("inotify: %w", err)
		}
	}
	if b.astray++; len(b.again) == 0 {
		b.astray = 0
	}
	if overflowed || b.astray > mostAstray {
		failed = b.rebuild()
		why := "the event queue has overflowed"
		if !overflowed {
			why = "directories are not where they should be"
		}
		in.gap(why) // after that: what is made meanwhile is heard of, or found
		b.astray = 0
	}
	if failed == nil {
		failed = errors.Join(b.expire(in), b.retry(in), b.uncover(in))
	}
	return len(b.moved)+len(b.again) > 0, failed
}

// take hands over one event.
func (b *inotify) take(in *intake, ev inEvent) error {
	n := b.nodes[ev.wd]
	if n == nil {
		return nil
	}
	if ev.mask&unix.IN_IGNORED != 0 {
		b.forget(n)
		return nil
	}
	if !n.below(b.top) { // moved away: if it comes back, that announces all of it
		if ev.mask&unix.IN_ISDIR != 0 {
			b.readAgain(n)
		}
		return nil
	}
	s := said(0)
	if ev.mask&unix.IN_ISDIR != 0 {
		s = isDir
	}
	name := string(ev.name)
	path := n.join(name)
	switch {
	case name == "":
		if ev.mask&unix.IN_ATTRIB != 0 {
			in.touch(path, isDir)
		}
	case ev.mask&unix.IN_MOVED_FROM != 0:
		m := &halfMove{from: n, name: name, path: path, dir: s != 0, node: n.children[name], round: b.round}
		b.moved[ev.cookie] = m
		if m.node != nil {
			m.node.unlink()
		}
	case ev.mask&unix.IN_MOVED_TO != 0:
		return b.movedTo(in, n, name, ev.cookie, s)
	case ev.mask&unix.IN_CREATE != 0:
		in.touch(path, born|s)
		if s != 0 {
			return b.made(in, n, name)
		}
	case ev.mask&unix.IN_DELETE != 0:
		in.touch(path, left|s)
	case ev.mask&unix.IN_CLOSE_WRITE != 0:
		in.touch(path, closed|s)
	case ev.mask&unix.IN_ATTRIB != 0:
		in.touch(path, s)
	}
	return nil
}

// made watches a directory that was made. What came into it before that and is gone again nobody can name, and who reads the directory above may have met it: so all
// of it is announced.
func (b *inotify) made(in *intake, n *node, name string) error {
	at, err := b.enter(n, name, in)
	if at != nil {
		in.arrived(n.join(name))
	}
	return err
}

// found says that a name was found. A file may be one that somebody is writing.
func (in *intake) found(path string, dir bool) {
	s := met
	if dir {
		s |= isDir
	}
	in.touch(path, s)
}

// movedTo is the second half of a rename, or all of one from outside the tree.
func (b *inotify) movedTo(in *intake, n *node, name string, cookie uint32, s said) error {
	path := n.join(name)
	m := b.moved[cookie]
	delete(b.moved, cookie)
	if m == nil {
		in.renamed("", path, s)
	} else {
		in.renamed(m.path, path, s)
	}
	if s&isDir == 0 {
		return nil
	}
	if m == nil || m.node == nil {
		_, err := b.enter(n, name, nobody{}) // all of it is announced
		return err
	}
	return b.place(in, m, n, name)
}

// place puts the node of a renamed directory where it is now. What is found there may be another one, and that which was taken for it still be where it was:
// names were looked up after all this had happened.
func (b *inotify) place(in *intake, m *halfMove, n *node, name string) error {
	if !b.rules.Enters(n.join(name)) {
		b.drop(m.node)
		return nil
	}
	m.node.link(n, name)
	at, err := b.enter(n, name, in)
	if err != nil || at == nil || at == m.node { // nil: it has gone on already
		return err
	}
	m.node.unlink()
	return b.leave(in, m)
}

// leave sees whether a directory that was taken for the one that went is where it was, and ends its watches if it is not.
func (b *inotify) leave(in *intake, m *halfMove) error {
	_, err := b.enter(m.from, m.name, in)
	if m.node != nil && !m.node.below(b.top) {
		b.drop(m.node)
	}
	return err
}

// expire takes renames whose other half should have come for moves out of the tree.
func (b *inotify) expire(in *intake) error {
	for cookie, m := range b.moved {
		if m.round == b.round {
			continue
		}
		delete(b.moved, cookie)
		s := said(0)
		if m.dir {
			s = isDir
		}
		in.renamed(m.path, "", s)
		if err := b.leave(in, m); err != nil {
			return err
		}
	}
	return nil
}

// errLimit is what the system's limit of watches leads to.
func (b *inotify) errLimit() error {
	limit := "the limit of this user"
	if text, err := os.ReadFile("/proc/sys/fs/inotify/max_user_watches"); err == nil {
		limit = fmt.Sprintf("fs.inotify.max_user_watches, %s", text[:max(len(text)-1, 0)])
	}
	return fault.With(fmt.Errorf("watch %s: %w: after %d directories, each of which takes an inotify watch: %s", b.root, errNoWatches, len(b.nodes), limit), fault.Unavailable,
		"raise it with sysctl -w fs.inotify.max_user_watches=1000000, or give the watcher CAP_SYS_ADMIN and CAP_DAC_READ_SEARCH for fanotify, which needs none")
}

var errNoWatches = errors.New("no watches are left")
