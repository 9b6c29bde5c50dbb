package sim

import (
	"fmt"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/listener/inbox"
	"github.com/mirrorbus/mirrorbus/listener/pace"
	"github.com/mirrorbus/mirrorbus/transports"
)

// An agent is a mirror.
type agent struct {
	w     *World
	id    int
	name  string
	delay time.Duration // to the hub, one way

	// What is on disk.
	box    *box
	disk   disk
	outbox []event.Report
	acked  []acked // what a durable queue has forgotten

	// What a process knows.
	up      bool
	life    int
	look    time.Time
	looked  time.Time
	lost    string
	working int // passes under way; more than one is a fault
	wakes   uint64
	link    *link
	sending *link
	commits time.Duration // when the last commit of the inbox is done
	pause   transports.Pause

	// What its host does to it.
	offset time.Duration // of its clock
	drift  float64
	jumped []time.Duration
	deaf   bool // no network
	full   bool // its disk
	spent  map[string][]time.Duration
	said   map[event.Epoch]event.Serial // the highest serial reported as applied
}

func newAgent(w *World, id int) *agent {
	a := &agent{w: w, id: id, name: fmt.Sprintf("mirror%d", id), delay: 5*time.Millisecond + w.upTo(100*time.Millisecond),
		spent: map[string][]time.Duration{}, said: map[event.Epoch]event.Serial{}}
	if w.rand.Float64() < w.rates.skewed {
		a.offset = w.upTo(4*time.Hour) - 2*time.Hour
	}
	if w.rand.Float64() < w.rates.drifts {
		a.drift = (w.rand.Float64() - 0.5) * 2e-4 // up to 0.36 s an hour
	}
	a.box = newBox(a.now())
	return a
}

// now is the time by the agent's clock.
func (a *agent) now() time.Time {
	return base.Add(a.w.now + a.offset + time.Duration(float64(a.w.now)*a.drift))
}

// wrong is how far the clock is off.
func (a *agent) wrong() time.Duration { return a.now().Sub(base.Add(a.w.now)) }

func (a *agent) tuning() pace.Tuning {
	t := pace.Tuning{LookEvery: 10 * time.Minute, Skew: 5 * time.Minute, Budgets: pace.DefaultBudgets()}
	switch a.w.o.Bug {
	case NoResume:
		t.LookEvery = 24 * time.Hour
	case NoBudgets:
		t.Budgets = nil
	}
	return t
}

func (a *agent) start() {
	a.up = true
	a.life++
	a.look, a.looked, a.lost, a.working, a.link, a.sending = time.Time{}, time.Time{}, "", 0, nil, nil
	a.pause = transports.Pause{Min: keepMin, Max: keepMax}
	a.w.note("start", a.id, uint64(a.box.m.Applied))
	a.checkAcked()
	a.checkApplied("after a start")
	a.dial(a.life)
	a.step()
}

// crash ends the process, with power its host too.
func (a *agent) crash(power bool) {
	a.up = false
	a.life++
	if a.link != nil {
		a.link.cut()
	}
	if power {
		a.disk.lose(a.w)
	}
	a.w.note("crash", a.id, 0)
}

func (a *agent) wantLook(at time.Time) {
	if a.look.IsZero() || at.Before(a.look) {
		a.look = at
	}
}

func (a *agent) view() pace.View {
	v := pace.View{Snapshot: a.box.look(), Now: a.now(), Look: a.look, Looked: a.looked, Lost: a.lost}
	if a.w.o.Bug == HoldIgnored && v.Head != nil {
		h := *v.Head
		h.Hold = 0
		v.Head = &h
	}
	return v
}

// state is the word in the agent's own status.
func (a *agent) state() pace.State {
	var running time.Time
	if a.working > 0 {
		running = a.now()
	}
	now := a.now()
	if a.w.o.Bug == DeafIsCurrent && a.box.head != nil {
		now = a.box.head.At
	}
	s, _ := pace.StateOf(a.box.look(), running, now, 5*time.Minute)
	return s
}

// epoch is what a report names.
func (a *agent) epoch() event.Epoch {
	if a.box.m.Epoch == "" {
		return inbox.NoEpoch
	}
	return a.box.m.Epoch
}

