package amqp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/mirrorbus/mirrorbus/transports"
)

const (
	// idle is how long a mirror keeps the connection that it has nothing to say on.
	idle = time.Minute

	// unblockTimeout is how long a message waits for a broker that takes none at the moment, before the sender is told.
	unblockTimeout = 5 * time.Second
)

// A publisher holds the connection for publishing, which is made when there is something to publish, and made anew when it is lost.
type publisher struct {
	t      *transport
	window chan struct{} // holds one token for each message on its way

	mu      sync.Mutex
	out     *outward // nil while there is none
	ended   bool
	resting *time.Timer
	busy    int // publish calls under way
}

func newPublisher(t *transport) *publisher {
	return &publisher{t: t, window: make(chan struct{}, t.broker.Window)}
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
	if p.out != nil && !p.out.IsClosed() {
		return p.out, nil
	}
	if p.out != nil {
		p.out.close()
		p.out = nil
	}
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
		err = out.unblocked(ctx)
	}
	if err != nil {
		return repeat(err, len(ms))
	}
	errs := make([]error, len(ms))
	waits := make([]*sent, 0, len(ms))
	for i, m := range ms {
		s, err := p.send(ctx, out, m)
		if err != nil {
			copy(errs[i:], repeat(err, len(ms)-i))
			break
		}
		waits = append(waits, s)
	}
	// The broker may be silent without having gone. What it was given is then unknown, and is sent again on another connection.
	late := time.NewTimer(p.t.broker.ConfirmTimeout.Duration)
	defer late.Stop()
	for i, s := range waits {
		select {
		case <-s.Done():
		case <-late.C:
			out.giveUp(fmt.Errorf("broker %s: %w: it has not confirmed the message within %v", out.server, transports.ErrClosed, p.t.broker.ConfirmTimeout.Duration))
		case <-ctx.Done():
			out.giveUp(context.Cause(ctx))
		}
		<-s.Done()
		errs[i] = out.became(s)
		<-p.window
		p.count(errs[i])
	}
	for _, err := range errs {
		if err != nil {
			p.drop(out)
			break
		}
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

// send gives one message to the broker, once there is room in the window.
func (p *publisher) send(ctx context.Context, out *outward, m transports.Message) (*sent, error) {
	select {
	case p.window <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	exchange, key := p.t.route(m.Topic)
	c, err := out.ch.PublishWithDeferredConfirm(exchange, key, true, false, p.t.envelope(m))
	if err != nil {
		<-p.window
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

// sent is a message on its way to the broker.
type sent struct {
	*amqp091.DeferredConfirmation
	name string // by which the broker returns it
}

// errReturned is the error of a message that the broker has no queue for.
var errReturned = errors.New("the broker has no queue for it: run `mirrorbus amqp init`")

// outward is a connection with a channel for publishing.
type outward struct {
	*link
	ch      *amqp091.Channel
	closed  chan *amqp091.Error
	returns chan amqp091.Return
	blocks  chan amqp091.Blocking

	mu       sync.Mutex
	returned map[string]bool
	blocked  string        // why the broker takes nothing at the moment; "" if it does
	free     chan struct{} // is closed when it takes something again; nil while it does
}

func (t *transport) outward(ctx context.Context) (*outward, error) {
	l, err := t.dial(ctx, "publishes")
	if err != nil {
		return nil, err
	}
	defer l.answers(ctx, "publish")()
	o := &outward{link: l, returned: map[string]bool{}}
	if err := o.prepare(t.broker.Window); err != nil {
		l.close()
		return nil, preferCause(ctx, err)
	}
	return o, nil
}

func (o *outward) prepare(window int) (err error) {
	if o.ch, err = o.Channel(); err != nil {
		return o.explain(err)
	}
	if err := o.ch.Confirm(false); err != nil {
		return o.explain(err)
	}
	o.closed = o.ch.NotifyClose(make(chan *amqp091.Error, 1))
	o.returns = o.ch.NotifyReturn(make(chan amqp091.Return, 2*window)) // the library waits where there is no room
	o.blocks = o.NotifyBlocked(make(chan amqp091.Blocking, 16))
	go o.watch()
	return nil
}

// watch keeps in mind whether the broker takes messages, until the connection has ended.
func (o *outward) watch() {
	for b := range o.blocks {
		o.mu.Lock()
		switch {
		case b.Active && o.free == nil:
			o.blocked, o.free = cmp.Or(b.Reason, "no reason given"), make(chan struct{})
		case !b.Active && o.free != nil:
			close(o.free)
			o.blocked, o.free = "", nil
		}
		o.mu.Unlock()
	}
}

// ErrBlocked is returned while a broker is short of memory or disk and takes no messages.
var ErrBlocked = errors.New("the broker takes no messages at the moment")

// unblocked waits a little for a broker that takes no messages: giving it one would hold the connection up.
func (o *outward) unblocked(ctx context.Context) error {
	o.mu.Lock()
	free, reason := o.free, o.blocked
	o.mu.Unlock()
	if free == nil {
		return nil
	}
	late := time.NewTimer(unblockTimeout)
	defer late.Stop()
	select {
	case <-free:
		return nil
	case <-late.C:
	case <-ctx.Done():
	}
	return fmt.Errorf("%w: %w (%s)", transports.ErrNotConnected, ErrBlocked, reason)
}

// became says what became of a message that was sent, once the broker has answered or the connection has ended.
func (o *outward) became(s *sent) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for more := true; more; { // a return comes before the confirmation
		select {
		case r, open := <-o.returns:
			more = open
			if open {
				o.returned[r.RoutingKey+" "+r.MessageId] = true
			}
		default:
			more = false
		}
	}
	switch {
	case o.returned[s.name]:
		delete(o.returned, s.name)
		return errReturned
	case s.Acked():
		return nil
	}
	if err := o.failure(); err != nil {
		return err
	}
	if !o.ch.IsClosed() {
		return fmt.Errorf("broker %s refuses it: a queue is full", o.server)
	}
	return fmt.Errorf("broker %s: %w before it had confirmed the message", o.server, transports.ErrClosed)
}

// failure is why the channel was closed, nil if it was not or nobody said.
func (o *outward) failure() error {
	if reason := o.reason.Load(); reason != nil {
		return *reason
	}
	select {
	case err := <-o.closed:
		if err != nil {
			reason := explain(o.server, err)
			o.reason.CompareAndSwap(nil, &reason)
			return *o.reason.Load()
		}
	default:
	}
	return nil
}
