// Package listener is the mirror's side: an [Agent] hears announcements, brings exactly the announced paths from its own upstream, makes sure
// that they are there, and reports.
//
// Everything goes through stored state. A message is verified and put into the inbox, and that is all that receiving it does; it also wakes the
// module. What is then done is decided by pure functions (package pace) from what is stored and the time, whatever
// woke the module: message, connection, timer or command. So a crash anywhere is repaired by the next look at the same state.
//
// Each module has two goroutines: one for batches (a snapshot of all that is pending, merged, planned, run, checked, synced, then noted as
// applied in one transaction) and one for flips, which never wait for a batch.
package listener

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sync/errgroup"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/internal/filter"
	"github.com/mirrorbus/mirrorbus/internal/sqlite"
	"github.com/mirrorbus/mirrorbus/listener/inbox"
	"github.com/mirrorbus/mirrorbus/listener/pace"
	"github.com/mirrorbus/mirrorbus/listener/rsync"
	"github.com/mirrorbus/mirrorbus/transports"
)

// A Gate verifies a line; event.Gate is one.
type Gate interface {
	Open(line []byte, at time.Time) (event.Sealed, error)
}

// A Runner changes a module's tree. Rsync makes one of an rsync.Runner; exec.Runner is another.
type Runner interface {
	Run(ctx context.Context, stage string, j rsync.Job) (rsync.Result, error)
	Rename(from, to string) error // what is at from is called to from now on, if from is there and to is not
}

// Options are what an agent is made of.
type Options struct {
	Mirror  string // the principal that signs reports
	Signer  ssh.Signer
	Gate    Gate
	State   string // folder of the inbox
	Modules []Module

	LookEvery time.Duration // without news for so long the upstream's head is looked at; 10 min if zero
	LookLeast time.Duration // after news that a look has found the next one comes so soon; 1 min if zero
	HaveEvery time.Duration // how often every module's "have" is said, 5 min if zero
	Skew      time.Duration // difference of clocks to forgive where freshness is judged, 5 min if zero
	Patience  time.Duration // how long a new module waits for an upstream whose head names no manifest, before it fetches everything; 0: not at all
	Spread    time.Duration // after a connect the head is looked at within this time, at random; 0 means at once

	// Schema and Enqueue are the outbox's, in the inbox's database. Reported is called after a commit that enqueued something.
	Schema   []sqlite.Component
	Enqueue  func(context.Context, *sql.Tx, transports.Message) error
	Reported func()

	// Publish sends a "have" on the named transport. nil: none are sent.
	Publish func(ctx context.Context, via string, m transports.Message) error

	Log *slog.Logger
	Now func() time.Time // time.Now if nil
}

// A Module is one mirrored module and the parts that work for it.
type Module struct {
	Name    event.Module
	Dir     string   // root of the mirrored tree; it must exist
	Links   []string // symbolic links in it that stand for directories of the module
	Rules   *filter.Rules
	Last    []string // patterns of what names other files and is brought after them
	KeepSID bool     // keep set-user-id and set-group-id bits, which are dropped otherwise
	Runner  Runner
	CatchUp CatchUp

	MaxDelete      int     // a batch that deletes more names is held for confirmation; 0 means 10,000
	MaxDeleteRatio float64 // likewise, of the module's names; 0 means 0.2
	NoExport       bool    // do not carry .mirrorbus/ on
	Pushed         bool    // who may push need not say what has changed: an upstream that exports nothing is fetched whole

	// SyncEvery is how often an upstream that exports nothing is looked through as a whole by itself. 0: not at all, or if Pushed as often as its budget allows.
	SyncEvery time.Duration

	Trace    string // name of a trace file that tells when the tree was brought up to date, "" for none; Rules must leave it alone
	Upstream string // for the trace file

	Pre, Post   []string // hooks, see hooks.go
	HookTimeout time.Duration

	Budgets map[string]pace.Budget // pace.DefaultBudgets if nil
}

// mask are the permission bits that this mirror drops.
func (m Module) mask() uint32 {
	if m.KeepSID {
		return 0
	}
	return 0o6000
}

// An Agent is a mirror's agent. Its methods may be called from several goroutines.
type Agent struct {
	o       Options
	inbox   *inbox.Inbox
	workers map[event.Module]*worker
	names   []event.Module
	refused *refusals
	haves   chan string // transports that have just connected
}

// Open opens the state folder and makes an agent. Nothing runs yet.
func Open(ctx context.Context, o Options) (*Agent, error) {
	o = o.withDefaults()
	a := &Agent{o: o, workers: map[event.Module]*worker{}, refused: newRefusals(o.Log, o.Now), haves: make(chan string, 64)}
	for _, m := range o.Modules {
		if _, twice := a.workers[m.Name]; twice {
			return nil, fmt.Errorf("module %s stands twice", m.Name)
		}
		a.workers[m.Name] = newWorker(a, m)
		a.names = append(a.names, m.Name)
	}
	slices.Sort(a.names)
	box, err := inbox.Open(ctx, o.State, inbox.Options{Schema: o.Schema, LockWait: 10 * time.Second, Seal: a.seal, Enqueue: o.Enqueue})
	if err != nil {
		return nil, err
	}
	a.inbox = box
	if err := errors.Join(sweepPaths(o.State), box.Ensure(ctx, o.Now(), a.names...)); err != nil {
		return nil, errors.Join(err, box.Close())
	}
	return a, nil
}

