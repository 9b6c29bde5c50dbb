package sim

import (
	"fmt"
	"math"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/listener/inbox"
	"github.com/mirrorbus/mirrorbus/listener/pace"
)

// rates are how often what goes wrong in a world. Each world draws its own: where everything is bad some things never come to pass.
type rates struct {
	loss, race, flips, wide, breaks, rollback float64
	skewed, drifts                            float64
	delay, exportLag, transfer                time.Duration // means
	crash, power, hub, jump, deaf             time.Duration // mean times between two, for the whole world; 0 never
	forge, trim, epoch, ill, full             time.Duration
}

func drawRates(w *World) rates {
	often := func(p ...float64) float64 { return p[w.rand.IntN(len(p))] }
	every := func(d time.Duration) time.Duration {
		if w.rand.IntN(4) == 0 {
			return 0
		}
		return time.Duration((0.3 + 2*w.rand.Float64()) * float64(d))
	}
	each := time.Duration(max(w.o.Agents, 1))
	return rates{
		loss: often(0, 0.3, 0.9), race: often(0, 0.1), flips: often(0, 0.1, 0.3), wide: often(0, 0.02), breaks: often(0, 0.02, 0.2), rollback: often(0, 0.05),
		skewed: often(0, 0.1, 0.3), drifts: often(0, 1), delay: time.Duration(often(1, 60, 3600) * float64(time.Second)),
		exportLag: time.Duration(often(0, 1, 30) * float64(time.Second)), transfer: time.Duration(often(0.01, 1, 60) * float64(time.Second)),
		crash: every(2 * time.Hour / each), power: every(4 * time.Hour / each), hub: every(3 * time.Hour), jump: every(8 * time.Hour / each),
		deaf: every(4 * time.Hour / each), forge: every(time.Minute), trim: every(2 * time.Hour), epoch: every(30 * time.Hour), ill: every(6 * time.Hour),
		full: every(20 * time.Hour / each),
	}
}

// chaos plans the faults.
func (w *World) chaos() {
	r := w.rates
	w.recur(r.crash, func() { w.fell(w.someone(), false) })
	w.recur(r.power, func() { w.fell(w.someone(), true) })
	w.recur(r.hub, w.fellHub)
	w.recur(r.jump, w.jump)
	w.recur(r.deaf, w.deafen)
	w.recur(r.forge, w.forge)
	w.recur(r.trim, func() {
		e := w.master.era()
		e.kept = max(e.kept, event.Serial(max(len(e.log)-w.rand.IntN(20), 0)))
	})
	w.recur(r.epoch, func() {
		if w.master.up {
			w.master.newEra()
			w.master.broadcast(message{by: "master", head: w.master.head()})
		}
	})
	w.recur(r.ill, func() {
		w.daemon.ill = []pace.Cause{pace.Crowded, pace.Passing, pace.Lasting}[w.rand.IntN(3)]
		w.after(w.upTo(10*time.Minute), func() { w.daemon.ill = "" })
	})
	w.recur(r.full, func() {
		a := w.someone()
		a.full = true
		w.after(w.upTo(time.Hour), func() { a.full = false })
	})
}

// recur does something again and again, while there are faults.
func (w *World) recur(mean time.Duration, do func()) {
	if mean == 0 {
		return
	}
	w.after(w.around(mean), func() {
		if w.faulty {
			do()
			w.recur(mean, do)
		}
	})
}

func (w *World) someone() *agent { return w.agents[w.rand.IntN(len(w.agents))] }

func (w *World) fell(a *agent, power bool) {
	if !a.up {
		return
	}
	a.crash(power)
	w.after(w.around(30*time.Second), func() {
		if !a.up {
			a.start()
		}
	})
}

func (w *World) fellHub() {
	m := w.master
	if !m.up {
		return
	}
	m.crash()
	pause := w.around(2 * time.Minute)
	if w.rand.IntN(5) == 0 {
		pause = w.upTo(2 * time.Hour)
	}
	w.after(pause, func() {
		if !m.up {
			m.start()
		}
	})
}

