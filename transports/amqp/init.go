package amqp

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/transports"
)

// Init makes what is missing of a topology in the vhost that b names. Its user needs the right to configure there. Running it again changes
// nothing; what is there and differs is an error.
func Init(ctx context.Context, b Broker, topology Topology) error {
	if err := topology.Check(); err != nil {
		return config.Fault("", err.Error(), "")
	}
	t := &transport{role: transports.Master, env: transports.Env{Self: "init", Log: slog.New(slog.DiscardHandler)}, broker: b}
	if err := b.Validate(); err != nil {
		return err
	}
	var err error
	if t.tls, err = b.tlsConfig(); err != nil {
		return err
	}
	stop := time.Now().Add(startTimeout)
	for {
		err = t.declare(ctx, topology)
		if err == nil || !starting(err) || time.Now().After(stop) {
			return err
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// startTimeout is how long a node that has just started may take until it can make queues.
const startTimeout = 20 * time.Second

// starting tells whether a broker says what one says of which parts are not up yet.
func starting(err error) bool {
	var a *amqp091.Error
	return errors.As(err, &a) && (a.Code == amqp091.InternalError || a.Code == amqp091.NotFound && strings.Contains(a.Reason, "is down or inaccessible"))
}

// declare makes a topology over a connection of its own.
func (t *transport) declare(ctx context.Context, topology Topology) error {
	l, err := t.dial(ctx, "init")
	if err != nil {
		return err
	}
	defer l.close()
	defer context.AfterFunc(ctx, l.cut)() // the library's calls know no context
	return preferCause(ctx, topology.declare(l))
}
