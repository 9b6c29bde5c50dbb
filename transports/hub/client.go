package hub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/line"
	"github.com/mirrorbus/mirrorbus/transports/wire"
)

// A Client is the mirror side: it dials the hub, subscribes, and publishes over the same connection.
type Client struct {
	conf ClientConfig
	env  transports.Env
	log  *slog.Logger

	mu  sync.Mutex
	out *wire.Outgoing // nil while not connected
}

// NewClient checks the configuration. env needs Signer.
func NewClient(c ClientConfig, env transports.Env) (*Client, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if env.Signer == nil {
		return nil, errors.New("the hub knows its peers by their keys, and this process has none")
	}
	log := env.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Client{conf: c, env: env, log: log}, nil
}

// Run implements transports.Transport.
func (c *Client) Run(ctx context.Context, subs []transports.Subscription, r transports.Receiver) error {
	command, err := wire.SubscribeCommand(subs)
	if err != nil {
		return transports.Permanent(err)
	}
	outer := ctx
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	l, err := c.dial(ctx)
	if err != nil {
		return line.Prefer(outer, err)
	}
	defer l.Close()
	closed := l.EndWith(ctx)
	var parts sync.WaitGroup
	err = c.work(ctx, l, command, r, fail, &parts)
	fail(err) // ends the parts; if something else failed before, that is the cause
	c.setOut(nil)
	<-closed
	parts.Wait()
	return context.Cause(ctx)
}

// work subscribes and receives on the link until it ends. What it starts in parts ends with ctx.
func (c *Client) work(
	ctx context.Context, l *line.Line, command string, r transports.Receiver, fail context.CancelCauseFunc, parts *sync.WaitGroup,
) error {
	pub, err := start(l, "publish v1")
	if err != nil {
		return err
	}
	sub, err := start(l, command)
	if err != nil {
		return err
	}
	beat, err := sub.ready()
	if err != nil {
		return err
	}
	if err := l.Settled(); err != nil {
		return err
	}
	out := wire.NewOutgoing(ctx.Done())
	parts.Go(func() {
		fail(out.Write(wire.Writer{W: pub.Input, Dog: wire.NewWatchdog(writeTimeout, func() { fail(errStuck) })}))
	})
	parts.Go(func() { fail(pub.answers(out)) })
	parts.Go(func() {
		wire.KeepAlive(ctx, l.Client, c.conf.Keepalive.Duration, func() error { return nil }, func(err error) { fail(fmt.Errorf("hub %s: %w", c.conf.Address, err)) })
	})
	c.setOut(out)
	r.Connected()
	return c.receive(ctx, sub, r, wire.NewWatchdog(3*beat, func() { fail(errMute) }))
}

const writeTimeout = time.Minute // without any progress of a message to the hub

var (
	errStuck = errors.New("the hub takes no more of a message")
	errMute  = errors.New("the hub has sent nothing for three times as long as it should")
)

// receive hands what comes to r.
func (c *Client) receive(ctx context.Context, sub remote, r transports.Receiver, dog *wire.Watchdog) error {
	for {
		m, err := sub.next(dog)
		if err != nil {
			return err
		}
		m.From = c.conf.Address
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := r.Receive(ctx, m); err != nil {
			return fmt.Errorf("receive on %s: %w", m.Topic, err)
		}
	}
}

// Publish implements transports.Transport. It returns when the hub has answered.
func (c *Client) Publish(ctx context.Context, m transports.Message) error {
	if err := capabilities(transports.Mirror).Check(m); err != nil {
		return err
	}
	c.mu.Lock()
	out := c.out
	c.mu.Unlock()
	if out == nil {
		return transports.ErrNotConnected
	}
	return out.Publish(ctx, m)
}

func (c *Client) setOut(out *wire.Outgoing) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out = out
}

// A remote is a command that runs on the hub.
type remote struct{ *line.Remote }

func start(l *line.Line, command string) (remote, error) {
	r, err := l.Start(command)
	return remote{r}, err
}

// ready waits until the subscription stands and returns how often the hub writes at least.
func (r remote) ready() (time.Duration, error) {
	line, err := wire.ReadLine(r.Lines)
	if err != nil {
		return 0, r.why(err)
	}
	return wire.ParseReady(line)
}

// answers takes the hub's answers to what is published. The error is never nil.
func (r remote) answers(out *wire.Outgoing) error {
	for {
		line, err := wire.ReadLine(r.Lines)
		if err != nil {
			return r.why(err)
		}
		if err := out.Answered(line); err != nil {
			return err
		}
	}
}

// next reads up to the end of the next message.
func (r remote) next(dog *wire.Watchdog) (m transports.Message, err error) {
	line, size := "beat", 0
	for line == "beat" {
		err = dog.Watch(func() error {
			line, err = wire.ReadLine(r.Lines)
			return err
		})
		if err != nil {
			return m, r.why(err)
		}
	}
	if m, size, err = wire.ParseHeader(line); err != nil {
		return m, err
	}
	if m.Body, err = wire.ReadBody(r.Lines, size, dog); err != nil {
		return m, r.why(err)
	}
	return m, nil
}

// why finds out why the command's output has ended: how the command did is told right after that.
func (r remote) why(err error) error {
	end, ended := r.Ended(err)
	switch {
	case !ended:
		return err
	case end == nil:
		return transports.ErrClosed
	case end.Signal() != "":
		return fmt.Errorf("%w: %s", transports.ErrClosed, wire.OneLine(end.Msg()))
	case end.ExitStatus() == exitNoTry || end.ExitStatus() == exitUsage || end.ExitStatus() == exitData:
		return transports.Permanent(fmt.Errorf("the hub refuses: %s", r.Said))
	}
	return fmt.Errorf("%w: %s", transports.ErrClosed, r.Said)
}
