// Package watch is a source of changes: it watches a tree and has what changed in it announced, as it happens.
//
// Where it may, it marks the whole file system with fanotify(7): that takes no time and no memory, whatever the size of the tree. Else it watches each
// directory with inotify(7). Where neither is to be had, as on network file systems, it has the tree scanned again and again.
//
// What the kernel tells is not believed further than this: something may have changed at this name. The names are kept in a set; once nothing happens
// for a moment they are handed to an [Announcer], which looks at what is true of each then. So neither order nor merging of events matters, and to
// announce a name once too often does no harm. Whenever something may have been missed, at the start, after an overflow of the kernel's queue, after the
// tree was away, the announcer is asked to scan.
//
// A process that watches by fanotify needs the capabilities CAP_SYS_ADMIN and CAP_DAC_READ_SEARCH, so it is one of its own, without network.
package watch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/trigger/source/rules"
)

// An Announcer announces changes of one module. After an error that says usage (see internal/fault) the names are at fault, and it is asked again about
// fewer of them; after any other it is asked again later.
type Announcer interface {
	// Announce looks at names and announces what is true of them. When it returns nil that is durable. The serial is 0 if nothing was left to announce.
	Announce(ctx context.Context, names []Name) (event.Serial, error)
	// Scan announces what differs between the tree, or these directories with what is below them, and what was announced of it.
	Scan(ctx context.Context, dirs []string, why string) (event.Serial, error)
}

// The names of backends, and Auto for the best that works.
const (
	Auto     = "auto"
	Fanotify = "fanotify"
	Inotify  = "inotify"
	Scanning = "scan"
)

// Timing is when what changed is announced.
type Timing struct {
	Quiet     time.Duration // after nothing has happened for so long
	AtMost    time.Duration // but so long after the first change at the latest
	Burst     int           // or once so many names have changed
	HotAfter  int           // a file announced so often, each time soon after the last, is held back
	HotAtMost time.Duration // but not for longer; nor is a file that is being written
}

// Options are how a module is watched. Those without a value get what the fields say.
type Options struct {
	Module    event.Module
	Root      string
	Export    string   // folder that mirrorbus writes itself, if it is in the tree
	Own       []string // files in the tree that the hub writes, and announces itself
	Backend   string   // Auto
	Rules     *rules.Rules
	Index     func(path string) bool // of a file that names others: it is never held back, since what it named before goes; may be nil
	Timing    Timing                 // 150ms, 5s, 50,000, 5, 1m
	ScanEvery time.Duration          // 24h: what no event tells of, as a file that is written through a mapping, is found then
	PollEvery time.Duration          // 1m: the same where Scanning is all there is
	MaxNames  int                    // 1,000,000: beyond it a scan takes the place of names that wait
	UntilIdle time.Duration          // Run ends when nothing has happened for so long; 0: never

	stalled    func() bool // tests: nothing is read while it returns true
	smallQueue bool        // tests: the kernel's queue has its default size
	maxWatches int         // tests: so many inotify watches are all there are
}

func setDefault[T comparable](v *T, to T) {
	var zero T
	if *v == zero {
		*v = to
	}
}

func (o *Options) fillDefaults() {
	setDefault(&o.Backend, Auto)
	setDefault(&o.Timing.Quiet, 150*time.Millisecond)
	setDefault(&o.Timing.AtMost, 5*time.Second)
	setDefault(&o.Timing.Burst, 50_000)
	setDefault(&o.Timing.HotAfter, 5)
	setDefault(&o.Timing.HotAtMost, time.Minute)
	setDefault(&o.ScanEvery, 24*time.Hour)
	setDefault(&o.PollEvery, time.Minute)
	setDefault(&o.MaxNames, 1_000_000)
}

