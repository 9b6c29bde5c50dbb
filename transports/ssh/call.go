package ssh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/line"
	"github.com/mirrorbus/mirrorbus/transports/wire"
)

// pushCommand is what the mirror's `mirrorbus receive` is asked for.
const pushCommand = "push v1"

// Reasons for which the master ends a connection.
var (
	errSlow = errors.New("slow: more waits for this mirror than is kept in memory, or it takes nothing; it may resume")
	errHalf = errors.New("a message stopped half way")
)

// A caller is the transport to one mirror. It is run again and again by Keep.
type caller struct {
	m  *Master
	at MirrorAddress
	in *wire.Intake
}

// Publish implements transports.Transport. Nothing is published to one mirror.
func (c *caller) Publish(context.Context, transports.Message) error { return errors.ErrUnsupported }

// Run implements transports.Transport: it calls the mirror, and hands over and takes what comes until the connection ends.
func (c *caller) Run(ctx context.Context, _ []transports.Subscription, r transports.Receiver) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	if err := c.m.dialling.Acquire(ctx, 1); err != nil {
		return context.Cause(ctx)
	}
	release := sync.OnceFunc(func() { c.m.dialling.Release(1) })
	defer release()
	l, err := c.dial(ctx)
	if err != nil {
		return line.Prefer(ctx, err)
	}
	defer l.Close()
	closed := l.EndWith(ctx)
	var parts sync.WaitGroup
	err = c.talk(ctx, l, r, fail, release, &parts)
	fail(err)
	<-closed
	parts.Wait()
	return context.Cause(ctx)
}

// talk starts the session and serves it. What it starts in parts ends with ctx.
func (c *caller) talk(ctx context.Context, l *line.Line, r transports.Receiver, fail context.CancelCauseFunc, settled func(), parts *sync.WaitGroup) error {
	far, err := start(l, pushCommand)
	if err != nil {
		return err
	}
	wants, err := far.wants()
	if err != nil {
		return far.why(err)
	}
	for _, w := range wants {
		if err := c.allowed(w.Topic, true); err != nil {
			return transports.Permanent(err)
		}
	}
	if err := l.Settled(); err != nil {
		return err
	}
	settled()
	out := &whole{w: wire.Writer{W: far.Input, Dog: wire.NewWatchdog(c.m.conf.WriteTimeout.Duration, func() { fail(errSlow) })}}
	queue := wire.NewQueue(int(c.m.conf.QueueSize), func() { fail(errSlow) })
	c.m.feed.Join(queue, wants) // before the backlog is read, so that nothing falls between
	defer c.m.feed.Leave(queue, wants)
	parts.Go(func() {
		serving := wire.Serving{Queue: queue, Wants: wants, Backlog: c.m.env.Backlog, Beat: c.m.conf.Keepalive.Duration}
		fail(serving.To(ctx, out))
	})
	parts.Go(func() {
		wire.KeepAlive(ctx, l.Client, c.m.conf.Keepalive.Duration, func() error { return nil }, func(err error) { fail(fmt.Errorf("%s: %w", c.at.Address, err)) })
	})
	r.Connected()
	return far.why(c.listen(ctx, far, out, wire.NewWatchdog(c.m.conf.WriteTimeout.Duration, func() { fail(errHalf) })))
}

func (c *caller) allowed(t transports.Topic, subscribe bool) error {
	if c.m.env.Allowed == nil {
		return nil
	}
	return c.m.env.Allowed(c.at.Name, t, subscribe)
}

// listen takes what the mirror says: answers to what it was sent, and messages, which it answers.
func (c *caller) listen(ctx context.Context, far remote, out io.Writer, half *wire.Watchdog) error {
	for {
		line, err := wire.ReadLine(far.Lines) // as long as it takes: keepalives find who is gone
		if err != nil {
			return err
		}
		switch word, _, _ := strings.Cut(line, " "); word {
		case "ok":
			c.m.count("taken")
			continue
		case "err":
			c.m.count("refused")
			c.m.log.Warn("the mirror did not take a message", "mirror", c.at.Name, "answer", wire.OneLine(line))
			continue
		}
		m, size, err := wire.ParseHeader(line)
		if err != nil {
			return err
		}
		if m.Body, err = wire.ReadBody(far.Lines, size, half); err != nil {
			return err
		}
		m.From = c.at.Name
		if _, err := io.WriteString(out, wire.Answer(m.ID, c.take(ctx, m))); err != nil {
			return err
		}
	}
}

func (c *caller) take(ctx context.Context, m transports.Message) error {
	if err := c.allowed(m.Topic, false); err != nil {
		return err
	}
	return c.in.Take(ctx, m)
}

// whole lets several write to one stream, each call of Write as a whole.
type whole struct {
	mu sync.Mutex
	w  io.Writer
}

// Write implements io.Writer.
func (w *whole) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.w.Write(b)
}

// A remote is the program that runs on the mirror.
type remote struct{ *line.Remote }

func start(l *line.Line, command string) (remote, error) {
	r, err := l.Start(command)
	return remote{r}, err
}

// wants reads what the mirror subscribes to, and where it stands.
func (r remote) wants() ([]wire.Want, error) {
	line, err := wire.ReadLongLine(r.Lines)
	if err != nil {
		return nil, err
	}
	words := strings.Split(line, " ")
	if len(words) < 2 || words[0] != "subscribe" || words[1] != "v1" {
		return nil, transports.Permanent(fmt.Errorf("%w: the mirror's first line is %.80q: does its authorized_keys run `mirrorbus receive`?", wire.ErrFrame, line))
	}
	return wire.ParseWants(words[2:])
}

// why finds out why the output of the program has ended: how it did is told right after that.
func (r remote) why(err error) error {
	end, ended := r.Ended(err)
	switch {
	case !ended:
		return err
	case end == nil:
		return transports.ErrClosed
	case end.ExitStatus() == 127 || end.ExitStatus() == 126:
		return transports.Permanent(fmt.Errorf("the mirror cannot run `mirrorbus receive`: %s", r.Said))
	}
	return fmt.Errorf("%w: exit status %d: %s", transports.ErrClosed, end.ExitStatus(), r.Said)
}
