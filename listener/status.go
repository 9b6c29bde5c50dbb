package listener

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/listener/inbox"
	"github.com/mirrorbus/mirrorbus/listener/pace"
	"github.com/mirrorbus/mirrorbus/listener/rsync"
)

// A Status is where a mirror stands.
type Status struct {
	Mirror  string            `json:"mirror"`
	At      time.Time         `json:"at"`
	Modules []ModuleStatus    `json:"modules"`
	Refused map[string]uint64 `json:"refused"` // messages refused since the agent started, by reason
}

// A ModuleStatus is where a module stands.
type ModuleStatus struct {
	Module    event.Module `json:"module"`
	State     State        `json:"state"`
	Since     time.Time    `json:"since,omitzero"`
	Epoch     event.Epoch  `json:"epoch,omitempty"`
	Applied   event.Serial `json:"applied"`
	AppliedAt time.Time    `json:"applied_at,omitzero"`
	Heard     event.Serial `json:"heard"`               // the highest serial heard of
	Head      event.Serial `json:"head"`                // of the newest head
	HeadAt    time.Time    `json:"head_at,omitzero"`    // when that was signed
	Via       string       `json:"via,omitempty"`       // how the newest head came
	HeardVia  string       `json:"heard_via,omitempty"` // the transport by which the newest announcement came first, or "journal"
	Lag       float64      `json:"lag_seconds"`         // age of the oldest announcement that is not applied
	Skew      float64      `json:"clock_skew_seconds,omitempty"`
	FlipsWait int          `json:"flips_waiting,omitempty"`
	Held      time.Time    `json:"held_until,omitzero"` // the master is in the middle of a compose; by this time at the latest it no longer keeps work from being done

	LookedAt time.Time `json:"looked_at,omitzero"`  // when the upstream's head was last looked at
	Look     Answer    `json:"look,omitempty"`      // what that said: news, no news, out of date, cannot tell
	LookText string    `json:"look_text,omitempty"` // what is wrong with it
	NextLook time.Time `json:"next_look,omitzero"`  // when it is looked at again if nothing is heard until then
	CatchUp  string    `json:"catch_up,omitempty"`  // by which way this mirror caught up last when it was far behind, and why

	Pushes     uint64 `json:"pushes,omitempty"`      // how often somebody has said that something has changed, and not what
	PushesDone uint64 `json:"pushes_done,omitempty"` // the newest of these for which everything was brought
	PushFrom   string `json:"push_from,omitempty"`   // whence the newest came

	Error    string    `json:"error,omitempty"`
	Path     string    `json:"path,omitempty"` // that the error is about; invalid UTF-8 is replaced
	Attempts int       `json:"attempts,omitempty"`
	Next     time.Time `json:"next_try,omitzero"`

	Running *Running `json:"running,omitempty"`
}

// A Running is what is done for a module at the moment.
type Running struct {
	Stage   string       `json:"stage"`
	Through event.Serial `json:"through"` // the batch's last serial
	Since   time.Time    `json:"since"`
	Items   int64        `json:"items"`            // changes so far
	Expect  int64        `json:"expect,omitempty"` // names that the batch is about: what items may come to
	Bytes   int64        `json:"bytes"`            // of the content of runs that have ended
	Read    int64        `json:"read"`             // bytes that the run under way has read, from the network and from disk
}

// running is Running with what is needed to sum up several runs.
type running struct {
	Running
	depth        int   // begin was called so often
	items, bytes int64 // of runs that have ended
}

func (w *worker) begin(through event.Serial, at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.running.depth++; w.running.depth == 1 {
		w.running.Running = Running{Stage: "plan", Since: at}
		w.running.items, w.running.bytes = 0, 0
	}
	w.running.Through = through
}

func (w *worker) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.running.depth--
}

// expect says how many names the work is about.
func (w *worker) expect(names int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.running.Expect = int64(names)
}

func (w *worker) stage(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.running.Stage = name
}

