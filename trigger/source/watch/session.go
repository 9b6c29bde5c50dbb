package watch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/mirrorbus/mirrorbus/internal/fault"
)

// gather is how long events are left to gather once the first has come. To read each by itself would cost six times as much here, and slow down who
// makes them by a third.
const gather = 5 * time.Millisecond

// lookEvery is how often the root is looked at even if nothing happens.
const lookEvery = 2 * time.Second

// errFallBack ends a session whose backend can tell no more; the next one is blind.
var errFallBack = errors.New("the backend has come to its end")

// session watches the root as it is now, until ctx ends or the root is another one. The backend comes first, then the scan: what happens between is heard
// of.
func (w *Watcher) session(ctx context.Context, why string) (err error) {
	at, err := w.open(why == atStart)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, at.close()) }()
	b, err := w.choose(at)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	w.begin(at, b, why)
	r, err := newReader(w, at, b)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	g, inner := errgroup.WithContext(ctx)
	g.Go(func() error { return r.run(inner) })
	g.Go(func() error { return w.announceLoop(inner, at) })
	g.Go(func() error { return w.scanLoop(inner, at) })
	err = g.Wait()
	if ctx.Err() != nil {
		w.farewell(ctx, at, b)
	}
	return err
}

// begin notes and says what is watched, and how, and has it scanned.
func (w *Watcher) begin(at *place, b chosen, why string) {
	w.in.mu.Lock()
	w.in.need(errand{why: why})
	w.in.bare, w.in.last = nil, w.now()
	w.in.mu.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.said = ""
	w.status.State, w.status.Trouble, w.status.Path, w.status.Backend, w.status.Reason, w.status.Notes = Watching, "", at.root, b.name, b.reason, nil
	attrs := []any{"path", at.root, "backend", b.name, "reason", b.reason}
	if i, ok := b.backend.(*inotify); ok {
		attrs = append(attrs, "directories", len(i.nodes))
		if i.denied.dirs > 0 {
			w.log.Warn("directories may not be read: nothing below them is heard of", "directories", i.denied.dirs, "first", i.denied.first)
			w.status.Notes = []string{fmt.Sprintf("%d directories may not be read, and nothing below them is heard of; the first is %q", i.denied.dirs, i.denied.first)}
		}
	}
	w.log.Info("watching", attrs...)
}

// A reader reads what the backend has, and looks after the root.
type reader struct {
	w       *Watcher
	at      *place
	b       chosen
	pending bool
	looked  time.Time

	mu    sync.Mutex
	woken int // eventfd(2); -1 once it is closed
}

func newReader(w *Watcher, at *place, b chosen) (*reader, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("eventfd", err)
	}
	return &reader{w: w, at: at, b: b, woken: fd}, nil
}

func (r *reader) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	err := unix.Close(r.woken)
	r.woken = -1
	return err
}

// poke wakes the reader.
func (r *reader) poke() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.woken >= 0 {
		_, _ = unix.Write(r.woken, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // any number wakes; a full counter has woken it already
	}
}

// run reads until ctx ends.
func (r *reader) run(ctx context.Context) error {
	defer context.AfterFunc(ctx, r.poke)()
	r.w.setReader(r.poke, func() int { return queued(r.b) })
	defer r.w.setReader(nil, nil)
	if err := r.round(true); err != nil {
		return err
	}
	for {
		changed, err := r.wait()
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if r.w.o.stalled != nil && r.w.o.stalled() {
			continue
		}
		if err := r.round(changed); err != nil {
			return err
		}
	}
}

// round reads what there is.
func (r *reader) round(mountsChanged bool) error {
	asked := r.w.takeAsked() // before reading: what happened before they asked is queued by now
	var err error
	r.pending, err = r.b.read(&r.w.in)
	if errors.Is(err, errNoWatches) && r.w.o.Backend == Auto {
		r.w.o.Backend = Scanning
		r.w.log.Warn("the tree is scanned from now on, instead of watched", "every", r.w.o.PollEvery, "reason", err, "hint", fault.HintOf(err))
		return errFallBack
	}
	if err != nil {
		return fmt.Errorf("watch %s: %w", r.at.root, err)
	}
	if now := r.w.now(); mountsChanged || now.Sub(r.looked) >= lookEvery {
		r.looked = now
		if err := r.w.look(r.at); err != nil {
			return err
		}
	}
	r.w.readUpTo(asked, r.pending)
	token(r.w.wake)
	token(r.w.scan)
	return nil
}

// look looks after the root and what is mounted below it.
func (w *Watcher) look(at *place) error {
	w.in.mu.Lock()
	before := len(at.over)
	uncovered, err := at.look()
	over := slices.Clone(at.over)
	if len(uncovered) > 0 && err == nil {
		w.in.bare = append(w.in.bare, uncovered...)
		w.in.need(errand{dirs: uncovered, why: "unmounted below"})
	}
	w.in.mu.Unlock()
	if err == nil && (len(over) != before || len(uncovered) > 0) {
		w.log.Warn("what is mounted below the tree has changed: names there wait until it is as before", "mounted", over, "unmounted", uncovered)
	}
	return err
}

// wait waits for something to read, a change of mounts, a poke, or the time to look again.
func (r *reader) wait() (mountsChanged bool, err error) {
	timeout := int(lookEvery / time.Millisecond)
	if r.pending {
		timeout = int(2 * gather / time.Millisecond)
	}
	fds := []unix.PollFd{{Fd: int32(r.b.fd()), Events: unix.POLLIN}, {Fd: int32(r.woken), Events: unix.POLLIN}, {Fd: int32(r.at.list.f.Fd()), Events: unix.POLLPRI}}
	n, err := unix.Poll(fds, timeout)
	if err != nil && !errors.Is(err, unix.EINTR) {
		return false, os.NewSyscallError("poll", err)
	}
	if n <= 0 {
		return false, nil
	}
	if fds[1].Revents != 0 {
		var count [8]byte
		_, _ = unix.Read(r.woken, count[:])
	} else if fds[0].Revents != 0 {
		time.Sleep(gather)
	}
	return fds[2].Revents != 0, nil
}