// A Watcher watches one module.
type Watcher struct {
	o    Options
	to   Announcer
	log  *slog.Logger
	now  func() time.Time
	in   intake
	wake chan struct{} // holds one token: there may be something to announce
	scan chan struct{} // likewise, to scan

	names, scans pause
	expect       *place // what the root was when it was last watched, or first if it has not moved

	mu       sync.Mutex
	status   Status
	scanning bool
	made     int // scans
	nextScan time.Time
	said     string     // why the root is away, as it was logged
	poke     func()     // wakes the reader; nil if none runs
	depth    func() int // of the kernel's queue
	asked    []*ask     // syncs that wait for the reader
	ready    []*ask     // syncs before which everything was read, some of which wait for a scan
}

// New makes a watcher; nothing is touched yet.
func New(o Options, to Announcer, log *slog.Logger) *Watcher {
	o.fillDefaults()
	w := &Watcher{o: o, to: to, log: log.With("module", o.Module), now: time.Now, wake: make(chan struct{}, 1), scan: make(chan struct{}, 1)}
	w.in = intake{rules: o.Rules, own: o.Own, most: o.MaxNames, now: w.now, set: newPending(o.Timing)}
	w.in.set.index = o.Index
	w.status = Status{Module: o.Module, Path: o.Root, Since: w.now(), State: Starting}
	return w
}

// errIdle ends a watcher that was to run until nothing happens.
var errIdle = errors.New("nothing happens")

// rootEvery is how often a root that cannot be watched is looked for.
const rootEvery = 2 * time.Second

// replacedWait is how long a root that was replaced is left alone before it is watched anew.
const replacedWait = 100 * time.Millisecond

// Run watches until ctx ends, or until it is idle if that was asked for: then it returns nil. A root that is not there at the start is an error, one that
// goes away later is waited for. What has not been announced when ctx ends is found by the scan of the next start.
func (w *Watcher) Run(ctx context.Context) error {
	for why := atStart; ; {
		err := w.session(ctx, why)
		switch {
		case errors.Is(err, errIdle) || ctx.Err() != nil:
			return nil
		case errors.Is(err, errFallBack):
			why = "events can no longer be told"
		case isAway(err):
			why = "the tree is back"
			w.away(err)
			wait := rootEvery
			if errors.Is(err, errReplaced) {
				wait = replacedWait
			}
			if !sleep(ctx, wait) {
				return nil
			}
		default:
			return err
		}
	}
}

// atStart is why the first scan is made.
const atStart = "start"

// isAway tells whether the root may come back.
func isAway(err error) bool {
	return errors.Is(err, errReplaced) || errors.Is(err, errGone) || errors.Is(err, errAway)
}

// away notes that the root cannot be watched, and that it must be scanned when it can.
func (w *Watcher) away(err error) {
	w.mu.Lock()
	said := w.said == err.Error()
	w.said = err.Error()
	w.status.State, w.status.Trouble = Away, fmt.Sprintf("%s %v", w.o.Root, err)
	w.mu.Unlock()
	if !said {
		w.log.Error("the tree is not watched and nothing of it is announced", "path", w.o.Root, "reason", err)
	}
}

// sleep waits, or returns false because ctx has ended.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// open looks at the root.
func (w *Watcher) open(first bool) (*place, error) {
	at, err := openPlace(w.o.Root)
	if err != nil && !first {
		return nil, fmt.Errorf("%w: %w", errGone, err)
	}
	if err != nil {
		return nil, fault.With(fmt.Errorf("module %s: %w", w.o.Module, err), fault.Config, "is its path right, and its file system mounted?")
	}
	if w.expect == nil || at.root != w.expect.root { // or a symbolic link leads elsewhere now
		w.expect = at
	}
	if !at.mount.same(w.expect.mount) {
		return nil, errors.Join(errAway, at.close())
	}
	w.in.export = ""
	if event.Under(at.root, w.o.Export) {
		w.in.export = strings.TrimPrefix(w.o.Export, at.root+"/")
	}
	return at, nil
}