// jump sets somebody's clock, wrong or right.
func (w *World) jump() {
	a := w.someone()
	if a.wrong().Abs() > time.Minute && w.rand.IntN(2) == 0 {
		a.offset -= a.wrong()
	} else {
		a.offset += w.upTo(4*time.Hour) - 2*time.Hour
		a.offset = min(max(a.offset, -2*time.Hour), 2*time.Hour)
	}
	a.jumped = append(a.jumped, w.now)
	w.note("clock", a.id, uint64(a.offset))
}

// deafen cuts somebody off for a while.
func (w *World) deafen() {
	a := w.someone()
	if a.deaf {
		return
	}
	a.deaf = true
	w.note("deaf", a.id, 0)
	l := a.link
	w.after(2*keepalive, func() {
		if l != nil && a.deaf {
			l.cut()
		}
	})
	w.after(w.around(time.Hour), func() { a.deaf = false })
}

// forge sends somebody what a stranger has made up, something old, or what a thief of the master's key would say.
func (w *World) forge() {
	a, e := w.someone(), w.master.era()
	if len(e.log) == 0 {
		return
	}
	last := e.log[len(e.log)-1]
	h := e.log[w.rand.IntN(len(e.log))]
	msg := message{by: "master", announcement: &h}
	switch w.rand.IntN(8) {
	case 0, 1, 2: // a replay
	case 3: // serials of the future, signed with the stolen key
		h.Serial += event.Serial(inbox.MaxAhead + w.rand.Int64N(math.MaxInt64/2))
		h.Digest = event.Sum(fmt.Appendf(nil, "far %d", h.Serial))
	case 4: // likewise a head
		head := *w.master.head()
		head.Serial += event.Serial(inbox.MaxAhead + w.rand.Int64N(math.MaxInt64/2))
		head.Last, head.Line = event.Sum([]byte("far")), []byte("far")
		msg = message{by: "master", head: &head}
	case 5: // another line for a serial, signed with the stolen key, now and then
		if w.rand.IntN(20) > 0 {
			return
		}
		h.Digest = event.Sum([]byte("another"))
	default: // a stranger
		msg.by, h.Serial = "mallory", last.Serial+1
		h.Prev, h.Digest = last.Digest, event.Sum(fmt.Appendf(nil, "made up %d", w.now))
		h.Set = encode([]change{{0, 1 << 40}})
	}
	a.receive(msg, "mail", nil)
	if w.rand.IntN(50) == 0 { // a storm
		for range 60 {
			w.after(w.upTo(time.Minute), func() { a.receive(msg, "mail", nil) })
		}
	}
}

// calm ends the faults. What was broken is mended, and operators do their part.
func (w *World) calm() {
	w.faulty = false
	w.note("calm", 0, 0)
	w.rates.loss, w.rates.exportLag, w.rates.transfer = 0, 0, 10*time.Millisecond
	w.daemon.ill = ""
	if !w.master.up {
		w.master.start()
	}
	for _, a := range w.agents {
		a.deaf, a.full = false, false
		if a.wrong().Abs() > time.Minute {
			a.offset -= a.wrong()
			a.jumped = append(a.jumped, w.now)
		}
		if !a.up {
			a.start()
		}
		if a.box.m.Quarantine != "" {
			a.box.release()
			a.said, a.acked = map[event.Epoch]event.Serial{}, nil
			a.step()
		}
	}
	w.after(55*time.Minute, w.reunion)
}

// reunion is a restart of the hub in quiet times, with an announcement that is made just before nobody is connected.
func (w *World) reunion() {
	m := w.master
	m.crash()
	w.after(time.Second, func() {
		m.start()
		m.arrivals = nil
		m.compose()
		started := w.now
		w.after(4*time.Minute+30*time.Second, func() { w.checkReunion(started) })
	})
}
