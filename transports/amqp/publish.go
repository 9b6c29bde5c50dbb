package amqp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
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
	errs := make([]error, 0, len(ms))
	for part := range slices.Chunk(ms, p.t.broker.Window) {
		errs = append(errs, p.publishPart(ctx, part)...)
	}
	return errs
}

// publishPart is publish for no more than the window holds.
func (p *publisher) publishPart(ctx context.Context, ms []transports.Message) []error {
	if err := p.window.Acquire(ctx, int64(len(ms))); err != nil {
		return repeat(context.Cause(ctx), len(ms))
	}
	defer p.window.Release(int64(len(ms)))
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

// sendAll gives messages to the broker and waits for its answers.
func (p *publisher) sendAll(ctx context.Context, out *outward, ms []transports.Message) []error {
	stop := context.AfterFunc(ctx, out.abandon) // a write to the broker knows no context
	defer stop()
	errs := make([]error, len(ms))
	waits := make([]*sent, 0, len(ms))
	for i, m := range ms {
		s, err := p.send(out, m)
		if err != nil {
			copy(errs[i:], repeat(err, len(ms)-i))
			break
		}
		waits = append(waits, s)
	}
	late := time.NewTimer(p.t.broker.ConfirmTimeout.Duration)
	defer late.Stop()
	for i, s := range waits {
		out.settle(ctx, s, late.C)
		errs[i] = out.became(s)
	}
	return errs
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

// send gives one message to the broker.
func (p *publisher) send(out *outward, m transports.Message) (*sent, error) {
	exchange, key := p.t.route(m.Topic)
	c, err := out.ch.PublishWithDeferredConfirm(exchange, key, true, false, p.t.envelope(m))
	if err != nil {
		return nil, cmp.Or(out.failure(), explain(out.server, err))
	}
	return &sent{c, key + " " + m.ID}, nil
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
