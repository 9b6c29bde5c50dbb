package hub

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/mirrorbus/mirrorbus/transports"
)

// maxUnanswered is how many messages may be on their way to the hub without an answer.
const maxUnanswered = 64

// An outgoing is the publishing half of a connection. A message that was begun is written to its end even if its publisher gives up: there is
// no way to take half of one back.
type outgoing struct {
	in      chan *parcel
	pending chan *parcel // written or being written; the hub answers in this order
	done    <-chan struct{}
}

// A parcel is a message on its way.
type parcel struct {
	m      transports.Message
	answer chan error // takes one without blocking
}

// newOutgoing returns one that ends with done.
func newOutgoing(done <-chan struct{}) *outgoing {
	return &outgoing{in: make(chan *parcel), pending: make(chan *parcel, maxUnanswered), done: done}
}

// publish hands m in and waits for the answer.
func (o *outgoing) publish(ctx context.Context, m transports.Message) error {
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

// write writes the parcels to the hub. The error is never nil.
func (o *outgoing) write(to *remote, dog *watchdog) error {
	out := watchedWriter{to.input, dog}
	for {
		select {
		case p := <-o.in:
			select {
			case o.pending <- p:
			case <-o.done:
				return transports.ErrClosed
			}
			if _, err := out.Write(encode(p.m)); err != nil {
				return fmt.Errorf("write to hub: %w", err)
			}
		case <-o.done:
			return transports.ErrClosed
		}
	}
}

// answers reads the hub's answers. The error is never nil.
func (o *outgoing) answers(from *remote) error {
	for {
		line, err := readLine(from.lines)
		if err != nil {
			return from.why(err)
		}
		select {
		case p := <-o.pending:
			err, ok := parseAnswer(line, p.m)
			if !ok {
				return fmt.Errorf("%w: %.80q is no answer to message %s", errFrame, line, p.m.ID)
			}
			p.answer <- err
		default:
			return fmt.Errorf("%w: %.80q answers nothing", errFrame, line)
		}
	}
}

// parseAnswer reads "ok ID" and "err ID TEXT".
func parseAnswer(line string, m transports.Message) (refusal error, ok bool) {
	if line == "ok "+m.ID {
		return nil, true
	}
	if text, found := strings.CutPrefix(line, "err "+m.ID+" "); found {
		return fmt.Errorf("the hub refuses the message on %s: %w", m.Topic, errors.New(oneLine(text))), true
	}
	return nil, false
}
