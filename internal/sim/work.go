package sim

import (
	"fmt"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/listener/inbox"
	"github.com/mirrorbus/mirrorbus/listener/pace"
)

// work decides what is next for the module and begins it, as the agent's batches does. It returns when it wants to be called again.
func (a *agent) work() time.Time {
	v := a.view()
	act := a.tuning().Decide(v)
	if act.Do == pace.Wait {
		return act.At
	}
	a.checkHold(v, act)
	if wait := a.pay(v, act.Costs()); wait > 0 {
		a.settle(v, act, outcome{failed: &pace.Failure{Cause: pace.Limited, Wait: wait, Error: "limited"}})
		return a.box.m.Trouble.Next
	}
	a.working++
	if a.working > 1 {
		a.w.broken("I6", "%s does %d things at once", a.name, a.working)
	}
	a.w.note(string(act.Do), a.id, uint64(act.Through))
	done := func(o outcome) {
		a.working--
		a.settle(v, act, o)
		a.step()
	}
	switch act.Do {
	case pace.Look:
		a.lookUp(v, done)
	case pace.Journal:
		a.journal(v, done)
	case pace.Compare:
		a.compare(v, done)
	default:
		a.batch(v, act.Through, done)
	}
	return time.Time{}
}

// pay takes from a budget, or tells how long to wait for it.
func (a *agent) pay(v pace.View, kind string) time.Duration {
	left, wait := a.tuning().Budgets[kind].Take(a.box.budgets[kind], v.Now)
	if wait == 0 {
		a.box.budgets[kind] = left
		a.checkRate(kind, pace.DefaultBudgets()[kind])
	}
	return wait
}

// settle notes how an action ended.
func (a *agent) settle(v pace.View, act pace.Action, o outcome) {
	if o.failed == nil {
		if act.Do == pace.Look && v.Trouble.Kind != "" {
			a.box.m.Trouble = inbox.Trouble{}
		}
		return
	}
	f := *o.failed
	if a.w.o.Bug == BusyIsFinal && f.Cause == pace.Crowded {
		f.Cause = pace.Unallowed
	}
	f.Through = max(act.Through, v.Top)
	t := pace.After(v.Trouble, f, a.now(), a.spread())
	a.box.m.Trouble = t
	a.w.note("trouble "+t.Kind, a.id, uint64(t.Attempts))
	if pace.WorthSaying(v.Trouble, t) {
		a.report(event.Report{Outcome: pace.State(t.Kind).Outcome(), Epoch: a.epoch(), Serial: max(f.Through, a.box.m.Applied+1), Error: t.Error})
	}
}

func standingBlocked(a *agent) event.Report {
	return event.Report{Outcome: event.Blocked, Epoch: a.epoch(), Serial: a.box.m.Applied + 1, Error: "quarantined"}
}

func behind(at, want event.Serial) outcome {
	return outcome{failed: &pace.Failure{Cause: pace.NotReady, Error: fmt.Sprintf("upstream is behind (at %d, announced is %d)", at, want)}}
}

// lookUp asks for the head and takes in a few announcements that follow.
func (a *agent) lookUp(v pace.View, done func(outcome)) {
	a.ask(func(h *inbox.Head, o outcome) {
		if h != nil && v.Epoch != "" && h.Epoch == v.Epoch && h.Serial > v.Through && !a.climb(v, h, v.Through+1) {
			_, o.again = a.takeIn(h, int(v.Through+1))
		}
		done(o)
	})
}

// journal fetches what is missing.
func (a *agent) journal(v pace.View, done func(outcome)) {
	from := a.tuning().Missing(v)
	a.ask(func(h *inbox.Head, o outcome) {
		switch {
		case h == nil:
			done(o)
		case h.Epoch != v.Epoch:
			done(outcome{again: true})
		case h.Serial < from:
			done(behind(h.Serial, v.Top))
		case a.climb(v, h, from):
			done(outcome{again: true})
		default:
			if news, again := a.takeIn(h, int(from)); news == 0 && !again {
				a.lost = fmt.Sprintf("the upstream's journal no longer has serial %d", from)
			}
			done(outcome{again: true})
		}
	})
}

