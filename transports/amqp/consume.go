package amqp

import (
	"context"
	"errors"
	"fmt"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/mirrorbus/mirrorbus/transports"
)

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