func (o Options) withDefaults() Options {
	orElse(&o.LookEvery, 10*time.Minute)
	orElse(&o.LookLeast, time.Minute)
	orElse(&o.HaveEvery, 5*time.Minute)
	orElse(&o.Skew, 5*time.Minute)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Reported == nil {
		o.Reported = func() {}
	}
	o.Modules = slices.Clone(o.Modules)
	for i := range o.Modules {
		m := &o.Modules[i]
		orElse(&m.MaxDelete, 10_000)
		orElse(&m.MaxDeleteRatio, 0.2)
		orElse(&m.HookTimeout, 5*time.Minute)
		if m.Budgets == nil {
			m.Budgets = pace.DefaultBudgets()
		}
	}
	return o
}

func orElse[T comparable](v *T, to T) {
	var zero T
	if *v == zero {
		*v = to
	}
}

// DB is the inbox's database, for the outbox's relays.
func (a *Agent) DB() *sql.DB { return a.inbox.DB() }

// Close closes the state folder. No method may run any more.
func (a *Agent) Close() error { return a.inbox.Close() }

// Run works until ctx is done and returns its cause. It receives nothing by itself: see Receiver.
func (a *Agent) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, w := range a.workers {
		g.Go(func() error { return loop(ctx, w.wake, w.batches, a.o.Now) })
		g.Go(func() error { return loop(ctx, w.wakeFlips, w.flips, a.o.Now) })
	}
	g.Go(func() error { return a.sayHaves(ctx) })
	return g.Wait()
}

// loop calls pass, which returns when it wants to be called again (zero: only when woken), whenever it is woken or that time has come.
func loop(ctx context.Context, wake <-chan struct{}, pass func(context.Context) time.Time, now func() time.Time) error {
	for {
		at := pass(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		timer := time.NewTimer(pace.Until(at, now()))
		select {
		case <-wake:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// A worker is a module at work.
type worker struct {
	a    *Agent
	m    Module
	pace pace.Tuning
	log  *slog.Logger

	wake, wakeFlips chan struct{} // hold one token each

	working  sync.Mutex   // one pass at a time
	shunned  event.Digest // likewise: of a manifest that could not be read, where there was another way
	aside    aside        // likewise
	upstream *inbox.Head  // likewise: what the upstream said last, nil if it has not been asked
	careful  event.Serial // likewise: the batch that begins with this serial had to grow because an index changed while content came

	flipping sync.Mutex // one at a time, too
	busy     bool       // belongs to the flipping: other work is done beside it
	redo     bool       // likewise: flips may be undone, or stay

	exporting sync.Mutex  // one writer of the export folder at a time
	headDue   atomic.Bool // the head in the export folder may not be the newest

	mu         sync.Mutex
	look       time.Time // when the upstream's head is to be looked at; zero: no need
	looked     time.Time
	lookIn     time.Duration // how long after that it is to be looked at again, 0 for as long as is usual
	running    running
	lost       string        // why the tree is to be compared with the manifest, "" if it need not be
	chosen     bool          // the journal would do as well, but costs more
	how        string        // by which way it caught up last, or is about to; "" if it never was far behind
	answer     Answer        // of the last look, "" before the first
	answerText string        // what is wrong with it
	broken     error         // why the stored state could not be read or written, nil if it could
	news       chan struct{} // closed when something has changed that pushes wait for; nil if none waits
}

func newWorker(a *Agent, m Module) *worker {
	w := &worker{a: a, m: m, log: a.o.Log.With("module", m.Name), wake: make(chan struct{}, 1), wakeFlips: make(chan struct{}, 1)}
	w.headDue.Store(true)
	w.redo = true // by whatever an agent before this one was killed in
	w.pace = pace.Tuning{LookEvery: a.o.LookEvery, SyncEvery: m.SyncEvery, Skew: a.o.Skew, Budgets: m.Budgets}
	return w
}

// poke wakes both of the worker's loops.
func (w *worker) poke() {
	token(w.wake)
	token(w.wakeFlips)
}

func token(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// wantLook asks for a look at the upstream's head at that time, unless one is due before.
func (w *worker) wantLook(at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.look.IsZero() || at.Before(w.look) {
		w.look = at
	}
}

func (a *Agent) worker(name event.Module) (*worker, error) {
	if w := a.workers[name]; w != nil {
		return w, nil
	}
	known := make([]string, len(a.names))
	for i, n := range a.names {
		known[i] = string(n)
	}
	return nil, fault.With(fmt.Errorf("module %s: %w", name, inbox.ErrUnknownModule), fault.Usage, "its modules are "+strings.Join(known, ", "))
}
