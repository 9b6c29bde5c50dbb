package watch

import (
	"context"
	"errors"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/fault"
)

// A State is one word for how a module is watched.
type State string

// The states.
const (
	Starting State = "starting"
	Watching State = "watching" // or scanned again and again, where that is the backend
	Away     State = "away"     // the tree is not there, or not what it was; nothing of it is announced
)

// A Status says how a module is watched. It travels as JSON.
type Status struct {
	Module  event.Module `json:"module"`
	Path    string       `json:"path"`
	State   State        `json:"state"`
	Since   time.Time    `json:"since"` // when the watcher started
	Backend string       `json:"backend,omitempty"`
	Reason  string       `json:"reason,omitempty"` // why that backend

	Queued   int       `json:"queued"`           // bytes of events that the kernel holds
	Waiting  int       `json:"waiting"`          // names that wait to be announced
	Held     int       `json:"held"`             // of them those held back: hot, being written, mounted over, refused
	Oldest   string    `json:"oldest,omitempty"` // of them the one that waits longest
	OldestAt time.Time `json:"oldest_at,omitzero"`
	Sending  int       `json:"sending,omitempty"` // names the hub is asked about now

	Serial    event.Serial `json:"serial,omitempty"` // the last that was announced by this watcher
	Announced time.Time    `json:"announced,omitzero"`

	Lost       int       `json:"lost"` // how often events were lost
	LostAt     time.Time `json:"lost_at,omitzero"`
	Scanning   bool      `json:"scanning"`
	Scanned    time.Time `json:"scanned,omitzero"` // when the last scan was made, and why
	ScanReason string    `json:"scan_reason,omitempty"`

	Trouble string   `json:"trouble,omitempty"` // the last, until it is over
	Notes   []string `json:"notes,omitempty"`
}

// mostLooked bounds how many names are looked through for the oldest.
const mostLooked = 10_000

// Status says how the module is watched now.
func (w *Watcher) Status() Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.status
	s.Scanning = w.scanning
	if w.depth != nil {
		s.Queued = w.depth()
	}
	w.in.mu.Lock()
	defer w.in.mu.Unlock()
	s.Waiting, s.Held, s.Lost, s.LostAt = len(w.in.set.items), len(w.in.set.held), w.in.lost, w.in.lostAt
	looked := 0
	for path, it := range w.in.set.items {
		if s.OldestAt.IsZero() || it.since.Before(s.OldestAt) {
			s.Oldest, s.OldestAt = path, it.since
		}
		if looked++; looked >= mostLooked {
			break
		}
	}
	return s
}

// An ask waits for a sync.
type ask struct {
	done chan error // holds one
	scan int        // so many scans are to be made before it is answered
	read bool       // it waits for the reader only
}

// Sync returns once everything that happened in the tree before it was called is announced, what is held back included. It is what a script calls that
// has changed the tree and wants to go on.
func (w *Watcher) Sync(ctx context.Context) error {
	a := &ask{done: make(chan error, 1)}
	w.ask(a)
	select {
	case err := <-a.done:
		return err
	case <-ctx.Done():
		err := errors.New("not everything is announced yet")
		if s := w.Status(); s.Trouble != "" {
			err = errors.New(s.Trouble)
		}
		return fault.With(err, fault.TryAgain, "see mirrorbus watch --status")
	}
}

// ask has the reader read for a.
func (w *Watcher) ask(a *ask) {
	w.mu.Lock()
	if w.status.Backend == Scanning && !a.read {
		w.in.mu.Lock()
		w.in.need(errand{why: "asked"})
		w.in.mu.Unlock()
	}
	w.asked = append(w.asked, a)
	poke := w.poke
	w.mu.Unlock()
	if poke != nil {
		poke()
	}
}

// setReader says what wakes the reader and how many bytes of events wait for it; nil if none runs any more.
func (w *Watcher) setReader(poke func(), depth func() int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.poke, w.depth = poke, depth
}

func (w *Watcher) takeAsked() []*ask {
	w.mu.Lock()
	defer w.mu.Unlock()
	asked := w.asked
	w.asked = nil
	return asked
}

// readUpTo notes that what happened before asked was read; not all of it if some is pending.
func (w *Watcher) readUpTo(asked []*ask, pending bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if pending {
		w.asked = append(asked, w.asked...)
		return
	}
	scan := w.scansDue()
	for _, a := range asked {
		if a.read {
			a.done <- nil
			continue
		}
		a.scan = scan
		w.ready = append(w.ready, a)
	}
}

// scansDue is how many scans will have been made when all those are that are due or under way. The caller holds mu.
func (w *Watcher) scansDue() int {
	w.in.mu.Lock()
	defer w.in.mu.Unlock()
	scan := w.made
	if w.scanning {
		scan++
	}
	if w.in.scan != nil {
		scan++
	}
	return scan
}

// catchUpReader returns once everything that happened before it was called is read.
func (w *Watcher) catchUpReader(ctx context.Context) error {
	a := &ask{done: make(chan error, 1), read: true}
	w.ask(a)
	select {
	case err := <-a.done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// takeReady takes those who wait for what can be announced now: not who waits for a scan, which may find more.
func (w *Watcher) takeReady() (asks []*ask) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ready = slices.DeleteFunc(w.ready, func(a *ask) bool {
		if a.scan > w.made {
			return false
		}
		asks = append(asks, a)
		return true
	})
	return asks
}

func (w *Watcher) putBack(asks []*ask) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ready = append(asks, w.ready...)
}

// waitForScan puts those back whose names may wait for the scan that is due or under way.
func (w *Watcher) waitForScan(asks []*ask) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range asks {
		a.scan = w.scansDue()
	}
	w.ready = append(asks, w.ready...)
}

func answer(asks []*ask, err error) {
	for _, a := range asks {
		a.done <- err
	}
}

// queued is how many bytes the kernel holds for a backend.
func queued(b backend) int {
	if b.fd() < 0 {
		return 0
	}
	n, err := unix.IoctlGetInt(b.fd(), unix.TIOCINQ)
	if err != nil {
		return 0
	}
	return n
}
