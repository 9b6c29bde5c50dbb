package sim

import (
	"math"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/listener/pace"
	"github.com/mirrorbus/mirrorbus/trigger/collector"
)

// checkAccepted is I4 on the master: what publish has returned for is in the journal after a crash, as it was.
func (m *master) checkAccepted() {
	e := m.era()
	for i, d := range m.accepted {
		if i >= len(e.log) || e.log[i].Digest != d {
			m.w.broken("I4", "serial %d was accepted, and is not in the journal", i+1)
			m.accepted = m.accepted[:0]
			return
		}
	}
}

// checkAcked is I4 on a mirror: what a durable queue has forgotten is here after a crash. What contradicts what is here already was never taken.
func (a *agent) checkAcked() {
	if a.box.m.Quarantine != "" {
		return
	}
	var above []acked
	for _, k := range a.acked {
		if k.epoch != a.box.m.Epoch || k.serial <= a.box.m.Applied {
			continue
		}
		above = append(above, k)
		if a.box.find(k.epoch, k.serial) == nil {
			a.w.broken("I4", "%s has acknowledged serial %d and lost it", a.name, k.serial)
		}
	}
	a.acked = above
}

// checkApplied is I5: what a mirror says is applied would be there after a power failure.
func (a *agent) checkApplied(when string) {
	e := a.w.master.eraOf(a.box.m.Epoch)
	if e == nil {
		return
	}
	if int(a.box.m.Applied) > len(e.log) {
		a.w.broken("I5", "%s is at serial %d of %d %s", a.name, a.box.m.Applied, len(e.log), when)
		return
	}
	for p := range paths {
		if have, need := a.disk.synced.content[p], e.version(p, a.box.m.Applied); have < need {
			a.w.broken("I5", "%s says serial %d %s, and path %d is at %d, not %d", a.name, a.box.m.Applied, when, p, have, need)
			return
		}
	}
}

// checkFlip: a flip is not shown before its time. A clock that is fast by less than a head may be old is not known to be, nor is one that was set since
// the newest head came.
func (a *agent) checkFlip(f event.Announcement) {
	early := f.At.Add(f.NotBefore).Sub(base.Add(a.w.now))
	if f.NotBefore == 0 || early < headTTL+5*time.Minute+time.Second {
		return
	}
	if h := a.box.head; h == nil || len(a.jumped) > 0 && h.At.Before(a.now().Add(a.jumped[len(a.jumped)-1]-a.w.now)) {
		return
	}
	a.w.broken("Flip", "%s shows %d %v early", a.name, f.Serial, early)
}

// checkRate is I6: no mirror asks its upstream for more than its budgets allow. A clock that is set forward fills them once.
func (a *agent) checkRate(kind string, g pace.Budget) {
	window := 10 * g.Every
	recent := append(a.spent[kind], a.w.now)
	for recent[0] < a.w.now-window {
		recent = recent[1:]
	}
	a.spent[kind] = recent
	jumps := 1
	for _, at := range a.jumped {
		if at >= a.w.now-window {
			jumps++
		}
	}
	if len(recent) > g.Burst*jumps+12 {
		a.w.broken("I6", "%s did %d times %s in %v", a.name, len(recent), kind, window)
		a.spent[kind] = nil
	}
}

// checkDeaf is I9: a mirror that knows of no fresh head does not say that it is current.
func (a *agent) checkDeaf() {
	h := a.box.head
	if h == nil || a.working > 0 {
		return
	}
	age := base.Add(a.w.now).Sub(h.Head.At)
	if n := len(a.jumped); n > 0 && a.jumped[n-1] > a.w.now-age {
		return // a clock that was set since may hide it for once more the time
	}
	// A head is good for headTTL and 5 minutes by a clock that may be slow by 5 more and the age that the head had when it came.
	if age > headTTL+16*time.Minute && age < 30*24*time.Hour && a.state() == pace.Current {
		a.w.broken("I9", "%s says current, and its newest head is %v old", a.name, age)
	}
	if r := a.w.master.records[a.name]; !r.Heard.IsZero() && base.Add(a.w.now).Sub(r.Heard) > awayAfter && a.w.master.state(a.name) == collector.Current {
		a.w.broken("I9", "the master takes %s for current, and has not heard of it since %v", a.name, r.Heard)
	}
}

// arrived notes a connection. After a restart they come spread out, which is I6 for the hub.
func (m *master) arrived() {
	m.arrivals = append(m.arrivals, m.w.now)
}

// checkReunion: some minutes after a restart of the hub all mirrors have what was announced meanwhile, before the next head tells them, and they did
// not come all at once.
func (w *World) checkReunion(started time.Duration) {
	m := w.master
	n := event.Serial(len(m.era().log))
	for _, a := range w.agents {
		if a.box.m.Applied < n && a.box.m.Quarantine == "" {
			w.broken("I1", "%s is at %d of %d (%s: %s, lost %q) %v after the hub has started", a.name, a.box.m.Applied, n, a.state(), a.box.m.Trouble.Error, a.lost, w.now-started)
		}
	}
	crowd := 0
	for i, first := 0, 0; i < len(m.arrivals); i++ {
		for m.arrivals[i]-m.arrivals[first] > 500*time.Millisecond {
			first++
		}
		crowd = max(crowd, i-first+1)
	}
	if n := float64(len(w.agents)); n >= 20 && float64(crowd) > n/2+2*math.Sqrt(n) { // half of them are expected, since the first wait is up to a second
		w.broken("I6", "%d of %d mirrors connected within half a second", crowd, len(w.agents))
	}
}

// atRest is I1: after the faults every mirror is where the master is, and the master knows it.
func (w *World) atRest() {
	m := w.master
	for _, a := range w.agents {
		if a.box.m.Applied != event.Serial(len(m.era().log)) || a.box.m.Epoch != m.era().epoch {
			w.broken("I1", "%s is at %s:%d, the master at %s:%d: %s %s (next try in %v)", a.name, a.box.m.Epoch, a.box.m.Applied, m.era().epoch, len(m.era().log),
				a.state(), a.box.m.Trouble.Error, a.box.m.Trouble.Next.Sub(a.now()))
		} else if s := a.state(); s != pace.Current {
			w.broken("I1", "%s has everything and says that it is %s", a.name, s)
		}
		if s := m.state(a.name); s != collector.Current {
			w.broken("I1", "the master takes %s for %s", a.name, s)
		}
	}
	m.checkAccepted()
}