// progress is called while a run is under way.
func (w *worker) progress(p rsync.Progress) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.running.Items, w.running.Bytes = w.running.items+p.Items, w.running.bytes+p.Bytes
	w.running.Read = max(w.running.Read, p.Read)
}

// add counts a run that has ended.
func (w *worker) add(r rsync.Result) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.running.items, w.running.bytes = w.running.items+r.Changes, w.running.bytes+r.Bytes
	w.running.Items, w.running.Bytes, w.running.Read = w.running.items, w.running.bytes, 0
}

func (w *worker) setLost(why string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lost, w.chosen = why, false
}

// Status tells where every module stands.
func (a *Agent) Status(ctx context.Context) (Status, error) {
	st := Status{Mirror: a.o.Mirror, At: a.o.Now(), Refused: a.refused.snapshot()}
	for _, name := range a.names {
		s, err := a.workers[name].status(ctx, st.At)
		if err != nil {
			return st, err
		}
		st.Modules = append(st.Modules, s)
	}
	return st, nil
}

func (w *worker) status(ctx context.Context, now time.Time) (ModuleStatus, error) {
	s, err := w.a.inbox.Look(ctx, w.m.Name)
	if err != nil {
		return ModuleStatus{}, err
	}
	v := pace.View{Snapshot: s, Now: now}
	w.mu.Lock()
	run, broken := w.running, w.broken
	v.Look, v.Looked, v.LookIn, v.Lost = w.look, w.looked, w.lookIn, w.lost
	look, text, how := w.answer, w.answerText, w.how
	w.mu.Unlock()
	var began time.Time
	if run.depth > 0 {
		began = run.Since
	}
	m := ModuleStatus{
		Module: s.Name, Epoch: s.Epoch, Applied: s.Applied, AppliedAt: s.AppliedAt, Heard: s.Top, FlipsWait: len(s.Flips),
		Error: s.Trouble.Error, Path: strings.ToValidUTF8(s.Trouble.Path, "\uFFFD"), Attempts: s.Trouble.Attempts, Next: s.Trouble.Next,
	}
	m.LookedAt, m.Look, m.LookText, m.CatchUp = v.Looked, look, text, how
	if act := w.pace.Decide(v); act.Do == pace.Wait && s.Trouble.Kind == "" {
		m.NextLook = act.At
	}
	m.Pushes, m.PushesDone, m.PushFrom = s.Push.Asked, s.Push.WholeDone, s.Push.From
	if m.HeardVia, err = w.a.inbox.CameBy(ctx, w.m.Name); err != nil {
		return ModuleStatus{}, err
	}
	m.State, m.Since = pace.StateOf(s, began, now, w.pace.Skew)
	m.Held = pace.HeldUntil(s, now, w.pace.Skew)
	if run.depth > 0 {
		m.Running = &run.Running
	}
	if s.Quarantine != "" {
		m.Error = s.Quarantine
	}
	if broken != nil {
		m.Error = broken.Error()
	}
	m.head(s, now, w.pace.Skew)
	return m, nil
}

// head adds what the newest head tells.
func (m *ModuleStatus) head(s inbox.Snapshot, now time.Time, forgiven time.Duration) {
	if !s.Oldest.IsZero() && s.Top > s.Applied {
		m.Lag = max(now.Sub(s.Oldest).Seconds(), 0)
	}
	if s.Head == nil {
		return
	}
	m.Head, m.HeadAt, m.Via = s.Head.Serial, s.Head.Head.At, s.Head.Via
	if m.State == Stale && m.Error == "" {
		m.Error = fmt.Sprintf("the upstream is out of date: its head, serial %d signed at %s, has expired; it is frozen, the master's hub does not run, or this host's clock is wrong",
			s.Head.Serial, s.Head.Head.At.Format(time.RFC3339))
	}
	off := pace.ClockSkew(s.Head, forgiven)
	m.Skew = off.Seconds()
	if off != 0 && m.Error == "" {
		m.Error = fmt.Sprintf("the newest head was %v old when it arrived: this host's clock may be wrong", off.Round(time.Second))
	}
}
