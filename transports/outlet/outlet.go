// Package outlet is what a daemon does with its transports: each is kept connected, has a relay that sends what waits for it, and a status.
package outlet

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mirrorbus/mirrorbus/internal/sqlite"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/outbox"
)

// An Outlet is a transport as a daemon uses it.
type Outlet struct {
	Name      string
	Transport transports.Transport
	Caps      transports.Capabilities
}

// A Set is the outlets of a daemon. The zero Set has none; Open gives it the database and the log.
type Set struct {
	db  *sql.DB
	log *slog.Logger

	all    []Outlet
	relays map[string]*outbox.Relay

	mu     sync.Mutex
	states map[string]transports.State
}

// NewSet makes a set of no outlets whose messages wait in db, which has the outbox.
func NewSet(db *sql.DB, log *slog.Logger) *Set {
	return &Set{db: db, log: log, relays: map[string]*outbox.Relay{}, states: map[string]transports.State{}}
}

// Add adds outlets, before Run.
func (s *Set) Add(outlets ...Outlet) {
	for _, o := range outlets {
		s.all = append(s.all, o)
		s.relays[o.Name] = outbox.NewRelay(outbox.Options{DB: s.db, Name: o.Name, Transport: o.Transport, Caps: o.Caps, Log: s.log.With("transport", o.Name)})
	}
}

// All are the outlets.
func (s *Set) All() []Outlet { return s.all }

// Forget drops what waits for transports that are not in the set: nobody would ever send it.
func (s *Set) Forget(ctx context.Context) error {
	names := []string{}
	for _, o := range s.all {
		names = append(names, o.Name)
	}
	var dropped map[string]int
	err := sqlite.Tx(ctx, s.db, func(tx *sql.Tx) (err error) {
		dropped, err = outbox.Forget(ctx, tx, names)
		return err
	})
	for name, n := range dropped {
		s.log.Warn("dropped what waited for a transport that is not configured", "transport", name, "messages", n)
	}
	return err
}

// Run keeps every outlet connected and subscribed, and its relay at work, in g until ctx ends. receiver makes what an outlet's messages are handed
// to; the relay is told of its connections as well.
func (s *Set) Run(ctx context.Context, g *errgroup.Group, subs []transports.Subscription, receiver func(name string) transports.Receiver) {
	for _, o := range s.all {
		log := s.log.With("transport", o.Name)
		r := listening{receiver(o.Name), s.relays[o.Name]}
		g.Go(func() error {
			return transports.Keep(ctx, o.Transport, subs, r, transports.KeepOptions{Log: log, State: func(st transports.State) {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.states[o.Name] = st
			}})
		})
		g.Go(func() error { return s.relays[o.Name].Run(ctx) })
	}
}

// listening tells the relay of a transport, too, that it is connected.
type listening struct {
	transports.Receiver
	relay *outbox.Relay
}

// Connected implements transports.Receiver.
func (l listening) Connected() {
	l.Receiver.Connected()
	l.relay.Connected()
}

// Wake tells the relays that something was put into the outbox.
func (s *Set) Wake() {
	for _, r := range s.relays {
		r.Wake()
	}
}

// Publish sends by the named outlet what is not worth storing.
func (s *Set) Publish(ctx context.Context, name string, m transports.Message) error {
	for _, o := range s.all {
		if o.Name == name {
			return o.Transport.Publish(ctx, m)
		}
	}
	return fmt.Errorf("transport %s: %w", name, errors.ErrUnsupported)
}

// A State is how a transport is.
type State string

// The states.
const (
	Connected    State = "connected"
	Degraded     State = "degraded" // connected, but some of what is sent does not arrive, or is not taken
	NotConnected State = "not connected"
)

// States are all of them.
func States() []State { return []State{Connected, Degraded, NotConnected} }

// A Status is where one transport stands.
type Status struct {
	Name      string            `json:"name"`
	State     State             `json:"state"`
	Reason    string            `json:"reason,omitempty"` // why it is not simply connected
	Connected bool              `json:"connected"`
	Since     time.Time         `json:"since,omitzero"`
	Error     string            `json:"error,omitempty"` // why it is not connected
	NextTry   time.Time         `json:"next_try,omitzero"`
	Waiting   int               `json:"waiting"`              // messages in the outbox
	SendError string            `json:"send_error,omitempty"` // why they wait, as when the other side takes none although it is connected
	Peers     int               `json:"peers,omitempty"`
	Counters  map[string]uint64 `json:"counters,omitempty"` // since the daemon has started
	Notes     []string          `json:"notes,omitempty"`    // on single peers
	Called    bool              `json:"-"`                  // it does not connect by itself
}

// Status says where each transport stands.
func (s *Set) Status(ctx context.Context) ([]Status, error) {
	stats, err := outbox.Stats(ctx, s.db)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Status
	for _, o := range s.all {
		st := s.states[o.Name]
		t := Status{Name: o.Name, Connected: st.Connected, Since: st.Since, NextTry: st.Next}
		if st.Err != nil {
			t.Error = st.Err.Error()
		}
		if p, ok := o.Transport.(transports.PeerCounter); ok {
			t.Peers = p.PeerCount()
		}
		if c, ok := o.Transport.(transports.Callee); ok {
			t.Called = c.IsCalled()
		}
		if c, ok := o.Transport.(transports.Counter); ok {
			t.Counters = c.Counters()
		}
		if n, ok := o.Transport.(transports.Noter); ok {
			t.Notes = n.Notes()
		}
		for _, w := range stats {
			if w.Transport == o.Name {
				t.Waiting, t.SendError = w.Waiting, w.Err
			}
		}
		var lost []string
		if d, ok := o.Transport.(transports.Degrader); ok {
			lost = d.Degraded()
		}
		t.State, t.Reason = t.judge(lost)
		all = append(all, t)
	}
	return all, nil
}

// judge says how a transport is, and why. lost is whom it says itself that it does not reach.
func (t *Status) judge(lost []string) (State, string) {
	switch {
	case !t.Connected:
		return NotConnected, cmp.Or(t.Error, t.SendError)
	case t.SendError != "":
		return Degraded, t.SendError
	case len(lost) == 1:
		return Degraded, lost[0]
	case len(lost) > 1:
		return Degraded, fmt.Sprintf("%s; and %d more", lost[0], len(lost)-1)
	}
	return Connected, ""
}
