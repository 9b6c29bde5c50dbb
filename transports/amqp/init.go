package amqp

import (
	"context"
	"log/slog"

	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/transports"
)

// Init makes what is missing of a topology in the vhost that b names. Its user needs the right to configure there. Running it again changes
// nothing; what is there and differs is an error.
func Init(ctx context.Context, b Broker, topology Topology) error {
	if err := topology.check(); err != nil {
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
	l, err := t.dial(ctx, "init")
	if err != nil {
		return err
	}
	defer l.close()
	stop := context.AfterFunc(ctx, l.cut) // the library's calls know no context
	defer stop()
	return preferCause(ctx, topology.declare(l))
}
