package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"

	"github.com/mirrorbus/mirrorbus/transports"
)

// maxUnanswered is how many messages may be on their way to the hub without an answer.
const maxUnanswered = 64

// An Outgoing is the publishing half of a connection. A message that was begun is written to its end even if its publisher gives up: there is
// no way to take half of one back.
type Outgoing struct {
	in      chan *parcel
	pending chan *parcel // written or being written; the hub answers in this order
	done    <-chan struct{}
}

// A parcel is a message on its way.
type parcel struct {
	m      transports.Message
	answer chan error // takes one without blocking
}

// NewOutgoing returns one that ends with done.
func NewOutgoing(done <-chan struct{}) *Outgoing {
	return &Outgoing{in: make(chan *parcel), pending: make(chan *parcel, maxUnanswered), done: done}
}

// Publish hands m in and waits for the answer.
func (o *Outgoing) Publish(ctx context.Context, m transports.Message) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	p := &parcel{m, make(chan error, 1)}
	select {
	case o.in <- p:
	case <-o.done:
		return transports.ErrNotConnected
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case err := <-p.answer:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-o.done:
	}
	select {
	case err := <-p.answer: // both had come
		return err
	default:
		return fmt.Errorf("publish on %s: %w before it answered", m.Topic, transports.ErrClosed)
	}
}

// Write writes what is handed in to the other side, each message by one call. The error is never nil.
func (o *Outgoing) Write(out io.Writer) error {
	for {
		select {
		case p := <-o.in:
			select {
			case o.pending <- p:
			case <-o.done:
				return transports.ErrClosed
			}
			if _, err := out.Write(Encode(p.m)); err != nil {
				return err
			}
		case <-o.done:
			return transports.ErrClosed
		}
	}
}

// Answered takes a line with which the other side answers the oldest message that it has not answered.
func (o *Outgoing) Answered(line string) error {
	select {
	case p := <-o.pending:
		err, ok := ParseAnswer(line, p.m)
		if !ok {
			return fmt.Errorf("%w: %.80q is no answer to message %s", ErrFrame, line, p.m.ID)
		}
		p.answer <- err
		return nil
	default:
		return fmt.Errorf("%w: %.80q answers nothing", ErrFrame, line)
	}
}

// Answer makes the line that answers a message: that it was taken, or why not.
func Answer(id string, refusal error) string {
	if refusal == nil {
		return "ok " + id + "\n"
	}
	return fmt.Sprintf("err %s %s\n", id, OneLine(refusal.Error()))
}

// ParseAnswer reads "ok ID" and "err ID TEXT".
func ParseAnswer(line string, m transports.Message) (refusal error, ok bool) {
	if line == "ok "+m.ID {
		return nil, true
	}
	if text, found := strings.CutPrefix(line, "err "+m.ID+" "); found {
		return fmt.Errorf("the other side refuses the message on %s: %w", m.Topic, errors.New(OneLine(text))), true
	}
	return nil, false
}

// OneLine makes text fit a line of the protocol, and a terminal.
func OneLine(text string) string {
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) { // among them the C1 controls, which some terminals obey
			return ' '
		}
		return r
	}, text)
	const most = MaxLine - len("err \n") - 64 - 1 // 64 for the ID
	return strings.ToValidUTF8(text[:min(len(text), most)], "")
}
