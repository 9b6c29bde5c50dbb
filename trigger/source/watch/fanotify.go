package watch

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// A backend tells an intake what may have changed below a root. It is used by one goroutine.
type backend interface {
	// fd is to be polled for something to read; -1 if there is nothing to wait for.
	fd() int
	// read hands over all that is queued. It does not wait. pending says that it has more to say although nothing may come to be read.
	read(in *intake) (pending bool, err error)
	close() error
}

// The events that are asked for. Not FAN_MODIFY, which comes with every write(2): who writes closes. FAN_ATTRIB is what a flip is. Nothing of ours that
// reads the tree makes events.
const (
	fanBase = unix.FAN_CREATE | unix.FAN_DELETE | unix.FAN_CLOSE_WRITE | unix.FAN_ATTRIB | unix.FAN_ONDIR
	fanPair = unix.FAN_MOVED_FROM | unix.FAN_MOVED_TO // where FAN_RENAME is not known, before Linux 5.17
)

// readSize is how much is read at once.
const readSize = 256 << 10

// A fanotify watches the whole file system that its root lies on, by one mark. So there is nothing to set up for each directory, and none is
// created too fast.
type fanotify struct {
	queue int
	paths *paths
	buf   []byte
}

// openFanotify marks the file system. A limited queue can overflow, at /proc/sys/fs/fanotify/max_queued_events.
func openFanotify(at *place, limited bool) (_ *fanotify, err error) {
	flags := uint(unix.FAN_CLASS_NOTIF | unix.FAN_CLOEXEC | unix.FAN_NONBLOCK | unix.FAN_REPORT_DFID_NAME)
	if !limited {
		flags |= unix.FAN_UNLIMITED_QUEUE
	}
	queue, err := unix.FanotifyInit(flags, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_LARGEFILE)
	if err != nil {
		return nil, fmt.Errorf("fanotify_init: %w", explainFan(err))
	}
	f := &fanotify{queue: queue, paths: newPaths(at.root), buf: make([]byte, readSize)}
	if err = f.mark(at); err == nil {
		err = f.paths.probe()
	}
	if err != nil {
		return nil, errors.Join(err, f.close())
	}
	return f, nil
}

// mark asks for the events of the file system that the place is on.
func (f *fanotify) mark(at *place) error {
	add := func(path string) error {
		const flags = unix.FAN_MARK_ADD | unix.FAN_MARK_FILESYSTEM
		err := unix.FanotifyMark(f.queue, flags, fanBase|unix.FAN_RENAME, unix.AT_FDCWD, path)
		if errors.Is(err, unix.EINVAL) {
			err = unix.FanotifyMark(f.queue, flags, fanBase|fanPair, unix.AT_FDCWD, path)
		}
		return err
	}
	err := add(at.root)
	if errors.Is(err, unix.EXDEV) { // a subvolume of btrfs: its file system is marked where its top is mounted
		if top := topOf(at); top != "" {
			err = add(top)
		}
	}
	if err != nil {
		return fmt.Errorf("fanotify_mark %s: %w", at.root, explainFan(err))
	}
	return nil
}

// topOf is where the whole of the file system is mounted of which the place's mount shows a subvolume, or "".
func topOf(at *place) string {
	all, err := at.list.read()
	if err != nil {
		return ""
	}
	for _, m := range all {
		if m.kind == at.mount.kind && m.source == at.mount.source && m.root == "/" {
			return m.point
		}
	}
	return ""
}

// explainFan says what an error number of fanotify means here.
func explainFan(err error) error {
	for number, text := range map[unix.Errno]string{
		unix.EPERM:      "it takes the capability CAP_SYS_ADMIN",
		unix.ENOSYS:     "this kernel does not have it",
		unix.EINVAL:     "this kernel does not know file handles with names, which came with Linux 5.9",
		unix.EOPNOTSUPP: "this file system has no file handles",
		unix.ENODEV:     "this file system has no identity",
		unix.EXDEV:      "a subvolume cannot be marked; mount the top level of the file system somewhere (mount -o subvolid=5)",
		unix.EMFILE:     "this user has too many fanotify groups; raise fs.fanotify.max_user_groups",
	} {
		if errors.Is(err, number) {
			return fmt.Errorf("%w: %s", err, text)
		}
	}
	return err
}

func (f *fanotify) fd() int { return f.queue }

func (f *fanotify) close() error { return errors.Join(f.paths.close(), unix.Close(f.queue)) }

func (f *fanotify) read(in *intake) (bool, error) {
	defer f.paths.rest()
	for {
		n, err := unix.Read(f.queue, f.buf)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN) || err == nil && n == 0:
			return false, nil
		case err != nil:
			return false, os.NewSyscallError("read fanotify", err)
		}
		if err := decodeFan(f.buf[:n], func(ev fanEvent) { f.take(in, ev) }); err != nil {
			return false, fmt.Errorf("fanotify: %w", err)
		}
	}
}

// take hands over one event.
func (f *fanotify) take(in *intake, ev fanEvent) {
	if ev.mask&unix.FAN_Q_OVERFLOW != 0 {
		in.gap("the event queue has overflowed")
		return
	}
	s := saidBy(ev.mask)
	if ev.mask&unix.FAN_RENAME != 0 {
		from, _ := f.path(in, ev.from)
		to, _ := f.path(in, ev.to)
		in.renamed(from, to, s)
		f.forget(s)
		return
	}
	p, ok := f.path(in, ev.at)
	if !ok {
		return
	}
	switch {
	case ev.mask&unix.FAN_MOVED_TO != 0 && s&isDir != 0:
		in.arrived(p)
	case s&^isDir == 0 && ev.mask&unix.FAN_ATTRIB == 0:
		return
	default:
		in.touch(p, s)
	}
	if ev.mask&fanPair != 0 {
		f.forget(s)
	}
}

// forget drops what is known of paths when a directory was renamed.
func (f *fanotify) forget(s said) {
	if s&isDir != 0 {
		f.paths.clear()
	}
}

// saidBy translates an event's mask.
func saidBy(mask uint64) (s said) {
	if mask&unix.FAN_CREATE != 0 {
		s |= born
	}
	if mask&(unix.FAN_DELETE|unix.FAN_MOVED_FROM) != 0 {
		s |= left
	}
	if mask&unix.FAN_MOVED_TO != 0 {
		s |= came
	}
	if mask&unix.FAN_CLOSE_WRITE != 0 {
		s |= closed
	}
	if mask&unix.FAN_ONDIR != 0 {
		s |= isDir
	}
	return s
}

// path is where a name is, relative to the root. ok is false if it is not below the root.
func (f *fanotify) path(in *intake, at dirName) (string, bool) {
	if at.handle == nil {
		return "", false
	}
	dir, ok, err := f.paths.of(at.handle)
	if err != nil {
		in.gap("a directory could not be looked up: " + err.Error())
	}
	if !ok {
		return "", false
	}
	if len(at.name) == 1 && at.name[0] == '.' {
		return dir, true
	}
	if dir == "" {
		return string(at.name), true
	}
	return dir + "/" + string(at.name), true
}
