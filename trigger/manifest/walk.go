package manifest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/mirrorbus/mirrorbus/event"
)

// An inode is what lstat says of a path.
type inode struct {
	event.Record
	changed int64 // st_ctime in nanoseconds since 1970
	dev     uint64
	ino     uint64 // 0 of a directory
}

// mirrored tells whether mirrors carry this type of file. Sockets, FIFOs and devices stay on the master.
func (i inode) mirrored() bool {
	t := i.Mode & event.ModeType
	return t == event.ModeFile || t == event.ModeDir || t == event.ModeLink
}

func newInode(path string, st *unix.Stat_t) inode {
	i := inode{
		Record:  event.Record{Op: event.Write, Mode: st.Mode, MTime: event.Stamp{Sec: st.Mtim.Sec, Nsec: int32(st.Mtim.Nsec)}, Path: path},
		changed: st.Ctim.Nano(), dev: st.Dev,
	}
	if t := st.Mode & event.ModeType; t == event.ModeFile || t == event.ModeLink {
		i.Size = st.Size
	}
	if i.IsDir() {
		return i
	}
	i.ino = st.Ino
	if st.Nlink > 1 {
		i.Link = st.Ino
	}
	return i
}

// lstat looks at one path; ok is false if there is nothing.
func lstat(root *os.Root, path string) (i inode, ok bool, err error) {
	info, err := root.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		return inode{}, false, nil
	case err != nil:
		return inode{}, false, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return inode{}, false, fmt.Errorf("lstat %s: the file system gives no stat data", path)
	}
	i = newInode(path, &unix.Stat_t{Mode: st.Mode, Size: st.Size, Nlink: st.Nlink, Ino: st.Ino, Dev: st.Dev,
		Mtim: unix.Timespec(st.Mtim), Ctim: unix.Timespec(st.Ctim)})
	return i, true, nil
}

// A listing is one directory and what is in it, sorted by name.
type listing struct {
	dir     string
	self    inode // the directory itself, after it was read
	inodes  []inode
	special []string // names of entries that were left out because of their type
}

// list reads one directory: one lstat for each name, relative to the open directory. ok is false if there is no such directory (any more).
func list(root *os.Root, dir string) (l listing, ok bool, err error) {
	l.dir = dir
	name := dir
	if dir == "" {
		name = "."
	}
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return l, false, nil
	case err != nil:
		return l, false, err
	}
	defer f.Close() //nolint:errcheck // only read
	names, err := f.Readdirnames(-1)
	if err != nil {
		return l, false, fmt.Errorf("read directory %s: %w", f.Name(), err)
	}
	slices.Sort(names)
	l.inodes = make([]inode, 0, len(names))
	for _, name := range names {
		if dir == "" && name == event.ExportDir {
			continue
		}
		if err := l.add(int(f.Fd()), name); err != nil {
			return l, false, err
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return l, false, fmt.Errorf("stat directory %s: %w", f.Name(), err)
	}
	l.self = newInode(dir, &st)
	return l, true, nil
}

func (l *listing) add(dirfd int, name string) error {
	path := join(l.dir, name)
	var st unix.Stat_t
	err := unix.Fstatat(dirfd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil // removed since the directory was read
	}
	if err != nil {
		return &fs.PathError{Op: "lstat", Path: path, Err: err}
	}
	i := newInode(path, &st)
	if !i.mirrored() {
		l.special = append(l.special, name)
		return nil
	}
	if err := event.CheckPath(path); err != nil {
		return err
	}
	l.inodes = append(l.inodes, i)
	return nil
}

// walkers is how many directories are read at a time. It hides the latency of a disk, hence more than there may be processors.
const walkers = 4

// A walk reads the directories below one, several at a time. A directory is given to each before any of its subdirectories.
type walk struct {
	root        *os.Root
	crossMounts bool
	each        func(l listing, waiting int) error // called by one goroutine; waiting is how many directories are known and not read yet

	mu     sync.Mutex
	change *sync.Cond
	stack  []string
	busy   int
	dev    uint64   // of the file system to stay on; that of the directory where the first walk begins if 0
	mounts []string // mount points that were not entered
}

// run walks from dir down.
func (w *walk) run(ctx context.Context, dir string) error {
	if w.change == nil { // a walk before this one may wake its readers once more
		w.change = sync.NewCond(&w.mu)
	}
	w.stack = []string{dir}
	top := dir
	if top == "" {
		top = "."
	}
	i, ok, err := lstat(w.root, top)
	if err != nil || !ok {
		return err
	}
	if w.dev == 0 {
		w.dev = i.dev
	}
	found := make(chan listing, 2*walkers)
	g, ctx := errgroup.WithContext(ctx)
	stop := context.AfterFunc(ctx, w.wake)
	defer stop()
	var readers errgroup.Group
	for range walkers {
		readers.Go(func() error { return w.read(ctx, found) })
	}
	g.Go(func() error { defer close(found); return readers.Wait() })
	g.Go(func() error {
		for l := range found {
			if err := w.each(l, w.waiting()); err != nil {
				return err
			}
		}
		return nil
	})
	return g.Wait()
}

func (w *walk) wake() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.change.Broadcast()
}

func (w *walk) waiting() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.stack) + w.busy
}

func (w *walk) read(ctx context.Context, found chan<- listing) error {
	for {
		dir, ok := w.take(ctx)
		if !ok {
			return context.Cause(ctx)
		}
		l, there, err := list(w.root, dir)
		if err == nil && there {
			select {
			case found <- l:
			case <-ctx.Done():
				err = context.Cause(ctx)
			}
		}
		w.done(l, err)
		if err != nil {
			return err
		}
	}
}

// take waits for a directory to read. ok is false when there will be none.
func (w *walk) take(ctx context.Context) (dir string, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.stack) == 0 && w.busy > 0 && ctx.Err() == nil {
		w.change.Wait()
	}
	if len(w.stack) == 0 || ctx.Err() != nil {
		return "", false
	}
	dir = w.stack[len(w.stack)-1]
	w.stack = w.stack[:len(w.stack)-1]
	w.busy++
	return dir, true
}

// done queues the subdirectories of what was read. After an error nothing more is to be read.
func (w *walk) done(l listing, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.busy--
	for _, i := range slices.Backward(l.inodes) {
		switch {
		case i.Mode&event.ModeType != event.ModeDir:
		case i.dev != w.dev && !w.crossMounts:
			w.mounts = append(w.mounts, i.Path)
		default:
			w.stack = append(w.stack, strings.Clone(i.Path))
		}
	}
	if err != nil {
		w.stack = nil
	}
	w.change.Broadcast()
}
