// Package irc is a channel as the bus: the master announces where people read along, and mirrors hear it.
//
// A signed line is said as it is, and goes in numbered parts where it is longer than a message of IRC. Its path set does not go at all: mirrors fetch it
// from their upstream. Mirrors report to the master alone, by private messages, so that the channel stays readable. WIRE.md in this folder says what
// is on the wire.
//
// IRC forgets: who is away when something is said never hears it, and nobody confirms more than that the server has taken a line. So it is a hint and
// a window for people, beside which the journal carries the truth.
//
// The library is girc. It reads, splits and registers; what it would do beyond that is kept from it (see conn), as it asks the server for each person
// that joins, answers strangers, and holds back or loses what is to be sent.
package irc

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"github.com/mirrorbus/mirrorbus/transports"
)

// maxBody is the largest body in bytes: the longest line with its line feed.
const maxBody = 4097

// Name is that of the transport.
const Name = "irc"

// Driver describes the transport to a registry.
func Driver() transports.Driver {
	return transports.Driver{
		Name: Name,
		// A line with its path set is refused as too large, whatever its size: see goesByReference.
		Capabilities: func(transports.Role) transports.Capabilities {
			return transports.Capabilities{MaxBody: maxBody, Ordered: true}
		},
		Master: transports.SideOf(DefaultMasterConfig, newMaster),
		Mirror: transports.SideOf(DefaultMirrorConfig, newMirror),
	}
}

func newMaster(c MasterConfig, env transports.Env) (*transport, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	t := &transport{role: transports.Master, conf: c.Network, people: c.People, talk: env.Talk}
	if env.Allowed != nil && !c.Embargoed {
		t.public = func(topic transports.Topic) bool { return env.Allowed("", topic, true) == nil }
	}
	return t.fill(env)
}

func newMirror(c MirrorConfig, env transports.Env) (*transport, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return (&transport{role: transports.Mirror, conf: c.Network, master: c.Master}).fill(env)
}

// fill gives a transport what its configuration leaves open.
func (t *transport) fill(env transports.Env) (*transport, error) {
	t.log = env.Log
	if t.public == nil {
		t.public = func(transports.Topic) bool { return true }
	}
	t.conf.Nick = cmp.Or(t.conf.Nick, nickOf(env.Self))
	t.conf.User = cmp.Or(t.conf.User, "mirrorbus")
	t.conf.RealName = cmp.Or(t.conf.RealName, fmt.Sprintf("mirrorbus %s %s", t.role, env.Self))
	t.conf.Account = cmp.Or(t.conf.Account, t.conf.Nick)
	if _, err := t.conf.tlsConfig(""); err != nil {
		return nil, err
	}
	return t, nil
}

// nickOf makes a nick of a process's name.
func nickOf(self string) string {
	nick := strings.Map(func(r rune) rune {
		if r < 0x80 && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-') {
			return r
		}
		return '-'
	}, self)
	if nick == "" || nick[0] == '-' || nick[0] >= '0' && nick[0] <= '9' {
		nick = "m" + nick
	}
	return nick[:min(len(nick), maxNick)]
}

// transport is one process's end of the bus.
type transport struct {
	role   transports.Role
	conf   Network
	master string // the nick that a mirror reports to
	people People // of a master
	talk   transports.Talk
	public func(transports.Topic) bool // everybody may hear of it
	log    *slog.Logger
	counts counters

	mu      sync.Mutex
	current *session // nil while no Run is in the channel
	yields  bool     // services have given our nick to somebody else with our account: see yield
}

// Run implements transports.Transport.
func (t *transport) Run(ctx context.Context, subs []transports.Subscription, r transports.Receiver) error {
	s, err := t.connect(ctx, subs)
	if err != nil {
		return preferCause(ctx, err)
	}
	defer s.close()
	t.set(s)
	defer t.set(nil)
	t.counts.connects.Add(1)
	defer s.talk(ctx)()
	r.Connected()
	return preferCause(ctx, s.deliver(ctx, r))
}

// Publish implements transports.Transport.
func (t *transport) Publish(ctx context.Context, m transports.Message) error {
	return t.PublishAll(ctx, []transports.Message{m})[0]
}

// PublishAll implements transports.BatchPublisher: several messages share the question whether the server has taken them.
func (t *transport) PublishAll(ctx context.Context, ms []transports.Message) []error {
	t.mu.Lock()
	s := t.current
	t.mu.Unlock()
	if s == nil {
		return repeat(transports.ErrNotConnected, len(ms))
	}
	return s.publish(ctx, ms)
}

func repeat(err error, n int) []error {
	errs := make([]error, n)
	for i := range errs {
		errs[i] = err
	}
	return errs
}

func (t *transport) set(s *session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.current = s
}

// Notes implements transports.Noter.
func (t *transport) Notes() []string {
	t.mu.Lock()
	s := t.current
	t.mu.Unlock()
	if s == nil {
		return nil
	}
	return s.notes()
}

// preferCause returns why ctx ended if it did, err otherwise.
func preferCause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
