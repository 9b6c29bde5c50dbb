// Package sim runs the decision code of the program, the very functions, for a master with its hub and its rsync daemon and for hundreds of mirrors, in
// one goroutine, with a clock and random numbers of its own: thousands of hours in seconds, and the same seed gives the same history.
//
// What is real: listener/pace (what comes next, rate budgets, waits, flips, states), the inbox's verdicts and its step to the next serial, the
// collector's bookkeeping and its word for a mirror, transports.Pause. What is a model: everything that these decide about. Messages are lost, doubled,
// reordered and delayed for days; processes and whole hosts go down at any moment, with what was not committed or not synced; clocks are wrong,
// drift and jump; the upstream is not ready, has no room, breaks off; its journal no longer reaches back; strangers and a thief of the key speak.
//
// Rules are checked all the time, see Violation. After the faults every mirror has to come to where the master is. A [Bug] breaks the model on
// purpose: for each rule there is one that it finds.
package sim

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
)

// base is when every simulation begins.
var base = time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)

const module event.Module = "sim"

// Options choose a world.
type Options struct {
	Seed   uint64
	Agents int
	Faults time.Duration // how long there are faults
	Calm   time.Duration // how long afterwards there are none, and all must come to rest; 0: 90 minutes
	Every  time.Duration // mean time between two announcements; 0: 2 minutes
	Bug    Bug

	Compose time.Duration // mean time from one compose to the next; 0: there is none
}

// A Violation is a rule that was broken: when, by whom, how.
type Violation struct {
	Rule string // as in deploy/FAULTS.md
	At   time.Duration
	What string
}

func (v Violation) String() string { return fmt.Sprintf("%s at %v: %s", v.Rule, v.At, v.What) }

// A Result is what became of a world.
type Result struct {
	Digest     uint64 // of the history: every event in its order
	Events     uint64
	Violations []Violation // at most maxViolations
	Counts     map[string]int
}

const maxViolations = 20

// A World is a simulation under way.
type World struct {
	o      Options
	rates  rates
	rand   *rand.Rand
	now    time.Duration
	queue  queue
	events uint64
	digest uint64

	master *master
	daemon *daemon
	agents []*agent
	faulty bool
	result Result
}

// Run makes a world and lets it go to its end.
func Run(o Options) Result {
	w := newWorld(o)
	w.faulty = true
	w.at(o.Faults, w.calm)
	w.run(o.Faults + w.o.Calm)
	w.atRest()
	w.result.Digest, w.result.Events = w.digest, w.events
	return w.result
}

func newWorld(o Options) *World {
	if o.Calm == 0 {
		o.Calm = 90 * time.Minute
	}
	if o.Every == 0 {
		o.Every = 2 * time.Minute
	}
	w := &World{o: o, rand: newRand(o.Seed), digest: 14695981039346656037, result: Result{Counts: map[string]int{}}}
	w.rates = drawRates(w)
	w.master = newMaster(w)
	w.daemon = &daemon{w: w, most: max(o.Agents/3, 2)}
	for i := range o.Agents {
		w.agents = append(w.agents, newAgent(w, i))
	}
	w.master.start()
	for _, a := range w.agents {
		w.after(w.upTo(time.Minute), a.start)
	}
	w.chaos()
	w.composes()
	return w
}

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0x6d6972726f72)) }

// run lets everything happen up to a time.
func (w *World) run(until time.Duration) {
	for len(w.queue) > 0 && w.queue[0].at <= until {
		e := heap.Pop(&w.queue).(*happening)
		w.now = e.at
		w.events++
		e.do()
	}
	w.now = until
}

// A happening is something that will happen.
type happening struct {
	at  time.Duration
	seq uint64 // of two at the same time the one that was planned first comes first
	do  func()
}

type queue []*happening

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(*happening)) }
func (q *queue) Pop() any {
	last := len(*q) - 1
	e := (*q)[last]
	(*q)[last], *q = nil, (*q)[:last]
	return e
}

func (w *World) at(t time.Duration, do func()) {
	w.result.Counts["planned"]++
	heap.Push(&w.queue, &happening{at: max(t, w.now), seq: uint64(w.result.Counts["planned"]), do: do})
}

func (w *World) after(d time.Duration, do func()) { w.at(w.now+d, do) }

// note adds something that happened to the history.
func (w *World) note(what string, who int, n uint64) {
	w.result.Counts[what]++
	for _, x := range []uint64{uint64(w.now), uint64(who), n, uint64(len(what))<<8 | uint64(what[0])} {
		w.digest = (w.digest ^ x) * 1099511628211
	}
}

func (w *World) broken(rule, format string, args ...any) {
	w.note("broken", 0, 0)
	if len(w.result.Violations) < maxViolations {
		w.result.Violations = append(w.result.Violations, Violation{rule, w.now, fmt.Sprintf(format, args...)})
	}
}

// upTo is a random time below d.
func (w *World) upTo(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return time.Duration(w.rand.Int64N(int64(d)))
}

// around is a random time, d in the mean, that something takes or that passes between two things that have nothing to do with each other.
func (w *World) around(d time.Duration) time.Duration {
	return time.Duration(w.rand.ExpFloat64() * float64(d))
}

// chance is true that often, while there are faults.
func (w *World) chance(p float64) bool { return w.faulty && w.rand.Float64() < p }
