package amqp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"
	"golang.org/x/sync/semaphore"

	"github.com/mirrorbus/mirrorbus/transports"
)

// idle is how long a mirror keeps the connection that it has nothing to say on.
const idle = time.Minute

// A publisher holds the connection for publishing, which is made when there is something to publish, and made anew when it is lost.
type publisher struct {
	t      *transport
	window *semaphore.Weighted // of the messages on their way
	cancel context.CancelFunc  // ends an attempt to connect that is under way
	life   context.Context     // is done when the publisher has been closed

	mu      sync.Mutex
	out     *outward // nil while there is none
	ended   bool
	resting *time.Timer
	busy    int // publish calls under way
}

func newPublisher(t *transport) *publisher {
	p := &publisher{t: t, window: semaphore.NewWeighted(int64(t.broker.Window))}
	p.life, p.cancel = context.WithCancel(context.Background())
	return p
}

// connect makes the connection unless there is one.
func (p *publisher) connect(ctx context.Context) error {
	_, err := p.outward(ctx)
	return err
}

// outward is the connection.
func (p *publisher) outward(ctx context.Context) (*outward, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return nil, transports.ErrNotConnected
	}
	if p.out != nil && p.out.usable() {
		return p.out, nil
	}
	if p.out != nil {
		p.out.close()
		p.out = nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(p.life, cancel)()
	out, err := p.t.outward(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", transports.ErrNotConnected, err)
	}
	p.out = out
	return out, nil
}

// drop closes a connection that can no longer be trusted with anything.
func (p *publisher) drop(o *outward) {
	p.mu.Lock()
	defer p.mu.Unlock()
	o.close()
	if p.out == o {
		p.out = nil
	}
}

// close ends the connection for good.
func (p *publisher) close() {
	p.cancel()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	if p.resting != nil {
		p.resting.Stop()
	}
	if p.out != nil {
		p.out.close()
		p.out = nil
	}
}

// begin and end stand around what uses the connection; a mirror's is closed when it has not been used for some time.
func (p *publisher) begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.busy++
	if p.resting != nil {
		p.resting.Stop()
	}
}

func (p *publisher) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.busy--; p.busy > 0 || p.ended || p.t.role == transports.Master {
		return
	}
	p.resting = time.AfterFunc(idle, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.busy == 0 && p.out != nil {
			p.out.close()
			p.out = nil
		}
	})
}

// publish sends messages, in their order, and waits until the broker has said of each that it has it.
func (p *publisher) publish(ctx context.Context, ms []transports.Message) []error {
	p.begin()
	defer p.end()
	out, err := p.outward(ctx)
	if err == nil {
		err = out.gate.pass(ctx, nil)
	}
	if err != nil {
		return repeat(preferCause(ctx, err), len(ms))
	}
	errs := p.sendAll(ctx, out, ms)
	trusted := true
	for i, err := range errs {
		p.count(err)
		if err != nil {
			errs[i] = preferCause(ctx, err)
			trusted = trusted && errors.Is(err, errReturned)
		}
	}
	if !trusted { // a channel that began when a quorum queue had no leader is refused everything for as long as it is there
		p.drop(out)
	}
	return errs
}

// sendAll gives messages to the broker, as many at a time as there is room for in the window, and waits for its answers. After a failure nothing
// more is sent.
func (p *publisher) sendAll(ctx context.Context, out *outward, ms []transports.Message) []error {
	stop := context.AfterFunc(ctx, out.abandon) // a write to the broker knows no context
	defer stop()
	way := &underway{p: p, out: out, late: time.NewTimer(p.t.broker.ConfirmTimeout.Duration)}
	defer way.late.Stop()
	for i, m := range ms {
		err := way.room(ctx)
		if err == nil {
			err = way.send(m)
		}
		if err != nil {
			way.settle(ctx, 0)
			return append(way.errs, repeat(err, len(ms)-i)...)
		}
	}
	way.settle(ctx, 0)
	return way.errs
}

