package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/mirrorbus/mirrorbus/listener/inbox"
	"github.com/mirrorbus/mirrorbus/listener/pace"
	"github.com/mirrorbus/mirrorbus/transports"
)

// Costs are what things cost the master, measured on the real parts.
type Costs struct {
	Cores     int
	Send      time.Duration // to hand a message to one subscriber
	Handshake time.Duration // of an SSH connection to the hub, CPU
	Refuse    time.Duration // of an rsync connection that is one too many, CPU
	Run       time.Duration // of an rsync run on the daemon's side, CPU
	Path      time.Duration // likewise for each path
	Trips     float64       // round trips that a run takes
}

// A Crowd is a question: so many mirrors, one hub, one rsync daemon.
type Crowd struct {
	Seed        uint64
	Mirrors     int
	Connections int // rsyncd's `max connections`
	Paths       int
	Restart     bool // of the hub, with the announcement made while it is down
	AcceptRate  int  // of the hub, connections a second
	AcceptBurst int
	Tempo       *pace.Tempo // instead of the product's for an upstream without room; nil: that
	Costs       Costs
}

// An Answer is what happens then.
type Answer struct {
	Connected         [3]time.Duration // until 50, 95 and 100 % are connected to the hub, after a restart
	Done              [3]time.Duration // until 50, 95 and 100 % have what was announced
	Peak              int              // rsync runs at once
	Busiest           int              // connects to the rsync daemon in one second
	Connects, Refused int
	Ideal             time.Duration // no place at the daemon, or no core, is ever idle
}

// A crowd is one under way.
type crowd struct {
	*World
	c         Crowd
	cores     []time.Duration // when each is free
	active    int
	hold      time.Duration // sum
	work      time.Duration
	accepted  time.Duration // when the hub accepts the next connection
	per       map[time.Duration]int
	connected []time.Duration
	done      []time.Duration
	answer    Answer
}

// Ask finds the answer.
func Ask(c Crowd) Answer {
	w := &crowd{World: newEmpty(c.Seed), c: c, cores: make([]time.Duration, c.Costs.Cores), per: map[time.Duration]int{}}
	for i := range c.Mirrors {
		m := &pilgrim{w: w, trip: 10*time.Millisecond + w.upTo(190*time.Millisecond), pause: transports.Pause{Min: keepMin, Max: keepMax}}
		if c.Restart {
			w.after(m.pause.Lost(time.Hour, keepSteady, false, w.rand.Float64()), m.dial)
		} else {
			w.after(time.Duration(i)*c.Costs.Send+m.trip/2, m.pull)
		}
	}
	w.run(time.Hour)
	return w.sum()
}

func newEmpty(seed uint64) *World {
	w := &World{o: Options{Seed: seed}, result: Result{Counts: map[string]int{}}}
	w.rand = newRand(seed)
	return w
}

func (w *crowd) sum() Answer {
	a := w.answer
	for _, n := range w.per {
		a.Busiest = max(a.Busiest, n)
	}
	for i, share := range []float64{0.5, 0.95, 1} {
		a.Done[i], a.Connected[i] = quantile(w.done, w.c.Mirrors, share), quantile(w.connected, w.c.Mirrors, share)
	}
	a.Ideal = max(w.hold/time.Duration(w.c.Connections), w.work/time.Duration(w.c.Costs.Cores))
	return a
}

func quantile(all []time.Duration, of int, share float64) time.Duration {
	if len(all) < int(share*float64(of)) || of == 0 {
		return -time.Second // not within the hour
	}
	slices.Sort(all)
	return all[max(int(share*float64(of))-1, 0)]
}

// compute is when so much CPU time is done, if it begins now on the core that is free first.
func (w *crowd) compute(cost time.Duration) time.Duration {
	i := slices.Index(w.cores, slices.Min(w.cores))
	w.cores[i] = max(w.cores[i], w.now) + cost
	w.work += cost
	return w.cores[i]
}

// A pilgrim is a mirror in a crowd.
type pilgrim struct {
	w       *crowd
	trip    time.Duration // there and back
	pause   transports.Pause
	trouble inbox.Trouble
}

// downFor is how long a hub that is restarted is down; dialTimeout is the agent's.
const (
	downFor     = 2 * time.Second
	dialTimeout = 20 * time.Second
	backlog     = 4096 // connections that the system keeps until the hub accepts them, net.core.somaxconn
)

// dial connects to the hub. The hub accepts at a rate; a connection that waits for too long is given up, and costs the hub its turn all the same.
func (m *pilgrim) dial() {
	w := m.w
	if w.now < downFor {
		w.after(m.trip+m.pause.Lost(0, keepSteady, false, w.rand.Float64()), m.dial)
		return
	}
	every := time.Second / time.Duration(w.c.AcceptRate)
	again := func() { w.after(dialTimeout+m.pause.Lost(0, keepSteady, false, w.rand.Float64()), m.dial) }
	if w.accepted-w.now > backlog*every {
		again()
		return
	}
	w.accepted = max(w.accepted+every, w.now-every*time.Duration(w.c.AcceptBurst))
	turn := max(w.accepted, w.now)
	if turn-w.now > dialTimeout {
		again()
		return
	}
	w.at(turn, func() {
		w.at(w.compute(w.c.Costs.Handshake)+5*m.trip, func() {
			w.connected = append(w.connected, w.now)
			m.pull() // the hub replays what was missed
			w.after(w.upTo(lookSpread), m.glance)
		})
	})
}

// glance looks at the upstream's head after a connect, once; it is not counted among what is wanted.
func (m *pilgrim) glance() { m.run(1, func(bool) {}) }

// pull brings what was announced, and tries again when there is no room.
func (m *pilgrim) pull() {
	m.run(m.w.c.Paths, func(ok bool) {
		w := m.w
		if ok {
			w.done = append(w.done, w.now)
			return
		}
		f := pace.Failure{Cause: pace.Crowded}
		m.trouble = pace.After(m.trouble, f, base.Add(w.now), w.rand.Float64())
		wait := m.trouble.Next.Sub(base.Add(w.now))
		if t := w.c.Tempo; t != nil {
			wait = t.Wait(m.trouble.Attempts, w.rand.Float64())
		}
		w.after(wait, m.pull)
	})
}

// run is one rsync.
func (m *pilgrim) run(paths int, then func(ok bool)) {
	w, c := m.w, m.w.c.Costs
	w.answer.Connects++
	w.per[w.now.Truncate(time.Second)]++
	if w.active >= w.c.Connections {
		w.answer.Refused++
		w.at(w.compute(c.Refuse)+2*m.trip, func() { then(false) })
		return
	}
	w.active++
	w.answer.Peak = max(w.answer.Peak, w.active)
	began := w.now
	w.at(w.compute(c.Run+time.Duration(paths)*c.Path)+time.Duration(c.Trips*float64(m.trip)), func() {
		w.active--
		w.hold += w.now - began
		then(true)
	})
}

func (a Answer) String() string {
	return fmt.Sprintf("%6d %7d %8d %5d | %s | %s | %5.0f", a.Connects, a.Refused, a.Busiest, a.Peak, three(a.Done), three(a.Connected), a.Ideal.Seconds())
}

// three writes seconds; what did not come to pass within the hour as a dash.
func three(all [3]time.Duration) (s string) {
	for _, d := range all {
		if d < 0 {
			s += "       -"
			continue
		}
		s += fmt.Sprintf(" %7.0f", d.Seconds())
	}
	return s
}
