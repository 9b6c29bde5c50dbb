package bench_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/mirrorbus/mirrorbus/transports"
)

// What the bare client does: the same exchange, stream, prefetch, window, acknowledgements and confirmations, and nothing else.
const (
	bareExchange = "mb.announce"
	bareKey      = "announce." + module
	bareStream   = "mb.log"
	bareWindow   = 100
)

func (r *broker) bareDial(ctx context.Context) (*amqp091.Connection, func(), error) {
	c, err := amqp091.DialConfig(r.node.URL(), amqp091.Config{
		SASL: []amqp091.Authentication{&amqp091.PlainAuth{Username: r.node.User, Password: r.node.Password}}, Vhost: r.bareIn, Heartbeat: 10 * time.Second,
	})
	if err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { c.Close() }) //nolint:errcheck // ends what uses it
	return c, func() {
		stop()
		c.Close() //nolint:errcheck // it may have ended
	}, nil
}

// again runs f until ctx ends, with the waits of transports.Keep.
func again(ctx context.Context, f func() error) {
	pause := transports.Pause{Min: time.Second, Max: time.Minute}
	for ctx.Err() == nil {
		began := time.Now()
		f() //nolint:errcheck // it always ends with an error
		select {
		case <-ctx.Done():
		case <-time.After(pause.Lost(time.Since(began), time.Minute, false, rand.Float64())):
		}
	}
}

// bareListener reads the stream, and goes on where it was when it has lost its connection.
func (r *broker) bareListener(l *listener) {
	var offset any = "next"
	again(l.side.ctx, func() error {
		c, done, err := r.bareDial(l.side.ctx)
		if err != nil {
			return err
		}
		defer done()
		ch, err := c.Channel()
		if err != nil {
			return err
		}
		if err := ch.Qos(100, 0, false); err != nil {
			return err
		}
		in, err := ch.Consume(bareStream, "", false, false, false, false, amqp091.Table{"x-stream-offset": offset})
		if err != nil {
			return err
		}
		l.side.connect(1)
		defer l.side.connect(-1)
		for d := range in {
			l.hear(d.MessageId)
			if n, ok := d.Headers["x-stream-offset"].(int64); ok {
				offset = n + 1
			}
			if err := d.Ack(false); err != nil {
				return err
			}
		}
		return transports.ErrClosed
	})
}

// A barePublisher keeps a channel in confirm mode.
type barePublisher struct {
	broker *broker

	mu sync.Mutex
	ch *amqp091.Channel // nil while there is none
}

func (p *barePublisher) set(ch *amqp091.Channel) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ch = ch
}

func (p *barePublisher) run(ctx context.Context) {
	again(ctx, func() error {
		c, done, err := p.broker.bareDial(ctx)
		if err != nil {
			return err
		}
		defer done()
		ch, err := c.Channel()
		if err != nil {
			return err
		}
		if _, err := ch.QueueDeclarePassive(bareStream, true, false, false, false, amqp091.Table{"x-queue-type": "stream"}); err != nil {
			return err // a node that has just started confirms before it has found the stream, and loses what it confirmed
		}
		if err := ch.Confirm(false); err != nil {
			return err
		}
		closed := ch.NotifyClose(make(chan *amqp091.Error, 1))
		p.set(ch)
		defer p.set(nil)
		<-closed
		return transports.ErrClosed
	})
}

var errUnconfirmed = errors.New("not confirmed")

// publish keeps so many messages on their way to the broker as the window holds.
func (p *barePublisher) publish(_ context.Context, ms []transports.Message) []error {
	p.mu.Lock()
	ch := p.ch
	p.mu.Unlock()
	errs := make([]error, len(ms))
	if ch == nil {
		for i := range errs {
			errs[i] = transports.ErrNotConnected
		}
		return errs
	}
	flight := make([]*amqp091.DeferredConfirmation, len(ms))
	settle := func(i int) {
		if errs[i] == nil && !flight[i].Wait() {
			errs[i] = errUnconfirmed
		}
	}
	for i, m := range ms {
		if i >= bareWindow {
			settle(i - bareWindow)
		}
		flight[i], errs[i] = ch.PublishWithDeferredConfirm(bareExchange, bareKey, true, false,
			bareMessage(m))
	}
	for i := max(0, len(ms)-bareWindow); i < len(ms); i++ {
		settle(i)
	}
	return errs
}

// bareMessage has the properties and headers that other programs may rely on (TOPOLOGY.md), so that both sides give the broker the same work.
func bareMessage(m transports.Message) amqp091.Publishing {
	now := time.Now().UTC()
	return amqp091.Publishing{
		Headers: amqp091.Table{
			"cloudEvents_specversion": "1.0", "cloudEvents_id": m.ID, "cloudEvents_type": "org.mirrorbus.announce.v1",
			"cloudEvents_source": "urn:mirrorbus:master", "cloudEvents_subject": module, "cloudEvents_time": now.Format(time.RFC3339),
		},
		ContentType: "application/vnd.mirrorbus", DeliveryMode: amqp091.Persistent, MessageId: m.ID, Timestamp: now, Type: "org.mirrorbus.announce.v1",
		AppId: "mirrorbus", Body: m.Body,
	}
}
