package amqp

import (
	"context"
	"errors"
	"fmt"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/mirrorbus/mirrorbus/transports"
)

// A source is one queue or stream that is read.
type source struct {
	name   string
	stream bool
	ch     *amqp091.Channel
	in     <-chan amqp091.Delivery
	closed chan *amqp091.Error // gets why the channel was closed
	gone   chan string         // gets the consumer's name when the broker ends it, as when the queue is deleted

	first  *amqp091.Delivery // was looked at while the source was opened, and is still to be received
	unsaid uint64            // the last delivery that is safe and not yet acknowledged; 0 if there is none
	mark   mark              // of a stream: where we are
	saved  mark              // and where we are as far as the store knows
}

// next is an open source's next delivery, if there is one at this moment.
func (s *source) next() (d amqp091.Delivery, there, open bool) {
	if s.first != nil {
		d, s.first = *s.first, nil
		return d, true, true
	}
	select {
	case d, open = <-s.in:
		return d, open, open
	default:
		return d, false, true
	}
}

// ack tells the broker that everything up to the last delivery is safe. Of a stream it is what lets more come.
func (s *source) ack() error {
	if s.unsaid == 0 {
		return nil
	}
	tag := s.unsaid
	s.unsaid = 0
	return s.ch.Ack(tag, true)
}

// open makes a channel with a consumer on the queue. A source whose position matters is told by offset where to begin.
func (l *link) open(ctx context.Context, name string, prefetch int, offset any) (*source, error) {
	defer l.answers(ctx, "read "+name)()
	ch, err := l.Channel()
	if err != nil {
		return nil, l.explain(err)
	}
	s := &source{name: name, ch: ch, stream: offset != nil,
		closed: ch.NotifyClose(make(chan *amqp091.Error, 1)), gone: ch.NotifyCancel(make(chan string, 1))}
	// Either argument is refused by a queue that is not of the type that it should be.
	args := amqp091.Table{"x-priority": int32(0)}
	if s.stream {
		args = amqp091.Table{"x-stream-offset": offset}
	}
	if err := ch.Qos(prefetch, 0, false); err != nil {
		return nil, l.explain(err)
	}
	if s.in, err = ch.Consume(name, "mirrorbus", false, false, false, false, args); err != nil {
		return nil, l.explain(err)
	}
	return s, nil
}

// why says why a source ended.
func (l *link) whyEnded(s *source) error {
	select {
	case tag := <-s.gone:
		if tag != "" {
			return fmt.Errorf("broker %s: the queue %s was deleted, or has moved to another node", l.server, s.name)
		}
	default:
	}
	select {
	case err := <-s.closed:
		if err != nil {
			return l.explain(err)
		}
	default:
	}
	return l.why()
}

// A consumer hands what its sources deliver to a receiver.
type consumer struct {
	t       *transport
	l       *link
	topics  map[transports.Topic]bool
	sources []*source
	logged  bool // that something was dropped
}

// consumer checks that the broker is what it should be and begins to read.
func (t *transport) consumer(ctx context.Context, l *link, subs []transports.Subscription) (*consumer, error) {
	c := &consumer{t: t, l: l, topics: make(map[transports.Topic]bool, len(subs))}
	for _, s := range subs {
		c.topics[s.Topic] = true
	}
	if err := l.checkVersion(ctx); err != nil {
		return nil, err
	}
	var streams []string
	var queue string
	switch {
	case t.role == transports.Master:
		queue = reportQueue
	case t.mirror.Queue == readOwn:
		queue = inboxPrefix + t.env.Self
	case t.mirror.Embargoed:
		streams = []string{logStream, embargoStream}
	default:
		streams = []string{logStream}
	}
	for _, name := range streams {
		s, err := t.openStream(ctx, l, name)
		if err != nil {
			return nil, err
		}
		c.sources = append(c.sources, s)
	}
	if queue != "" {
		s, err := l.open(ctx, queue, t.broker.Prefetch, nil)
		if err != nil {
			return nil, err
		}
		c.sources = append(c.sources, s)
	}
	return c, nil
}

// saveAfter is how long a position may be ahead of its store: after a crash as much is heard again.
const saveAfter = time.Second

