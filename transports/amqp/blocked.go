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

// ErrBlocked is returned while a broker is short of memory or disk and takes no messages.
var ErrBlocked = errors.New("the broker takes no messages at the moment")

// unblockTimeout is how long a message waits for a broker that takes none at the moment, before the sender is told.
const unblockTimeout = 5 * time.Second

// A gate knows whether the broker takes messages. A broker that has begun to refuse them says so once, then reads nothing more from the
// connection: what is written to it stays in the sockets between.
type gate struct {
	mu     sync.Mutex
	reason string        // why it is shut; "" while it is open
	opened chan struct{} // closed while the gate is open
	closed chan struct{} // closed while it is shut
}

func newGate() *gate {
	g := &gate{opened: make(chan struct{}), closed: make(chan struct{})}
	close(g.opened)
	return g
}

// follow does as the broker says, until the connection has ended.
func (g *gate) follow(blocks <-chan amqp091.Blocking) {
	for b := range blocks {
		g.mu.Lock()
		switch {
		case b.Active && g.reason == "":
			g.reason, g.opened = cmp.Or(b.Reason, "no reason given"), make(chan struct{})
			close(g.closed)
		case !b.Active && g.reason != "":
			g.reason, g.closed = "", make(chan struct{})
			close(g.opened)
		}
		g.mu.Unlock()
	}
}

// shut is closed while the gate is shut.
func (g *gate) shut() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.closed
}

// pass waits a little for an open gate, or for done.
func (g *gate) pass(ctx context.Context, done <-chan struct{}) error {
	g.mu.Lock()
	opened, reason := g.opened, g.reason
	g.mu.Unlock()
	late := time.NewTimer(unblockTimeout)
	defer late.Stop()
	select {
	case <-opened:
		return nil
	case <-done:
		return nil
	case <-late.C:
	case <-ctx.Done():
	}
	return fmt.Errorf("%w: %w (%s)", transports.ErrNotConnected, ErrBlocked, reason)
}
