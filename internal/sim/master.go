package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/listener/inbox"
	"github.com/mirrorbus/mirrorbus/trigger/collector"
)

// The master's tuning, as trigger.Defaults has it.
const (
	headEvery  = 5 * time.Minute
	headTTL    = 15 * time.Minute
	awayAfter  = 15 * time.Minute
	maxBacklog = 256
)

// A message is a signed line on its way. Who signed it stands for the signature.
type message struct {
	by           string
	announcement *inbox.Heard
	head         *inbox.Head
}

// An era is the history of one epoch.
type era struct {
	epoch event.Epoch
	need  [paths][]change // the versions of each path; the change's path is the serial that brought it
	log   []inbox.Heard   // committed; serial 1 first
	kept  event.Serial    // the first that was not trimmed
}

// version is the version of a path that a mirror at a serial has at least.
func (e *era) version(p int, n event.Serial) int {
	i, _ := slices.BinarySearchFunc(e.need[p], int(n)+1, func(c change, n int) int { return c.path - n })
	if i == 0 {
		return 0
	}
	return e.need[p][i-1].version
}

// A master is the host that publishes: journal, export and hub.
type master struct {
	w    *World
	up   bool
	life int // counts starts; what an earlier life had planned does not happen

	live     [paths]int // what the rsync daemon serves
	versions int
	eras     []*era
	accepted []event.Digest // what publish has returned for, in the era
	relayed  event.Serial   // durable: the outbox is empty up to here
	exported *inbox.Head    // what the rsync daemon serves of .mirrorbus/; it goes on while the hub is down
	before   *inbox.Head    // what it served once
	records  map[string]collector.Record
	links    []*link // by agent
	arrivals []time.Duration

	composing composing
}

func newMaster(w *World) *master {
	m := &master{w: w, records: map[string]collector.Record{}, links: make([]*link, w.o.Agents)}
	m.newEra()
	w.after(w.around(w.o.Every), m.compose)
	return m
}

func (m *master) era() *era { return m.eras[len(m.eras)-1] }

func (m *master) eraOf(e event.Epoch) *era {
	for _, x := range m.eras {
		if x.epoch == e {
			return x
		}
	}
	return nil
}

// newEra begins a journal anew, at the tree as it is announced.
func (m *master) newEra() {
	e := &era{epoch: event.Epoch(fmt.Sprintf("%08x", len(m.eras)+1)), kept: 1}
	if len(m.eras) > 0 {
		for p := range paths {
			e.need[p] = []change{{0, m.era().version(p, event.MaxSerial)}}
		}
	}
	m.eras, m.accepted, m.relayed = append(m.eras, e), nil, 0
	m.export()
}

func (m *master) start() {
	m.up = true
	m.life++
	m.w.note("hub start", 0, uint64(m.life))
	m.checkAccepted()
	m.relay()
	m.tick(m.life)
	m.resign(m.life)
}

func (m *master) crash() {
	m.up = false
	m.life++
	m.w.note("hub crash", 0, uint64(m.life))
	for _, l := range m.links {
		if l != nil {
			l.cut()
		}
	}
}

// tick sends the head to everybody now and then.
func (m *master) tick(life int) {
	if m.life != life {
		return
	}
	m.broadcast(message{by: "master", head: m.head()})
	m.w.after(headEvery, func() { m.tick(life) })
}

// resign signs the exported head anew.
func (m *master) resign(life int) {
	if m.life != life {
		return
	}
	m.export()
	m.w.after(headEvery*9/10, func() { m.resign(life) })
}

func (m *master) export() { m.before, m.exported = m.exported, m.head() }

// head signs where the module stands.
func (m *master) head() *inbox.Head {
	e := m.era()
	h := event.Head{Module: module, Epoch: e.epoch, Serial: event.Serial(len(e.log)), At: base.Add(m.w.now).Truncate(time.Second), TTL: headTTL, Manifest: event.Sum([]byte("m"))}
	if h.Serial > 0 {
		h.Last = e.log[h.Serial-1].Digest
	}
	m.hold(&h)
	return &inbox.Head{Head: h, Line: h.Text()}
}

