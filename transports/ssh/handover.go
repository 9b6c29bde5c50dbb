package ssh

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"

	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/wire"
)

// A handover is one connection to the socket of a mirror.
type handover struct {
	m     *Mirror
	conn  net.Conn
	lines *bufio.Reader
	fail  context.CancelCauseFunc
	from  string // whom the other end says that it works for
	out   *wire.Outgoing
	parts sync.WaitGroup
}

var (
	errStuck = errors.New("the other side takes no more of a message")
	errMute  = errors.New("nothing came for three times as long as it should")
)

// greeting is the first line on the socket: who hands over.
const greeting = "hand v1 "

// Greet writes the first line on the socket of a mirror. from is the address that messages come from, for the log.
func Greet(out io.Writer, from string) error {
	_, err := fmt.Fprintf(out, "%s%s\n", greeting, strings.ReplaceAll(wire.OneLine(from), " ", "_"))
	return err
}

// begin hears who is there, and says what is wanted.
func (h *handover) begin(subs []transports.Subscription) error {
	line, err := h.line(h.watchdog(errMute))
	if err != nil {
		return err
	}
	from, ok := strings.CutPrefix(line, greeting)
	if !ok {
		return fmt.Errorf("%w: the first line is %.80q", wire.ErrFrame, line)
	}
	h.from = from
	command, err := wire.SubscribeCommand(subs)
	if err != nil {
		return err
	}
	_, err = io.WriteString(h.writer(), command+"\n")
	return err
}

func (h *handover) watchdog(why error) *wire.Watchdog {
	return wire.NewWatchdog(h.m.conf.WriteTimeout.Duration, func() { h.fail(why) })
}

// line reads the next line. Who says nothing for too long is ended, as there are not many places.
func (h *handover) line(dog *wire.Watchdog) (line string, err error) {
	err = dog.Watch(func() (err error) {
		line, err = wire.ReadLine(h.lines)
		return err
	})
	return line, err
}

func (h *handover) writer() io.Writer { return wire.Writer{W: h.conn, Dog: h.watchdog(errStuck)} }

// talk takes what comes, and sends reports, until the connection ends.
func (h *handover) talk(ctx context.Context, r transports.Receiver, in *wire.Intake) error {
	ready, err := h.line(h.watchdog(errMute))
	if err != nil {
		return err
	}
	beat, err := wire.ParseReady(ready)
	if err != nil {
		return err
	}
	out := &whole{w: h.writer()}
	h.out = wire.NewOutgoing(ctx.Done())
	h.parts.Go(func() { h.fail(h.out.Write(out)) })
	h.m.set(h, true)
	defer h.m.set(h, false)
	r.Connected()
	dog := wire.NewWatchdog(3*beat, func() { h.fail(errMute) })
	for {
		if err := h.next(ctx, in, out, dog); err != nil {
			return err
		}
	}
}

// next takes one line, and the message that it may announce.
func (h *handover) next(ctx context.Context, in *wire.Intake, out io.Writer, dog *wire.Watchdog) error {
	line, err := h.line(dog)
	if err != nil {
		return err
	}
	switch word, _, _ := strings.Cut(line, " "); word {
	case "beat":
		return nil
	case "ok", "err":
		return h.out.Answered(line)
	}
	m, size, err := wire.ParseHeader(line)
	if err != nil {
		return err
	}
	if m.Body, err = wire.ReadBody(h.lines, size, dog); err != nil {
		return err
	}
	m.From = h.from
	_, err = io.WriteString(out, wire.Answer(m.ID, in.Take(ctx, m)))
	return err
}
