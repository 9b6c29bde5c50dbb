package amqp

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/mirrorbus/mirrorbus/transports"
)

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
	gate    *gate // whether the broker takes messages

	mu       sync.Mutex
	returned map[string]bool
}

func (t *transport) outward(ctx context.Context) (*outward, error) {
	l, err := t.dial(ctx, "publishes")
	if err != nil {
		return nil, err
	}
	if t.role == transports.Master {
		if err := l.takesAnnouncements(ctx); err != nil {
			l.close()
			return nil, preferCause(ctx, err)
		}
	}
	defer l.answers(ctx, "publish")()
	o := &outward{link: l, gate: newGate(), returned: map[string]bool{}}
	if err := o.prepare(t.broker.Window); err != nil {
		l.close()
		return nil, preferCause(ctx, err)
	}
	return o, nil
}

// takesAnnouncements tells whether the streams are there. A node that has just started confirms what is published before it has found its streams,
// without writing it into them, if any other queue took it.
func (l *link) takesAnnouncements(ctx context.Context) error {
	for _, name := range []string{logStream, embargoStream} {
		if _, err := l.count(ctx, name); err != nil {
			return err
		}
	}
	return nil
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
	go o.gate.follow(o.NotifyBlocked(make(chan amqp091.Blocking, 16)))
	return nil
}

// usable tells whether messages can be given to it.
func (o *outward) usable() bool { return o.reason.Load() == nil && !o.IsClosed() && !o.ch.IsClosed() }

// settle waits until the broker has said what became of a message. A broker that is silent may not have gone, so the connection is given up: what
// it was given is then unknown, and is sent again on another one.
func (o *outward) settle(ctx context.Context, s *sent, late <-chan time.Time) {
	for {
		select {
		case <-s.Done():
			return
		case <-late:
			o.giveUp(fmt.Errorf("broker %s: %w: it has not confirmed the message within the time allowed", o.server, transports.ErrClosed))
		case <-ctx.Done():
			o.abandon()
		case <-o.gate.shut():
			err := o.gate.pass(ctx, s.Done())
			if err == nil {
				continue
			}
			o.giveUp(fmt.Errorf("broker %s: %w", o.server, err))
		}
		<-s.Done()
		return
	}
}

// abandon gives the connection up because one who published does not wait any longer: the library cannot take back what it was given.
func (o *outward) abandon() {
	o.giveUp(fmt.Errorf("broker %s: %w: the connection was given up with another message", o.server, transports.ErrClosed))
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
		return fmt.Errorf("broker %s refuses it: a queue is full, or has no leader at the moment", o.server)
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
