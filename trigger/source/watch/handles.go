package watch

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrorbus/mirrorbus/event"
)

// maxKnown is how many directories are remembered.
const maxKnown = 200_000

// A paths knows where directories are that are given as handles. A directory that is gone, or lies elsewhere, is known to be.
type paths struct {
	root  string
	known map[string]where
	mount int // a descriptor of the root while handles are looked up, -1 else: it keeps nobody from unmounting
}

type where struct {
	path string
	in   bool // below the root
}

func newPaths(root string) *paths { return &paths{root: root, known: map[string]where{}, mount: -1} }

func (p *paths) clear() { clear(p.known) }

// of is where the directory with that handle is, relative to the root.
func (p *paths) of(handle []byte) (path string, in bool, err error) {
	w, ok := p.known[string(handle)]
	if !ok {
		if w, err = p.find(handle); err != nil {
			return "", false, err
		}
		if len(p.known) >= maxKnown {
			p.clear()
		}
		p.known[string(handle)] = w
	}
	return w.path, w.in, nil
}

// find asks the kernel.
func (p *paths) find(handle []byte) (where, error) {
	if err := p.open(); err != nil {
		return where{}, err
	}
	full, err := handlePath(p.mount, fileHandle(handle))
	switch {
	case errors.Is(err, unix.ESTALE), errors.Is(err, unix.ENAMETOOLONG): // gone, or with a path that is too long to be announced
		return where{}, nil
	case err != nil:
		return where{}, err
	case full == p.root:
		return where{in: true}, nil
	case !event.Under(p.root, full):
		return where{}, nil
	}
	return where{path: full[len(p.root)+1:], in: true}, nil
}

func (p *paths) open() error {
	if p.mount >= 0 {
		return nil
	}
	fd, err := unix.Open(p.root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: p.root, Err: err}
	}
	p.mount = fd
	return nil
}

// rest ends a round of look-ups.
func (p *paths) rest() { _ = p.close() }

func (p *paths) close() error {
	if p.mount < 0 {
		return nil
	}
	err := unix.Close(p.mount)
	p.mount = -1
	return err
}

// handleTries is how often, and handlePause how far apart, a handle is looked up: open_by_handle_at(2) now and then says ENOMEM of a directory that others
// rename just then, or that lies below one.
const (
	handleTries = 10
	handlePause = time.Millisecond
)

// handlePath is where the directory with a handle is now.
func handlePath(mount int, h unix.FileHandle) (string, error) {
	fd, err := unix.OpenByHandleAt(mount, h, unix.O_PATH|unix.O_CLOEXEC)
	for n := 1; n < handleTries && errors.Is(err, unix.ENOMEM); n++ {
		time.Sleep(handlePause)
		fd, err = unix.OpenByHandleAt(mount, h, unix.O_PATH|unix.O_CLOEXEC)
	}
	if err != nil {
		return "", err
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written
	full, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err == nil && strings.HasSuffix(full, " (deleted)") {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil || st.Nlink == 0 {
			return "", unix.ESTALE
		}
	}
	return full, err
}

// probe makes sure that handles can be looked up.
func (p *paths) probe() error {
	defer p.rest()
	if err := p.open(); err != nil {
		return err
	}
	h, _, err := unix.NameToHandleAt(p.mount, "", unix.AT_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("name_to_handle_at %s: %w", p.root, explainFan(err))
	}
	full, err := handlePath(p.mount, h)
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("open_by_handle_at %s: %w: it takes the capability CAP_DAC_READ_SEARCH", p.root, err)
	case err != nil:
		return fmt.Errorf("open_by_handle_at %s: %w", p.root, err)
	case full != p.root:
		return fmt.Errorf("open_by_handle_at %s: finds %s", p.root, full)
	}
	return nil
}