// climb tells whether the manifest is the cheaper way to what is missing, and takes it. Its size is that of the paths there are.
func (a *agent) climb(v pace.View, h *inbox.Head, from event.Serial) bool {
	const sample = 256
	_, wait := a.tuning().Budgets[pace.WorkManifest].Take(a.box.budgets[pace.WorkManifest], v.Now)
	d := pace.Distance{Missed: h.Serial + 1 - from, Each: 400, Manifest: wait == 0, Fetch: 40 * paths, Names: paths, Near: true}
	if d.Missed <= sample {
		return false
	}
	rung, why := d.Cheapest()
	if rung == pace.ByManifest {
		a.lost = why
		a.w.note("by manifest", a.id, uint64(h.Serial))
	}
	return rung == pace.ByManifest
}

// compare brings the tree to the upstream's head whatever it is now.
func (a *agent) compare(v pace.View, done func(outcome)) {
	a.ask(func(h *inbox.Head, o outcome) {
		switch {
		case h == nil:
			done(o)
			return
		case h.Epoch == v.Epoch && h.Serial < v.Top:
			done(behind(h.Serial, v.Top))
			return
		case a.held():
			done(outcome{again: true})
			return
		}
		if wait := a.pay(v, pace.WorkManifest); wait > 0 {
			done(outcome{failed: &pace.Failure{Cause: pace.Limited, Wait: wait, Error: "limited"}})
			return
		}
		a.whole(h, 0, done)
	})
}

// whole applies everything up to a head.
func (a *agent) whole(h *inbox.Head, round int, done func(outcome)) {
	e := a.w.master.eraOf(h.Epoch)
	b := batch{a: a, epoch: h.Epoch, through: h.Serial, digest: h.Last, want: map[int]int{}, whole: true}
	for p := range paths {
		b.want[p] = e.version(p, h.Serial)
	}
	for _, x := range e.log[:h.Serial] {
		switch {
		case x.Kind == event.Flip:
			b.takeFlip(x)
		case len(b.except) > 0: // noted as done behind a flip that waits, so it must be here
			x.At, x.Via = a.now(), "journal"
			a.box.put(x)
		}
	}
	b.run(func(o outcome) {
		switch {
		case o.failed == nil:
			a.lost = ""
			done(o)
		case o.failed.Cause != pace.Other || round == 20:
			done(o)
		default:
			a.ask(func(next *inbox.Head, o outcome) {
				switch {
				case next == nil:
					done(o)
				case next.Epoch != h.Epoch || next.Serial < h.Serial || a.held():
					done(outcome{again: true})
				default:
					life := a.life
					a.w.after(pace.Brief, func() {
						if a.life == life {
							a.whole(next, round+1, done)
						}
					})
				}
			})
		}
	})
}

// takeFlip leaves out a flip that waits for its time.
func (b *batch) takeFlip(x inbox.Heard) {
	x.At, x.Via = b.a.now(), "journal"
	if what, _ := pace.JudgeFlip(x.Announcement, b.a.now(), b.a.skewed()); what == pace.FlipWaits && b.a.box.find(x.Epoch, x.Serial) == nil {
		b.a.box.put(x)
	}
	switch what, _ := pace.JudgeFlip(x.Announcement, b.a.now(), b.a.skewed()); what {
	case pace.FlipNow:
		b.flips = append(b.flips, x)
	case pace.FlipWaits:
		b.except = append(b.except, x.Serial)
	}
}

func (a *agent) skewed() bool { return pace.ClockSkew(a.box.head, 5*time.Minute) != 0 }

// batch applies announcements that are here.
func (a *agent) batch(v pace.View, through event.Serial, done func(outcome)) {
	b := batch{a: a, epoch: v.Epoch, want: map[int]int{}, v: v}
	for _, r := range a.box.above() {
		if r.Serial > through || r.Done {
			continue
		}
		if r.Kind == event.Flip {
			if a.tuning().Waits(v, r.Serial) {
				b.except = append(b.except, r.Serial)
				continue
			}
			b.flips = append(b.flips, r.Heard)
		} else {
			for _, c := range decode(r.Set) {
				b.want[c.path] = c.version
			}
		}
		b.through, b.digest = r.Serial, r.Digest
	}
	for len(b.except) > 0 && b.except[len(b.except)-1] > b.through {
		b.except = b.except[:len(b.except)-1]
	}
	if b.digest.IsZero() {
		done(outcome{again: true})
		return
	}
	b.run(done)
}

