package ssh

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/mirrorbus/mirrorbus/transports"
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
		return preferCause(ctx, err)
	}
	defer l.close()
	closed := make(chan struct{})
	context.AfterFunc(ctx, func() {
		l.tcp.Close() //nolint:errcheck // everything that still reads or writes says so
		close(closed)
	})
	var parts sync.WaitGroup
	err = c.talk(ctx, l, r, fail, release, &parts)
	fail(err)
	<-closed
	parts.Wait()
	return context.Cause(ctx)
}

// preferCause returns why ctx ended if it did, err otherwise.
func preferCause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// talk starts the session and serves it. What it starts in parts ends with ctx.
func (c *caller) talk(ctx context.Context, l *line, r transports.Receiver, fail context.CancelCauseFunc, settled func(), parts *sync.WaitGroup) error {
	far, err := start(l, pushCommand)
	if err != nil {
		return fmt.Errorf("%s: %w", c.at.Address, err)
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
	if err := l.tcp.SetDeadline(time.Time{}); err != nil {
		return fmt.Errorf("%s: %w", c.at.Address, err)
	}
	settled()
	out := &whole{w: wire.Writer{W: far.input, Dog: wire.NewWatchdog(c.m.conf.WriteTimeout.Duration, func() { fail(errSlow) })}}
	queue := wire.NewQueue(int(c.m.conf.QueueSize), func() { fail(errSlow) })
	c.m.feed.Join(queue, wants) // before the backlog is read, so that nothing falls between
	defer c.m.feed.Leave(queue, wants)
	parts.Go(func() {
		serving := wire.Serving{Queue: queue, Wants: wants, Backlog: c.m.env.Backlog, Beat: c.m.conf.Keepalive.Duration}
		fail(serving.To(ctx, out))
	})
	parts.Go(func() {
		wire.KeepAlive(ctx, l.client, c.m.conf.Keepalive.Duration, func() error { return nil }, func(err error) { fail(fmt.Errorf("%s: %w", c.at.Address, err)) })
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
func (c *caller) listen(ctx context.Context, far *remote, out io.Writer, half *wire.Watchdog) error {
	for {
		line, err := wire.ReadLine(far.lines) // as long as it takes: keepalives find who is gone
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
		if m.Body, err = wire.ReadBody(far.lines, size, half); err != nil {
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
type remote struct {
	session *ssh.Session
	wait    func() error
	hangUp  func()
	lines   *bufio.Reader // its standard output
	input   io.WriteCloser
	said    *wire.Capped // its standard error
}

// start runs a command on the mirror, which has its own mind about what to run.
func start(l *line, command string) (*remote, error) {
	session, err := l.client.NewSession()
	if err != nil {
		return nil, fmt.Errorf("session: %w", err)
	}
	r := &remote{session: session, said: &wire.Capped{}, hangUp: func() { l.tcp.Close() }} //nolint:errcheck // everything that still reads or writes says so
	r.wait = sync.OnceValue(session.Wait)
	session.Stderr = r.said
	out, err := session.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("session: %w", err)
	}
	if r.input, err = session.StdinPipe(); err != nil {
		return nil, fmt.Errorf("session: %w", err)
	}
	r.lines = wire.Lines(out)
	if err := session.Start(command); err != nil {
		return nil, fmt.Errorf("start %.20q: %w", command, err)
	}
	return r, nil
}

// wants reads what the mirror subscribes to, and where it stands.
func (r *remote) wants() ([]wire.Want, error) {
	line, err := wire.ReadLongLine(r.lines)
	if err != nil {
		return nil, err
	}
	words := strings.Split(line, " ")
	if len(words) < 2 || words[0] != "subscribe" || words[1] != "v1" {
		return nil, transports.Permanent(fmt.Errorf("%w: the mirror's first line is %.80q: does its authorized_keys run `mirrorbus receive`?", wire.ErrFrame, line))
	}
	return wire.ParseWants(words[2:])
}

// farewell is how long the end of the program on the mirror may take to be told.
const farewell = 2 * time.Second

// why finds out why the output of the program has ended: how it did is told right after that.
func (r *remote) why(err error) error {
	if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	late := time.AfterFunc(farewell, r.hangUp)
	err = r.wait()
	late.Stop()
	var end *ssh.ExitError
	switch {
	case !errors.As(err, &end):
		return transports.ErrClosed
	case end.ExitStatus() == 127 || end.ExitStatus() == 126:
		return transports.Permanent(fmt.Errorf("the mirror cannot run `mirrorbus receive`: %s", r.said))
	}
	return fmt.Errorf("%w: exit status %d: %s", transports.ErrClosed, end.ExitStatus(), r.said)
}
