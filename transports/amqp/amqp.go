// Package amqp is the bus for many mirrors: a RabbitMQ broker or a cluster of them.
//
// All announcements go into one stream, a log that every mirror reads at its own position and that costs the same for ten mirrors as for a
// thousand; those of modules that not everybody may hear of go into a second one. Reports come back through a queue. TOPOLOGY.md in this folder
// names every object, its arguments and who may do what with it; `mirrorbus amqp` makes them. A process declares nothing: it needs no right to.
//
// What travels is the same signed text as on every transport. The broker may lose it, repeat it and let others send it.
package amqp

import (
	"cmp"
	"context"
	"sync"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/transports"
)

// maxBody is the largest message body in bytes. A path set that makes a message larger is fetched by each mirror from its upstream: a broker
// sends every byte to every mirror at the same time.
const maxBody = 256 << 10

// Driver describes the transport to a registry.
func Driver() transports.Driver {
	return transports.Driver{
		Name:         "amqp",
		Capabilities: capabilities,
		Master:       transports.SideOf(DefaultMasterConfig, newMaster),
		Mirror:       transports.SideOf(DefaultMirrorConfig, newMirror),
	}
}

func capabilities(transports.Role) transports.Capabilities {
	return transports.Capabilities{MaxBody: maxBody, Durable: true, Ordered: true, Redelivers: true}
}

func newMaster(c MasterConfig, env transports.Env) (*transport, error) {
	return newTransport(&transport{role: transports.Master, env: env, broker: c.Broker})
}

func newMirror(c MirrorConfig, env transports.Env) (*transport, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return newTransport(&transport{role: transports.Mirror, env: env, broker: c.Broker, mirror: c})
}

// newTransport checks and fills what both roles have.
func newTransport(t *transport) (_ *transport, err error) {
	if err := t.broker.Validate(); err != nil {
		return nil, err
	}
	t.broker.User = cmp.Or(t.broker.User, t.env.Self)
	if len(t.broker.User) > 255 || len(t.env.Self) > 120 {
		return nil, config.Fault("user", "is too long for AMQP", "use a name of at most 120 characters")
	}
	if t.tls, err = t.broker.tlsConfig(); err != nil {
		return nil, err
	}
	t.marks.store = t.env.Bookmarks
	return t, nil
}

// transport is one process's end of the bus.
type transport struct {
	role   transports.Role
	env    transports.Env
	broker Broker
	mirror MirrorConfig // of that role
	tls    *tlsFiles
	marks  bookmarks
	counts counters

	mu        sync.Mutex
	publisher *publisher // nil while no Run has a connection
}

// Publish implements transports.Transport.
func (t *transport) Publish(ctx context.Context, m transports.Message) error {
	return t.PublishAll(ctx, []transports.Message{m})[0]
}

// PublishAll implements transports.BatchPublisher: the messages are on their way together.
func (t *transport) PublishAll(ctx context.Context, ms []transports.Message) []error {
	t.mu.Lock()
	p := t.publisher
	t.mu.Unlock()
	if p == nil {
		return repeat(transports.ErrNotConnected, len(ms))
	}
	return p.publish(ctx, ms)
}

func repeat(err error, n int) []error {
	errs := make([]error, n)
	for i := range errs {
		errs[i] = err
	}
	return errs
}

// RetryMax implements transports.Retrier.
func (t *transport) RetryMax() time.Duration { return t.broker.RetryMax.Duration }

func (t *transport) setPublisher(p *publisher) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.publisher = p
}

// Run implements transports.Transport. It holds two connections: the broker stops those who publish when it is short of memory or disk, and
// those who only listen go on. The second one is made when there is something to say.
func (t *transport) Run(ctx context.Context, subs []transports.Subscription, r transports.Receiver) error {
	l, err := t.dial(ctx, "listens")
	if err != nil {
		return preferCause(ctx, err)
	}
	defer l.close()
	c, err := t.consumer(ctx, l, subs)
	if err != nil {
		return preferCause(ctx, err)
	}
	defer c.save()
	p := newPublisher(t)
	defer p.close()
	if t.role == transports.Master { // whose first announcement is not to wait, and whose rights are seen at once
		if err := p.connect(ctx); err != nil {
			return preferCause(ctx, err)
		}
	}
	t.setPublisher(p)
	defer t.setPublisher(nil)
	t.counts.connects.Add(1)
	r.Connected()
	return preferCause(ctx, c.receive(ctx, r))
}

// preferCause returns why ctx ended if it did, err otherwise.
func preferCause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
