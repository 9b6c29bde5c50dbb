package bench_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/mirrorbus/mirrorbus/transports"
)

// A side is a publisher and its listeners on one bus, all in this process.
type side struct {
	name    string
	n       int
	publish func(context.Context, []transports.Message) []error

	ctx   context.Context // of all that runs
	end   func()          // ends it and waits
	parts sync.WaitGroup

	mu        sync.Mutex
	connected int
	full      time.Time // when all were connected the last time; zero while they are not
	changed   chan struct{}
	heard     map[string]int // how many have a message
	arrived   map[string]time.Time
}

func (b *bench) side(name string, n int) *side {
	ctx, cancel := context.WithCancel(b.ctx)
	s := &side{name: name, n: n, ctx: ctx, changed: make(chan struct{}), heard: map[string]int{}, arrived: map[string]time.Time{}}
	s.end = func() {
		cancel()
		s.parts.Wait()
	}
	b.Cleanup(s.end)
	return s
}

// change takes in what f changes, and wakes who waits.
func (s *side) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *side) connect(by int) {
	s.change(func() {
		s.connected += by
		s.full = time.Time{}
		if s.connected == s.n {
			s.full = time.Now()
		}
	})
}

// hear counts one listener that has a message.
func (s *side) hear(id string) {
	now := time.Now()
	s.mu.Lock()
	s.heard[id]++
	all := s.heard[id] == s.n
	s.mu.Unlock()
	if all {
		s.change(func() { s.arrived[id] = now })
	}
}

// until waits until f, which looks at the side, returns true.
func (s *side) until(bound time.Duration, what string, f func() bool) error {
	ctx, cancel := context.WithTimeoutCause(s.ctx, bound, fmt.Errorf("%s: not within %s", what, bound))
	defer cancel()
	for {
		s.mu.Lock()
		done, changed, connected := f(), s.changed, s.connected
		s.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%s: %w; %d of %d are connected", s.name, context.Cause(ctx), connected, s.n)
		}
	}
}

const sideBound = 5 * time.Minute

// all waits until all listeners are connected, and returns since when.
func (s *side) all() (at time.Time, err error) {
	err = s.until(sideBound, "all listeners connected", func() bool {
		at = s.full
		return !at.IsZero()
	})
	return at, err
}

// none waits until all have noticed that the connection is lost.
func (s *side) none() error {
	return s.until(sideBound, "no listener connected", func() bool { return s.connected == 0 })
}

// arrival waits until all listeners have a message, and returns when the last of them had it.
func (s *side) arrival(id string) (at time.Time, err error) {
	err = s.until(sideBound, "message "+id+" at all listeners", func() bool {
		at = s.arrived[id]
		return !at.IsZero()
	})
	return at, err
}

// announce publishes one message until it is taken.
func (s *side) announce(id string) error {
	ms := announcements(id, 1)
	for {
		err := s.publish(s.ctx, ms)[0]
		if err == nil {
			return nil
		}
		select {
		case <-time.After(10 * time.Millisecond): // the publisher is about to come back
		case <-s.ctx.Done():
			return errors.Join(err, context.Cause(s.ctx))
		}
	}
}

// reach is how many seconds a message takes from publishing to the last listener.
func (s *side) reach(id string) (float64, error) {
	start := time.Now()
	if err := s.announce(id); err != nil {
		return 0, err
	}
	at, err := s.arrival(id)
	return at.Sub(start).Seconds(), err
}

// fill is how many seconds it takes until a backlog is confirmed.
func (s *side) fill(id string) (float64, error) {
	if err := s.announce(id + "-first"); err != nil { // the publisher is connected
		return 0, err
	}
	start := time.Now()
	err := s.together(s.ctx, announcements(id, waiting))
	return time.Since(start).Seconds(), err
}

var announced = transports.Topic{Kind: transports.Announce, Module: module}

// announcements are messages as long as announcements are. The first has the id itself.
func announcements(id string, n int) []transports.Message {
	all := make([]transports.Message, n)
	for i := range all {
		all[i] = transports.Message{Topic: announced, ID: id, Body: make([]byte, bareBody)}
		if i > 0 {
			all[i].ID = fmt.Sprint(id, "-", i)
		}
	}
	return all
}

// A listener does nothing with what it hears but count it.
type listener struct {
	side *side
	last string // a message may come twice
	on   bool
}

func (l *listener) state(st transports.State) {
	if st.Connected != l.on {
		l.on = st.Connected
		l.side.connect(map[bool]int{true: 1, false: -1}[l.on])
	}
}

// Connected implements transports.Receiver.
func (l *listener) Connected() {}

// Receive implements transports.Receiver.
func (l *listener) Receive(_ context.Context, m transports.Message) error {
	l.hear(m.ID)
	return nil
}

func (l *listener) hear(id string) {
	if id != l.last {
		l.last = id
		l.side.hear(id)
	}
}
