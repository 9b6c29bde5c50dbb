package amqp_test

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/internal/sqlite"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/amqp"
	"github.com/mirrorbus/mirrorbus/transports/outbox"
)

// patience is how long anything may take on a machine that is busy with other things.
const patience = time.Minute

// A member is one process on the bus as a daemon runs it: under Keep, with an outbox. It keeps what it receives.
type member struct {
	role  transports.Role
	name  string
	own   bool                                                  // reads a queue of its own
	tune  func(*amqp.Broker)                                    // changes the configuration
	taken func(ctx context.Context, m transports.Message) error // is asked before a message counts as received

	t         testing.TB
	transport transports.Transport
	db        *sql.DB
	relay     *outbox.Relay
	leave     context.CancelCauseFunc // ends what runs, nil if nothing does
	running   sync.WaitGroup

	mu       sync.Mutex
	connects int
	got      []string // the ids
	states   []transports.State
}

// member makes a process on the site; run starts it.
func (s *site) member(m *member) *member {
	s.t.Helper()
	m.t = s.t
	var conf any
	broker := func(b *amqp.Broker) {
		s.fill(b)
		if m.tune != nil {
			m.tune(b)
		}
	}
	if m.role == transports.Master {
		c := amqp.DefaultMasterConfig()
		broker(&c.Broker)
		conf = c
	} else {
		c := amqp.DefaultMirrorConfig()
		broker(&c.Broker)
		if m.own {
			c.Queue = "own"
		}
		conf = c
	}
	var err error
	m.transport, err = transports.Registry{amqp.Driver()}.Open(m.role, "amqp", conf, transports.Env{Self: m.name, Bookmarks: s.of(m.name)})
	if err != nil {
		s.t.Fatal(err)
	}
	m.db, err = sqlite.Open(context.Background(), filepath.Join(s.t.TempDir(), "outbox"), sqlite.Options{Durability: sqlite.Normal, Schema: []sqlite.Component{outbox.Schema()}})
	if err != nil {
		s.t.Fatal(err)
	}
	m.relay = outbox.NewRelay(outbox.Options{DB: m.db, Name: "amqp", Transport: m.transport.(outbox.Publisher), Caps: amqp.Driver().Capabilities(m.role),
		Min: 10 * time.Millisecond, Max: 500 * time.Millisecond})
	s.t.Cleanup(m.close)
	return m
}

// hears are the subscriptions of a side.
func hears(role transports.Role) []transports.Subscription {
	kind := transports.Announce
	if role == transports.Master {
		kind = transports.Report
	}
	return []transports.Subscription{{Topic: transports.Topic{Kind: kind, Module: "fedora"}}}
}

// run starts the process.
func (m *member) run() *member {
	ctx, leave := context.WithCancelCause(context.Background())
	m.leave = leave
	m.running.Go(func() {
		transports.Keep(ctx, m.transport, hears(m.role), m, transports.KeepOptions{Min: 50 * time.Millisecond, Max: 500 * time.Millisecond, State: m.state}) //nolint:errcheck // it says why it was ended
	})
	m.running.Go(func() { m.relay.Run(ctx) }) //nolint:errcheck // likewise
	return m
}

// errOver is why a test ends a process.
var errOver = errors.New("the test is over")

// stop ends the process, which may be run again.
func (m *member) stop() {
	if m.leave == nil {
		return
	}
	m.leave(errOver)
	ended := make(chan struct{})
	go func() {
		m.running.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(patience):
		m.t.Errorf("%s does not end", m.name)
	}
	m.leave = nil
}

// close ends the process for good.
func (m *member) close() {
	m.stop()
	if err := m.db.Close(); err != nil {
		m.t.Error(err)
	}
}

// Connected implements transports.Receiver.
func (m *member) Connected() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.connects++
	m.relay.Connected()
}

// Receive implements transports.Receiver.
func (m *member) Receive(ctx context.Context, msg transports.Message) error {
	if m.taken != nil {
		if err := m.taken(ctx, msg); err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.got = append(m.got, msg.ID)
	return nil
}

func (m *member) state(s transports.State) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.states = append(m.states, s)
}

// last is the last state.
func (m *member) last() transports.State {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.states) == 0 {
		return transports.State{}
	}
	return m.states[len(m.states)-1]
}

// said tells whether a connection ended or failed with this text, and whether one did for good.
func (m *member) said(text string) (said, permanent bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.states {
		said = said || s.Err != nil && strings.Contains(s.Err.Error(), text)
		permanent = permanent || s.Permanent
	}
	return said, permanent
}

// errors are what the member's connections ended with, for messages.
func (m *member) errors() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []string
	for _, s := range m.states {
		if s.Err != nil && (len(all) == 0 || all[len(all)-1] != s.Err.Error()) {
			all = append(all, s.Err.Error())
		}
	}
	return strings.Join(all, "\n\t")
}

func (m *member) connections() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.connects
}

func (m *member) received() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.got)
}

// message is what the member publishes under this id.
func (m *member) message(id string) transports.Message {
	kind := transports.Report
	if m.role == transports.Master {
		kind = transports.Announce
	}
	return transports.Message{Topic: transports.Topic{Kind: kind, Module: "fedora"}, ID: id, Body: []byte(id)}
}

// put has messages wait for being sent.
func (m *member) put(ids ...string) {
	m.t.Helper()
	err := sqlite.Tx(context.Background(), m.db, func(tx *sql.Tx) error {
		for _, id := range ids {
			if err := outbox.Put(context.Background(), tx, outbox.Entry{Message: m.message(id)}, []string{"amqp"}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		m.t.Fatal(err)
	}
	m.relay.Wake()
}

// login makes a member log in as a user.
func login(user, password string) func(*amqp.Broker) {
	return func(b *amqp.Broker) { b.User, b.Password = user, config.NewSecret(password) }
}
