package sim

import (
	"slices"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/listener/inbox"
	"github.com/mirrorbus/mirrorbus/listener/pace"
)

// longestCompose bounds the limit of a compose.
const longestCompose = 40 * time.Minute

// A composing is the compose of the master: durable, as package journal keeps it.
type composing struct {
	under    bool
	began    time.Duration
	until    time.Duration
	gathered []change
	changed  time.Duration // no head is signed for an earlier time
	n        int           // counts composes
}

// composes plans composes, as often as the options say.
func (w *World) composes() {
	w.recur(w.o.Compose, w.master.begin)
}

// begin begins a compose: the tree is changed bit by bit, and part of that is told. Somebody ends it, or nobody does.
func (m *master) begin() {
	w, c := m.w, &m.composing
	if !m.up || c.under {
		return
	}
	c.n++
	c.under, c.began, c.until, c.gathered = true, w.now, w.now+time.Minute+w.upTo(longestCompose), nil
	m.recomposed("compose begun")
	this := c.n
	for range w.rand.IntN(6) {
		w.after(w.upTo(c.until-w.now), func() {
			if p := w.rand.IntN(paths); c.under && c.n == this {
				m.versions++
				m.live[p] = m.versions
				c.gathered = append(c.gathered, change{p, m.versions})
			}
		})
	}
	if w.rand.IntN(3) > 0 {
		w.after(w.upTo(c.until-w.now), func() { m.endWhenUp(this) })
	}
	w.at(c.until, func() { m.endWhenUp(this) })
}

// recomposed says anew what the head says.
func (m *master) recomposed(what string) {
	m.composing.changed = max(m.composing.changed, m.w.now.Truncate(time.Second)) + time.Second
	m.w.note(what, 0, uint64(m.composing.n))
	m.export()
	m.broadcast(message{by: "master", head: m.head()})
}

// endWhenUp ends a compose: now, or when the hub is there again.
func (m *master) endWhenUp(n int) {
	c := &m.composing
	if !c.under || c.n != n {
		return
	}
	if !m.up {
		m.w.after(10*time.Second, func() { m.endWhenUp(n) })
		return
	}
	set := map[int]change{}
	for _, x := range c.gathered {
		set[x.path] = change{x.path, m.live[x.path]}
	}
	c.under = false
	if len(set) > 0 {
		var all []change
		for p := range paths {
			if x, ok := set[p]; ok {
				all = append(all, x)
			}
		}
		m.commit(event.Announcement{Kind: event.Change, Module: module, Count: len(all)}, all)
	}
	m.recomposed("compose ended")
}

// gather keeps a change for the end of the compose under way.
func (m *master) gather(a event.Announcement, set []change) bool {
	if !m.composing.under || a.Kind == event.Flip {
		return false
	}
	m.composing.gathered = append(m.composing.gathered, set...)
	m.w.note("gathered", 0, uint64(len(set)))
	return true
}

// hold adds to a head what it says of a compose.
func (m *master) hold(h *event.Head) {
	c := m.composing
	if h.At.Before(base.Add(c.changed)) {
		h.At = base.Add(c.changed)
	}
	if c.under {
		h.Hold = max(base.Add(c.until).Sub(h.At).Truncate(time.Second), 0)
	}
}

// checkHold: a mirror that has a head of the compose under way, by a clock that it can trust, begins nothing that would bring what is half made.
func (a *agent) checkHold(v pace.View, act pace.Action) {
	c, h := a.w.master.composing, a.box.head
	if !c.under || h == nil || h.Hold == 0 || h.Head.At.Before(base.Add(c.began)) || c.until-a.w.now < time.Minute || a.wrong().Abs() > 4*time.Minute ||
		len(a.jumped) > 0 && h.At.Before(a.now().Add(a.jumped[len(a.jumped)-1]-a.w.now)) {
		return
	}
	bulk := act.Do == pace.Compare || act.Do == pace.Batch && slices.ContainsFunc(v.Todo, func(i inbox.Item) bool { return i.Serial <= act.Through && i.Kind == event.Change })
	if bulk {
		a.w.broken("Hold", "%s does a %s up to %d in a compose: %s", a.name, act.Do, act.Through, act.Why)
	}
}

// held tells whether the newest head that the agent has holds such work back.
func (a *agent) held() bool {
	return !pace.HeldUntil(a.view().Snapshot, a.now(), 5*time.Minute).IsZero()
}