// A batch is one rsync and what comes after it.
type batch struct {
	a       *agent
	v       pace.View
	epoch   event.Epoch
	through event.Serial
	digest  event.Digest
	want    map[int]int // version by path
	flips   []inbox.Heard
	except  []event.Serial
	whole   bool
}

func (b *batch) run(done func(outcome)) {
	a, w := b.a, b.a.w
	life := a.life
	copyFrom := func(part int) {
		for p := part; p < paths; p += 2 {
			if _, ours := b.want[p]; ours {
				a.disk.seen.content[p] = w.master.live[p]
			}
		}
	}
	hold := 8*a.delay + time.Duration(len(b.want))*time.Millisecond + w.around(w.rates.transfer)
	w.daemon.connect(a, hold, func() { copyFrom(0) }, func(f *pace.Failure) {
		if f != nil {
			done(outcome{failed: f})
			return
		}
		copyFrom(1)
		missing, newer := b.check()
		switch {
		case w.o.Bug == NoCheck:
		case missing || newer && !b.whole && !b.excused():
			b.explain(done)
			return
		case newer && b.whole:
			done(outcome{failed: &pace.Failure{Cause: pace.Other, Error: "not as announced"}})
			return
		}
		for _, f := range b.flips {
			a.flip(f.Announcement, decode(f.Set))
		}
		if w.o.Bug == ReportBeforeSync {
			b.finish(done)
			w.after(5*time.Second, func() {
				if a.life == life {
					a.disk.sync()
				}
			})
			return
		}
		w.after(5*time.Millisecond+w.upTo(100*time.Millisecond), func() {
			if a.life != life {
				return
			}
			a.disk.sync()
			w.after(2*time.Millisecond, func() {
				if a.life == life {
					b.finish(done)
				}
			})
		})
	})
}

// check compares what is on disk with what was announced.
func (b *batch) check() (missing, newer bool) {
	for p := range paths {
		want, ours := b.want[p]
		have := b.a.disk.seen.content[p]
		missing = missing || ours && have < want
		newer = newer || ours && have > want
	}
	return missing, newer
}

// excused tells whether each path that is newer than announced is spoken of by an announcement that comes later and is here.
func (b *batch) excused() bool {
	later := map[int]bool{}
	for _, r := range b.a.box.above() {
		if r.Serial > b.through && r.Kind == event.Change && r.Set != nil {
			for _, c := range decode(r.Set) {
				later[c.path] = true
			}
		}
	}
	for p, want := range b.want {
		if b.a.disk.seen.content[p] > want && !later[p] {
			return false
		}
	}
	return true
}

// explain asks the upstream why the tree is not as announced.
func (b *batch) explain(done func(outcome)) {
	a := b.a
	a.ask(func(h *inbox.Head, o outcome) {
		switch {
		case h == nil:
			done(o)
		case h.Epoch != b.epoch:
			done(outcome{again: true})
		case h.Serial < b.through:
			done(behind(h.Serial, b.through))
		case (b.whole || len(b.want) > 0) && a.held():
			done(outcome{again: true})
		case !b.whole && h.Serial > b.v.Through:
			if news, again := a.takeIn(h, int(b.v.Through+1)); news > 0 || again {
				done(outcome{again: true})
				return
			}
			fallthrough
		default:
			done(outcome{failed: &pace.Failure{Cause: pace.Other, Error: "not as announced"}})
		}
	})
}

// finish is the transaction that says applied.
func (b *batch) finish(done func(outcome)) {
	a := b.a
	if b.epoch == a.box.m.Epoch && b.through < a.box.m.Applied {
		done(outcome{again: true})
		return
	}
	a.box.finish(inbox.Done{Module: module, Epoch: b.epoch, Through: b.through, Digest: b.digest, Except: b.except, At: a.now()})
	a.w.note("applied", a.id, uint64(a.box.m.Applied))
	a.report(event.Report{Outcome: event.Applied, Epoch: b.epoch, Serial: b.through})
	done(outcome{})
}
