package hub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/wire"
)

const usage = `usage: subscribe v1 [announce/MODULE[@POSITION]]...   messages as they are published, those after POSITION first
       publish v1                                    messages to the master, from standard input
       ping                                          pong
       help                                          this text
Messages are "msg ID KIND/MODULE BYTES", a newline, that many bytes and a newline.
`

// Exit statuses of commands, as in sysexits.h.
const (
	exitUsage   = 64
	exitData    = 65
	exitNoTry   = 77 // not allowed; trying again does not help
	exitTryLate = 75
)

// An exit ends a command with a status that is not 0; the error goes to the peer's standard error.
type exit struct {
	status uint32
	err    error
}

func (e *exit) Error() string { return e.err.Error() }
func (e *exit) Unwrap() error { return e.err }

// exec runs a command line on a channel and closes it.
func (p *peer) exec(ctx context.Context, ch ssh.Channel, line string) {
	dog := wire.NewWatchdog(p.s.conf.WriteTimeout.Duration, func() { p.end(errSlow) })
	err := p.run(ctx, ch, dog, line)
	if ctx.Err() != nil {
		return // the connection or the channel has ended, so nobody listens
	}
	status := uint32(0)
	if err != nil {
		e := &exit{exitTryLate, err}
		errors.As(err, &e)
		status = e.status
		fmt.Fprintf(wire.Writer{W: ch.Stderr(), Dog: dog}, "mirrorbus hub: %v\n", err) //nolint:errcheck // the connection has ended then
	}
	ch.SendRequest("exit-status", false, ssh.Marshal(exitStatus{status})) //nolint:errcheck // the connection has ended then
	ch.Close()                                                            //nolint:errcheck // the connection has ended then
}

func (p *peer) run(ctx context.Context, ch ssh.Channel, dog *wire.Watchdog, line string) error {
	out := wire.Writer{W: ch, Dog: dog}
	words := strings.Split(line, " ")
	switch {
	case line == "ping":
		_, err := io.WriteString(out, "pong\n")
		return err
	case line == "help":
		_, err := io.WriteString(out, usage)
		return err
	case line == "publish v1":
		return p.publish(ctx, ch, out)
	case len(words) >= 2 && words[0] == "subscribe" && words[1] == "v1":
		wants, err := wire.ParseWants(words[2:])
		if err != nil {
			return &exit{exitUsage, fmt.Errorf("subscribe: %w", err)}
		}
		return p.subscribe(ctx, out, wants)
	}
	return &exit{exitUsage, fmt.Errorf("command %.80q is not known\n%s", line, strings.TrimSuffix(usage, "\n"))}
}

// allowed says whether the peer may do this.
func (p *peer) allowed(t transports.Topic, subscribe bool) error {
	if p.s.env.Allowed == nil {
		return nil
	}
	return p.s.env.Allowed(p.name, t, subscribe)
}

// publish takes messages from the peer until it ends its input, and answers each.
func (p *peer) publish(ctx context.Context, ch ssh.Channel, out io.Writer) error {
	lines := wire.Lines(ch)
	half := wire.NewWatchdog(p.s.conf.WriteTimeout.Duration, func() { p.end(errHalf) })
	for {
		line, err := wire.ReadLine(lines) // as long as it takes: keepalives find who is gone
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return &exit{exitData, err}
		}
		m, size, err := wire.ParseHeader(line)
		if err != nil {
			return &exit{exitData, err}
		}
		if m.Body, err = wire.ReadBody(lines, size, half); err != nil {
			return &exit{exitData, err}
		}
		m.From = p.name
		if _, err := io.WriteString(out, wire.Answer(m.ID, p.take(ctx, m))); err != nil {
			return err
		}
	}
}

func (p *peer) take(ctx context.Context, m transports.Message) error {
	if err := p.allowed(m.Topic, false); err != nil {
		return err
	}
	return p.in.Take(ctx, m)
}

// subscribe sends the peer what it has missed and then what is published, until ctx is done.
func (p *peer) subscribe(ctx context.Context, out io.Writer, wants []wire.Want) error {
	for _, w := range wants {
		if err := p.allowed(w.Topic, true); err != nil {
			return &exit{exitNoTry, err}
		}
	}
	queue := wire.NewQueue(int(p.s.conf.QueueSize), func() { p.end(errSlow) })
	if err := p.s.join(p, queue, wants); err != nil { // before the backlog is read, so that nothing falls between
		return &exit{exitUsage, err}
	}
	defer p.s.leave(p, queue, wants)
	err := wire.Serving{Queue: queue, Wants: wants, Backlog: p.s.env.Backlog, Beat: p.s.conf.Keepalive.Duration}.To(ctx, out)
	var backlog *wire.BacklogError
	if errors.As(err, &backlog) {
		p.s.log.Error("cannot replay what a peer has missed", "peer", p.name, "topic", backlog.Topic.String(), "error", backlog.Err)
		return fmt.Errorf("the hub cannot read what was missed on %s, see its log", backlog.Topic)
	}
	return err
}
