package hub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"unicode"

	"golang.org/x/crypto/ssh"

	"github.com/mirrorbus/mirrorbus/transports"
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
	dog := newWatchdog(p.s.conf.WriteTimeout.Duration, func() { p.end(errSlow) })
	err := p.run(ctx, ch, dog, line)
	if ctx.Err() != nil {
		return // the connection or the channel has ended, so nobody listens
	}
	status := uint32(0)
	if err != nil {
		e := &exit{exitTryLate, err}
		errors.As(err, &e)
		status = e.status
		fmt.Fprintf(watchedWriter{ch.Stderr(), dog}, "mirrorbus hub: %v\n", err) //nolint:errcheck // the connection has ended then
	}
	ch.SendRequest("exit-status", false, ssh.Marshal(exitStatus{status})) //nolint:errcheck // the connection has ended then
	ch.Close()                                                            //nolint:errcheck // the connection has ended then
}

func (p *peer) run(ctx context.Context, ch ssh.Channel, dog *watchdog, line string) error {
	out := watchedWriter{ch, dog}
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
		wants, err := parseWants(words[2:])
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
	lines := lineReader(ch)
	half := newWatchdog(p.s.conf.WriteTimeout.Duration, func() { p.end(errHalf) })
	for {
		line, err := readLine(lines) // as long as it takes: keepalives find who is gone
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return &exit{exitData, err}
		}
		m, size, err := parseHeader(line)
		if err != nil {
			return &exit{exitData, err}
		}
		if m.Body, err = readBody(lines, size, half); err != nil {
			return &exit{exitData, err}
		}
		m.From = p.name
		answer := "ok " + m.ID + "\n"
		if err := p.take(ctx, m); err != nil {
			answer = fmt.Sprintf("err %s %s\n", m.ID, oneLine(err.Error()))
		}
		if _, err := io.WriteString(out, answer); err != nil {
			return err
		}
	}
}

func (p *peer) take(ctx context.Context, m transports.Message) error {
	if err := p.allowed(m.Topic, false); err != nil {
		return err
	}
	return p.in.take(ctx, m)
}

// oneLine makes text fit a line of the protocol, and a terminal.
func oneLine(text string) string {
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) { // among them the C1 controls, which some terminals obey
			return ' '
		}
		return r
	}, text)
	const most = maxLine - len("err \n") - 64 - 1 // 64 for the ID
	return strings.ToValidUTF8(text[:min(len(text), most)], "")
}

// An intake hands the messages of all peers to the receiver, one at a time.
type intake struct {
	topics  []transports.Topic
	receive func(transports.Message) error // under the context of Run, so that a peer that goes away does not disturb it
	fail    context.CancelCauseFunc        // ends Run

	mu sync.Mutex
}

// take returns nil when the receiver has m. ctx is the peer's and only looked at before.
func (in *intake) take(ctx context.Context, m transports.Message) error {
	if !slices.Contains(in.topics, m.Topic) {
		return fmt.Errorf("nobody here takes %s", m.Topic)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := in.receive(m); err != nil {
		in.fail(fmt.Errorf("receive from %s: %w", m.From, err))
		return errors.New("the hub could not take it now, see its log")
	}
	return nil
}