// compose changes the tree and announces that, again and again.
func (m *master) compose() {
	w := m.w
	if w.faulty {
		w.after(w.around(w.o.Every), m.compose)
	}
	set := []change{}
	for range 1 + w.rand.IntN(4) {
		p := w.rand.IntN(paths)
		if !slices.ContainsFunc(set, func(c change) bool { return c.path == p }) {
			m.versions++
			set = append(set, change{p, m.versions})
		}
	}
	a := event.Announcement{Kind: event.Change, Module: module, Count: len(set)}
	switch {
	case w.chance(m.w.rates.flips):
		a.Kind, a.NotBefore = event.Flip, w.upTo(45*time.Minute).Truncate(time.Second)
		if w.rand.IntN(2) == 0 {
			a.Expires = a.NotBefore + time.Hour
		}
		for i := range set {
			set[i].version = 0
		}
	case w.chance(w.rates.wide):
		a.Count = 0
	}
	written := func() {
		for _, c := range set {
			m.live[c.path] = max(m.live[c.path], c.version)
		}
	}
	if w.chance(w.rates.race) {
		w.after(w.upTo(30*time.Second), written)
	} else {
		written()
	}
	m.publish(a, set)
}

// publish announces, and tries again until it is accepted.
func (m *master) publish(a event.Announcement, set []change) {
	w, life := m.w, m.life
	again := func() { w.after(10*time.Second, func() { m.publish(a, set) }) }
	if !m.up {
		again()
		return
	}
	if w.o.Bug == AcceptBeforeCommit {
		m.accepted = append(m.accepted, m.line(a, set, event.Serial(len(m.accepted)+1)).Digest)
	}
	takes := time.Millisecond + w.upTo(10*time.Millisecond)
	if w.o.Bug == AcceptBeforeCommit {
		takes += 10 * time.Second
	}
	w.after(takes, func() {
		switch {
		case m.life == life && m.gather(a, set):
		case m.life == life:
			m.commit(a, set)
		case w.o.Bug != AcceptBeforeCommit:
			again()
		}
	})
}

// line makes the announcement of a serial.
func (m *master) line(a event.Announcement, set []change, n event.Serial) inbox.Heard {
	e := m.era()
	a.Epoch, a.Serial, a.At = e.epoch, n, base.Add(m.w.now).Truncate(time.Second)
	if n > 1 && int(n) <= len(e.log)+1 {
		a.Prev = e.log[n-2].Digest
	}
	h := inbox.Heard{Announcement: a}
	if a.Count > 0 {
		h.Set = encode(set)
		h.Announcement.Set = event.Sum(h.Set)
	}
	h.Line = h.Text()
	h.Digest = event.Sum(h.Line)
	return h
}

// commit is the transaction of publish.
func (m *master) commit(a event.Announcement, set []change) {
	e := m.era()
	for i, c := range set {
		if a.Kind == event.Change {
			set[i].version = max(c.version, m.live[c.path], e.version(c.path, event.MaxSerial))
		}
	}
	h := m.line(a, set, event.Serial(len(e.log)+1))
	e.log = append(e.log, h)
	if m.w.o.Bug != AcceptBeforeCommit {
		m.accepted = append(m.accepted, h.Digest)
	}
	for _, c := range set {
		if a.Kind == event.Change {
			e.need[c.path] = append(e.need[c.path], change{int(h.Serial), c.version})
		}
	}
	m.w.note("announced", 0, uint64(h.Serial))
	life := m.life
	m.w.after(time.Millisecond, func() {
		if m.life == life {
			m.relay()
		}
	})
	m.w.after(20*time.Millisecond+m.w.around(m.w.rates.exportLag), func() {
		if m.life == life {
			m.export()
		}
	})
}

// relay sends what waits in the outbox. After a crash the last of it may go twice.
func (m *master) relay() {
	e, life := m.era(), m.life
	last := event.Serial(len(e.log))
	for n := m.relayed + 1; n <= last; n++ {
		m.broadcast(message{by: "master", announcement: &e.log[n-1]})
	}
	m.w.after(2*time.Millisecond, func() {
		if m.life == life && m.era() == e {
			m.relayed = max(m.relayed, last)
		}
	})
}

// broadcast hands a message to every transport.
func (m *master) broadcast(msg message) {
	for i, l := range m.links {
		if l != nil {
			l.down(msg)
		}
		m.w.agents[i].mail(msg)
		m.w.agents[i].queue(msg)
	}
}

// collect is the transaction of the collector.
func (m *master) collect(r event.Report) {
	m.records[r.Mirror] = m.records[r.Mirror].Take(r, base.Add(m.w.now))
}

// state is the word for a mirror in the master's status.
func (m *master) state(mirror string) collector.State {
	e := m.era()
	t := collector.Tip{Epoch: e.epoch, Serial: event.Serial(len(e.log))}
	if t.Serial > 0 {
		t.Digest = e.log[t.Serial-1].Digest
	}
	return collector.Judge(t, m.records[mirror].Standing, base.Add(m.w.now), awayAfter)
}
