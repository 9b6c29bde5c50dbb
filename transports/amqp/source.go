package amqp

import (
	"context"
	"fmt"

	amqp091 "github.com/rabbitmq/amqp091-go"
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

// whyEnded says why a source ended.
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
