package sim

import (
	"time"

	"github.com/mirrorbus/mirrorbus/listener/inbox"
	"github.com/mirrorbus/mirrorbus/listener/pace"
)

// A daemon is the upstream's rsync daemon, with `max connections`.
type daemon struct {
	w      *World
	most   int
	active int
	peak   int
	ill    pace.Cause // why every run fails at the moment, "" if none does
}

// connect takes a place for as long as a run holds it. begun is called when it has one, and done at the end, with why it failed or nil.
func (d *daemon) connect(a *agent, hold time.Duration, begun func(), done func(*pace.Failure)) {
	w, life := d.w, a.life
	alive := func(do func()) func() {
		return func() {
			if a.life == life {
				do()
			}
		}
	}
	failed := func(c pace.Cause) func() {
		return alive(func() { done(&pace.Failure{Cause: c, Error: "rsync: " + string(c)}) })
	}
	w.note("connect", a.id, 0)
	switch {
	case a.deaf:
		w.after(10*time.Second, failed(pace.Other))
		return
	case d.ill != pace.Other:
		w.after(2*a.delay, failed(d.ill))
		return
	case d.active >= d.most:
		w.note("refused connect", a.id, 0)
		w.after(2*a.delay, failed(pace.Crowded))
		return
	}
	d.active++
	d.peak = max(d.peak, d.active)
	alive(begun)()
	breaks := w.chance(w.rates.breaks)
	w.after(hold, func() {
		d.active--
		switch {
		case breaks:
			failed(pace.Passing)()
		case a.full:
			failed(pace.DiskFull)()
		default:
			alive(func() { done(nil) })()
		}
	})
}

// An outcome is how a piece of work ended. Its zero value is well.
type outcome struct {
	again  bool // what is known has changed: decide anew
	failed *pace.Failure
}

// ask reads the upstream's head, as the agent's upstreamHead does.
func (a *agent) ask(then func(*inbox.Head, outcome)) {
	a.look, a.looked = time.Time{}, a.now()
	a.w.daemon.connect(a, 8*a.delay, func() {}, func(f *pace.Failure) {
		if f != nil {
			then(nil, outcome{failed: f})
			return
		}
		h := *a.w.master.exported
		if old := a.w.master.before; old != nil && a.w.chance(a.w.rates.rollback) {
			h = *old
		}
		h.At, h.Via = a.now(), inbox.ViaUpstream
		switch a.box.putHead(h) {
		case inbox.Equivocation:
			a.report(standingBlocked(a))
			then(nil, outcome{again: true})
			return
		case inbox.Frozen:
			then(nil, outcome{failed: &pace.Failure{Cause: pace.Outdated, Error: "the upstream's head has expired long ago"}})
			return
		case inbox.Old:
			if h.Epoch != a.box.m.Epoch && h.Epoch != a.box.head.Epoch {
				then(nil, outcome{failed: &pace.Failure{Cause: pace.Outdated, Error: "the upstream's head is of an epoch that was replaced"}})
				return
			}
		}
		then(&h, outcome{})
	})
}

// takeIn reads entries of the upstream's journal, as far as it is exported and not trimmed, and tells how many were news.
func (a *agent) takeIn(h *inbox.Head, from int) (news int, equivocation bool) {
	e := a.w.master.eraOf(h.Epoch)
	if from < int(e.kept) {
		return 0, false
	}
	for n := from; n <= min(int(h.Serial), len(e.log)); n++ {
		x := e.log[n-1]
		x.At, x.Via = a.now(), "journal"
		switch a.box.put(x) {
		case inbox.Equivocation:
			a.report(standingBlocked(a))
			return news, true
		case inbox.Stored, inbox.Repeated:
			news++
		}
	}
	return news, false
}