// receive hands over what comes until something ends.
func (c *consumer) receive(ctx context.Context, r transports.Receiver) error {
	second := (*source)(nil)
	if len(c.sources) > 1 {
		second = c.sources[1]
	}
	var due <-chan time.Time
	for {
		if err := c.drain(ctx, r); err != nil {
			return err
		}
		if due == nil && c.ahead() {
			due = time.After(saveAfter)
		}
		var other <-chan amqp091.Delivery
		if second != nil {
			other = second.in
		}
		var from *source
		var d amqp091.Delivery
		var open bool
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-due:
			due = nil
			if err := c.store(); err != nil {
				return err
			}
			continue
		case d, open = <-c.sources[0].in:
			from = c.sources[0]
		case d, open = <-other:
			from = second
		}
		if !open {
			return c.l.whyEnded(from)
		}
		if err := c.hand(ctx, r, from, d); err != nil {
			return err
		}
	}
}

// ackEvery is how many deliveries are acknowledged together at most.
const ackEvery = 32

// drain hands over all that is there already, then acknowledges it.
func (c *consumer) drain(ctx context.Context, r transports.Receiver) error {
	for busy := true; busy; {
		busy = false
		for _, s := range c.sources {
			for n := 0; n < min(ackEvery, c.t.broker.Prefetch); n++ {
				d, there, open := s.next()
				if !open {
					return c.l.whyEnded(s)
				}
				if !there {
					break
				}
				busy = true
				if err := c.hand(ctx, r, s, d); err != nil {
					return err
				}
			}
			if err := s.ack(); err != nil {
				return c.l.whyEnded(s)
			}
		}
	}
	return nil
}

// hand gives one delivery to the receiver. What can never be received counts as received.
func (c *consumer) hand(ctx context.Context, r transports.Receiver, s *source, d amqp091.Delivery) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	offset, placed := d.Headers["x-stream-offset"].(int64) // of a stream by the broker; in a queue it is whatever the sender wrote
	if s.stream && !placed {
		return transports.Permanent(fmt.Errorf("broker %s: %s is said to be a stream, and its messages have no place", c.l.server, s.name))
	}
	if d.Redelivered {
		c.t.counts.redelivered.Add(1)
	}
	m, err := message(d)
	switch {
	case err != nil:
		c.drop(s, err)
	case !c.topics[m.Topic]:
		c.t.counts.skipped.Add(1)
	default:
		if err := r.Receive(ctx, m); err != nil {
			return fmt.Errorf("receive on %s: %w", m.Topic, err)
		}
		c.t.counts.received.Add(1)
	}
	s.unsaid = d.DeliveryTag
	if s.stream {
		s.mark = markOf(offset, d)
	}
	return nil
}

// drop counts a delivery that is none of ours, and says so once.
func (c *consumer) drop(s *source, err error) {
	c.t.counts.dropped.Add(1)
	if !c.logged {
		c.logged = true
		c.t.env.Log.Warn("message dropped, further ones of this connection are only counted", "queue", s.name, "error", err)
	}
}

// message is what a delivery carries.
func message(d amqp091.Delivery) (transports.Message, error) {
	topic, mirror, err := parseKey(d.RoutingKey)
	m := transports.Message{Topic: topic, ID: d.MessageId, Body: d.Body, From: d.UserId}
	switch {
	case err != nil:
		return m, err
	case topic.Kind != transports.Report:
		return m, nil
	case d.UserId != "" && d.UserId != mirror: // the broker has checked both, unless it is old or the message came from another one
		return m, fmt.Errorf("report of %.80q was sent by the user %.80q", mirror, d.UserId)
	}
	m.From = mirror
	return m, nil
}

// ahead tells whether a position is not stored yet.
func (c *consumer) ahead() bool {
	for _, s := range c.sources {
		if s.mark != s.saved {
			return true
		}
	}
	return false
}

// store stores the positions.
func (c *consumer) store() error {
	var errs []error
	for _, s := range c.sources {
		if s.mark == s.saved {
			continue
		}
		err := c.t.marks.put(s.name, s.mark)
		if err == nil {
			s.saved = s.mark
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// save is store at the end of a Run.
func (c *consumer) save() {
	if err := c.store(); err != nil {
		c.t.env.Log.Error("the position in the log was not stored, some of it will be heard again", "error", err)
	}
}
