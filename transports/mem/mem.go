// Package mem is a bus within one process: the reference for what a transport does, and what tests and simulations run on.
//
// It can be made with any Capabilities, so that a receiver can be tried against the best and against the poorest of transports. It is
// deterministic: the order of calls and Options.Seed decide everything, no clock and no sleep.
package mem

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"math/rand/v2"
	"sync"

	"github.com/mirrorbus/mirrorbus/transports"
)

// Options describe a bus.
type Options struct {
	// Capabilities are what the bus promises, and what it does: without Durable a subscriber that is away misses messages, without Ordered
	// waiting ones are delivered in any order, without Redelivers a refused one is lost, and so on.
	Capabilities transports.Capabilities

	// Backlog is Env.Backlog of the publishers, used if Capabilities.Resumes. nil means there is none.
	Backlog func(ctx context.Context, t transports.Topic, have string) iter.Seq2[transports.Message, error]

	// Seed of the order in which messages arrive without Capabilities.Ordered.
	Seed uint64
}

// All are the capabilities of a bus that promises everything.
func All() transports.Capabilities {
	return transports.Capabilities{MaxBody: 1 << 20, Durable: true, Ordered: true, Redelivers: true, Resumes: true, Broadcast: true}
}

// A Bus connects transports. What waits for a slow or absent subscriber is kept in memory without a limit.
type Bus struct {
	o    Options
	rand *rand.Rand

	mu    sync.Mutex
	down  bool
	peers map[string]*peer
	names []string // of peers, in the order in which they first subscribed
	turn  int      // counts reports, so that hubs share them without Broadcast
}

// NewBus makes a bus that is up.
func NewBus(o Options) *Bus {
	return &Bus{o: o, rand: rand.New(rand.NewPCG(o.Seed, 0)), peers: make(map[string]*peer)}
}

// ErrDown is the error of Run while the bus is down.
var ErrDown = errors.New("the bus is down")

// Stop ends every connection, as a server does that goes away. What is Durable stays.
func (b *Bus) Stop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.down = true
	for _, name := range b.names {
		if p := b.peers[name]; p.hangUp != nil {
			p.hangUp(ErrDown)
		}
	}
}

// Start brings the bus back.
func (b *Bus) Start() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.down = false
}

// Connect returns the transport of the process with the given name. Two with one name share its subscriptions, as after a restart.
func (b *Bus) Connect(name string) transports.Transport { return &transport{bus: b, name: name} }

// Config is the configuration of Driver's transports.
type Config struct {
	Name string `toml:"name"` // on the bus, instead of Env.Self
}

// Driver describes the transports of this bus to a registry.
func (b *Bus) Driver() transports.Driver {
	side := transports.SideOf(func() *Config { return &Config{} }, func(c Config, env transports.Env) (transports.Transport, error) {
		return b.Connect(cmp.Or(c.Name, env.Self)), nil
	})
	return transports.Driver{
		Name:         "mem",
		Capabilities: func(transports.Role) transports.Capabilities { return b.o.Capabilities },
		Master:       side,
		Mirror:       side,
	}
}

// publish puts m into the queues of its subscribers.
func (b *Bus) publish(from string, m transports.Message) error {
	if err := b.o.Capabilities.Check(m); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if p := b.peers[from]; b.down || p == nil || p.hangUp == nil {
		return transports.ErrNotConnected
	}
	m.From = from
	to := b.subscribers(m.Topic)
	if m.Topic.Kind == transports.Report && !b.o.Capabilities.Broadcast && len(to) > 1 {
		to = to[b.turn%len(to):][:1]
		b.turn++
	}
	for _, p := range to {
		p.put(m)
	}
	return nil
}

// subscribers returns who gets what is published on t now.
func (b *Bus) subscribers(t transports.Topic) []*peer {
	var all []*peer
	for _, name := range b.names {
		if p := b.peers[name]; p.topics[t] && (p.hangUp != nil || b.o.Capabilities.Durable) {
			all = append(all, p)
		}
	}
	return all
}