// report puts a report into the outbox, within the transaction that it belongs to.
func (a *agent) report(r event.Report) {
	a.outbox = append(a.outbox, a.seal(r))
	a.send()
}

func (a *agent) seal(r event.Report) event.Report {
	a.box.run++
	r.Mirror, r.Module, r.Run, r.Applied, r.Head = a.name, module, a.box.run, a.box.m.Applied, a.box.m.Digest
	if e := a.box.m.Epoch; e != "" {
		if r.Applied < a.said[e] {
			a.w.broken("I5", "%s reports serial %d after %d", a.name, r.Applied, a.said[e])
		}
		a.said[e] = max(a.said[e], r.Applied)
	}
	a.checkApplied("in a report")
	return r
}

// standing is the agent's "have", or what is wrong.
func (a *agent) standing() event.Report {
	r := event.Report{Outcome: event.Have, Epoch: a.epoch(), Serial: a.box.m.Applied}
	switch t := a.box.m.Trouble; {
	case a.box.m.Quarantine != "":
		r.Outcome, r.Serial, r.Error = event.Blocked, r.Serial+1, a.box.m.Quarantine
	case t.Kind != "" && pace.State(t.Kind) != pace.Waiting:
		r.Outcome, r.Serial, r.Error = pace.State(t.Kind).Outcome(), r.Serial+1, t.Error
	}
	return a.seal(r)
}

// step is what both of the agent's loops do when they are woken: decide from what is stored, act or sleep.
func (a *agent) step() {
	if !a.up {
		return
	}
	var at time.Time
	if a.box.m.Quarantine == "" { // else nothing is done, and there is ever more to look at
		at = a.flips()
	}
	if a.box.m.Quarantine == "" && (a.working == 0 || a.w.o.Bug == TwoAtOnce && a.working < 3 && len(a.box.above()) > 0) {
		at = sooner(at, a.work())
	}
	a.checkDeaf()
	a.wakes++
	wake := a.wakes
	a.w.after(pace.Until(at, a.now()), func() {
		if a.wakes == wake {
			a.step()
		}
	})
}

func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// flips does the flips that are due, and tells when the next one is.
func (a *agent) flips() (next time.Time) {
	s := a.box.look()
	if s.Quarantine != "" || s.Epoch == "" {
		return next
	}
	for _, f := range s.Flips {
		what, at := pace.JudgeFlip(f.Announcement, a.now(), pace.ClockSkew(s.Head, 5*time.Minute) != 0)
		if a.w.o.Bug == FlipAtOnce {
			what = pace.FlipNow
		}
		switch {
		case what == pace.FlipExpired:
			a.flipped(f, event.Skipped)
		case f.Set == nil || s.Through < f.Serial || a.touched(f):
		case what == pace.FlipWaits:
			next = sooner(next, at)
		default:
			a.flip(f.Announcement, decode(f.Set))
			a.disk.sync()
			a.flipped(f, event.Applied)
		}
	}
	return next
}

func (a *agent) flipped(f inbox.Heard, o event.Outcome) {
	if a.box.flip(f.Epoch, f.Serial, o == event.Skipped, a.now()) {
		a.report(event.Report{Outcome: o, Epoch: f.Epoch, Serial: f.Serial})
		a.w.note("flip", a.id, uint64(f.Serial))
	}
}

// flip shows what was there.
func (a *agent) flip(f event.Announcement, set []change) {
	a.checkFlip(f)
	for _, c := range set {
		a.disk.seen.flipped[c.path] = max(a.disk.seen.flipped[c.path], f.Serial)
	}
}

// touched tells whether an announcement before a flip that is not done speaks of what it flips.
func (a *agent) touched(f inbox.Heard) bool {
	for _, r := range a.box.above() {
		if r.Serial >= f.Serial {
			return false
		}
		if r.Done || r.Kind == event.Flip {
			continue
		}
		if r.Set == nil || overlap(decode(r.Set), decode(f.Set)) {
			return true
		}
	}
	return false
}

func overlap(a, b []change) bool {
	for _, x := range a {
		for _, y := range b {
			if x.path == y.path {
				return true
			}
		}
	}
	return false
}
