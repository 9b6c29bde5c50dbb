package sim

import (
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/listener/inbox"
)

// Of transports.Keep and of the hub's configuration.
const (
	keepMin, keepMax, keepSteady = time.Second, time.Minute, time.Minute
	keepalive                    = 20 * time.Second
	lookSpread                   = 2 * time.Second
	haveEvery                    = 5 * time.Minute
)

// A link is a connection to the hub. What is on its way when it breaks is lost; until then everything arrives once and in order.
type link struct {
	a     *agent
	delay time.Duration
	since time.Duration
	gone  bool
}

// dial tries to connect to the hub, and does so again after the wait of transports.Keep.
func (a *agent) dial(life int) {
	if a.life != life || a.link != nil {
		return
	}
	w := a.w
	w.note("dial", a.id, 0)
	delay := a.delay
	w.after(4*delay, func() {
		switch {
		case a.life != life:
		case !w.master.up || a.deaf:
			a.redial(life, 0)
		default:
			a.connected(life, delay)
		}
	})
}

func (a *agent) redial(life int, lasted time.Duration) {
	a.w.after(a.pause.Lost(lasted, keepSteady, false, a.spread()), func() { a.dial(life) })
}

// spread is the random number of a wait.
func (a *agent) spread() float64 {
	if a.w.o.Bug == NoJitter {
		return 1
	}
	return a.w.rand.Float64()
}

func (a *agent) connected(life int, delay time.Duration) {
	w := a.w
	l := &link{a: a, delay: delay, since: w.now}
	a.link, w.master.links[a.id] = l, l
	w.master.arrived()
	if w.o.Bug != NoResume {
		l.replay()
		a.wantLook(a.now().Add(w.upTo(lookSpread)))
	}
	a.say(life, l)
	a.send()
	a.step()
}

// replay is the hub's backlog for a subscriber, as trigger.Hub has it.
func (l *link) replay() {
	m := l.a.w.master
	e, at := m.era(), l.a.box.m
	last := event.Serial(len(e.log))
	if m.composing.under {
		l.down(message{by: "master", head: m.head()})
	}
	if at.Epoch == e.epoch && at.Applied < last && last-at.Applied <= maxBacklog && at.Applied+1 >= e.kept {
		for n := at.Applied + 1; n <= last; n++ {
			l.down(message{by: "master", announcement: &e.log[n-1]})
		}
	}
	l.down(message{by: "master", head: m.head()})
}

// down brings a message to the agent.
func (l *link) down(msg message) {
	l.a.w.after(l.delay, func() {
		if !l.gone && !l.a.deaf {
			l.a.receive(msg, "hub", nil)
		}
	})
}

// cut breaks the connection, for both ends.
func (l *link) cut() {
	if l.gone {
		return
	}
	l.gone = true
	a := l.a
	a.w.master.links[a.id] = nil
	a.link = nil
	if a.up {
		a.redial(a.life, a.w.now-l.since)
	}
}

// say says where the module stands, now and then: a "have" is not kept if it does not arrive.
func (a *agent) say(life int, l *link) {
	if a.life != life || l.gone {
		return
	}
	r := a.standing()
	l.up(func() { a.w.master.collect(r) })
	a.w.after(haveEvery, func() { a.say(life, l) })
}

// up brings something to the hub, which is down for good if it crashes before it has it.
func (l *link) up(do func()) {
	life := l.a.w.master.life
	l.a.w.after(l.delay+2*time.Millisecond, func() {
		if !l.gone && !l.a.deaf && l.a.w.master.life == life {
			do()
		}
	})
}

// send sends what waits in the outbox, one at a time; it is forgotten when the hub has answered.
func (a *agent) send() {
	l := a.link
	if l == nil || a.sending == l || len(a.outbox) == 0 {
		return
	}
	a.sending = l
	r := a.outbox[0]
	if a.w.o.Bug == ForgetBeforeAnswer {
		a.outbox = a.outbox[1:]
	}
	l.up(func() {
		a.w.master.collect(r)
		a.w.after(l.delay, func() {
			if l.gone {
				return
			}
			if a.w.o.Bug != ForgetBeforeAnswer && len(a.outbox) > 0 && a.outbox[0].Run == r.Run {
				a.outbox = a.outbox[1:]
			}
			a.sending = nil
			a.send()
		})
	})
}

// mail is a transport that loses, doubles, reorders, and delays for days.
func (a *agent) mail(msg message) {
	w := a.w
	for w.rand.Float64() < 0.5 {
		if w.rand.Float64() < w.rates.loss {
			continue
		}
		delay := w.around(w.rates.delay)
		if w.chance(0.01) {
			delay = w.upTo(72 * time.Hour)
		}
		w.after(delay, func() {
			if a.up && !a.deaf {
				a.receive(msg, "mail", nil)
			}
		})
	}
}

// queue is a transport with a durable queue: it delivers again until it has the answer, and then never.
func (a *agent) queue(msg message) {
	if a.id%3 != 0 || msg.announcement == nil {
		return
	}
	answered := false
	var deliver func()
	deliver = func() {
		if answered {
			return
		}
		a.w.after(30*time.Second+a.w.upTo(time.Minute), deliver)
		if a.up && !a.deaf {
			a.receive(msg, "queue", func() {
				answered = true
				a.acked = append(a.acked, acked{msg.announcement.Epoch, msg.announcement.Serial})
			})
		}
	}
	a.w.after(a.w.around(100*time.Millisecond), deliver)
}

type acked struct {
	epoch  event.Epoch
	serial event.Serial
}

// receive is what an agent's receiver does: judge, commit, then answer, one message at a time.
func (a *agent) receive(msg message, via string, answer func()) {
	if !a.up {
		return
	}
	if msg.by != "master" && a.w.o.Bug != TrustAnybody {
		a.w.note("refused", a.id, 0)
		return
	}
	life, w := a.life, a.w
	early := w.o.Bug == AckBeforeCommit && answer != nil
	takes := time.Millisecond
	if early {
		answer()
		takes = 5 * time.Second
	}
	a.commits = max(a.commits, w.now) + takes
	w.at(a.commits, func() {
		if a.life != life {
			return
		}
		a.hear(msg, via)
		if answer != nil && !early {
			answer()
		}
	})
}

// hear stores a message.
func (a *agent) hear(msg message, via string) {
	var v inbox.Verdict
	now := a.now()
	if h := msg.announcement; h != nil {
		mine := *h
		mine.At, mine.Via = now, via
		if via == "mail" {
			mine.Set = nil // a short form
		}
		if v = a.box.put(mine); v == inbox.Stored {
			a.report(event.Report{Outcome: event.Received, Epoch: h.Epoch, Serial: h.Serial})
		}
		if a.w.o.Bug == ReplayIsNews && v == inbox.Old && h.Epoch == a.box.m.Epoch {
			a.box.m.Applied, a.box.m.Digest = h.Serial, h.Digest
		}
	} else {
		mine := *msg.head
		mine.At, mine.Via = now, via
		v = a.box.putHead(mine)
	}
	a.w.note("heard "+string(v), a.id, 0)
	if msg.by != "master" && (v == inbox.Stored || v == inbox.Strange) {
		a.w.broken("I8", "%s stored what %s signed", a.name, msg.by)
	}
	if v == inbox.TooFar || v == inbox.Strange || v == inbox.Frozen {
		a.wantLook(now)
	}
	if v == inbox.Equivocation {
		a.report(event.Report{Outcome: event.Blocked, Epoch: a.epoch(), Serial: a.box.m.Applied, Error: "quarantined"})
	}
	a.step()
}