// underway are the messages of one call that are on their way, and the outcome of those before them.
type underway struct {
	p     *publisher
	out   *outward
	late  *time.Timer // fires when the broker has been silent for too long
	sent  []*sent
	errs  []error // of the first ones, in order
	fault error   // the first of errs that concerns the connection
}

// room waits until there is room in the window for one more. It is shared with other calls, which may have all of it.
func (u *underway) room(ctx context.Context) error {
	for !u.p.window.TryAcquire(1) {
		if len(u.sent) == 0 {
			if err := u.p.window.Acquire(ctx, 1); err != nil {
				return context.Cause(ctx)
			}
			break
		}
		u.settle(ctx, len(u.sent)-1)
	}
	if u.fault != nil {
		u.p.window.Release(1)
	}
	return u.fault
}

// send gives one message to the broker. The place in the window is taken already.
func (u *underway) send(m transports.Message) error {
	exchange, key := u.p.t.route(m.Topic)
	c, err := u.out.ch.PublishWithDeferredConfirm(exchange, key, true, false, u.p.t.envelope(m))
	if err != nil {
		u.p.window.Release(1)
		return cmp.Or(u.out.failure(), explain(u.out.server, err))
	}
	u.sent = append(u.sent, &sent{c, key + " " + m.ID})
	return nil
}

// settle waits for the outcome of the oldest messages until no more than so many are on their way.
func (u *underway) settle(ctx context.Context, left int) {
	for len(u.sent) > left {
		s := u.sent[0]
		u.sent = u.sent[1:]
		u.out.settle(ctx, s, u.late.C)
		err := u.out.became(s)
		u.p.window.Release(1)
		u.errs = append(u.errs, err)
		if err != nil && !errors.Is(err, errReturned) && u.fault == nil {
			u.fault = err
		}
		u.late.Reset(u.p.t.broker.ConfirmTimeout.Duration)
	}
}

func (p *publisher) count(err error) {
	switch {
	case err == nil:
		p.t.counts.confirmed.Add(1)
	case errors.Is(err, errReturned):
		p.t.counts.returned.Add(1)
	default:
		p.t.counts.unconfirmed.Add(1)
	}
}

// route is where a message on a topic goes.
func (t *transport) route(topic transports.Topic) (exchange, key string) {
	if topic.Kind == transports.Report {
		return reportExchange, reportKey(t.env.Self, topic.Module)
	}
	return announceExchange, announceKey(topic.Module, t.env.Allowed != nil && t.env.Allowed("", topic, true) != nil)
}

// envelope is a message with the attributes of CloudEvents 1.0 beside it, for consumers that know nothing of mirrorbus. They are copies, for
// routing: what counts is the signed text in the body.
func (t *transport) envelope(m transports.Message) amqp091.Publishing {
	now := time.Now().UTC()
	user := "" // the broker vouches for the sender; of a user that several share that would say nothing
	if t.broker.User == t.env.Self {
		user = t.broker.User
	}
	return amqp091.Publishing{
		Headers: amqp091.Table{
			"cloudEvents_specversion": "1.0",
			"cloudEvents_id":          m.ID,
			"cloudEvents_type":        "org.mirrorbus." + string(m.Topic.Kind) + ".v1",
			"cloudEvents_source":      "urn:mirrorbus:" + t.env.Self,
			"cloudEvents_subject":     m.Topic.Module,
			"cloudEvents_time":        now.Format(time.RFC3339),
		},
		ContentType: contentType, DeliveryMode: amqp091.Persistent, MessageId: m.ID, Timestamp: now,
		Type: "org.mirrorbus." + string(m.Topic.Kind) + ".v1", AppId: "mirrorbus", UserId: user, Body: m.Body,
	}
}

// contentType is that of a body: a signed line, and after it a path set or nothing; event/FORMAT.md.
const contentType = "application/vnd.mirrorbus"
