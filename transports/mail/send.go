package mail

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/textproto"
	"strconv"
	"strings"

	"github.com/mirrorbus/mirrorbus/transports"
)

// Errors of one mail. What the server has not answered is neither: the connection is broken, and whether the mail was taken is not known.
var (
	errRefused = errors.New("refused")      // for good, for this recipient
	errLater   = errors.New("not now")      // to be tried again
	errSender  = errors.New("sender")       // it was the sender that was not taken
	errBroken  = errors.New("disconnected") // nothing more can be said over this connection
)

// A sender sends one mail after the other over one connection.
type sender struct {
	post *Post
	one  chan struct{} // holds a token while somebody sends
	link *link         // nil while there is none

	named bool // the server takes no mail without a sender
}

// lock waits for its turn.
func (s *sender) lock(ctx context.Context) error {
	select {
	case s.one <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *sender) unlock() { <-s.one }

// hangUp ends the connection, if nobody uses it.
func (s *sender) hangUp() {
	select {
	case s.one <- struct{}{}:
		s.drop((*link).close)
		s.unlock()
	default:
	}
}

func (s *sender) drop(how func(*link)) {
	if s.link != nil {
		how(s.link)
		s.link = nil
	}
}

// send sends one mail; from "" is the null sender, to which nothing comes back. The caller has the lock. A server may end a connection that was silent for a
// while, which is seen when it is used, so the first error of one is not the last word.
func (s *sender) send(ctx context.Context, from, to string, mail []byte) error {
	null := from == ""
	if null && s.named {
		from = s.post.From
	}
	for {
		if s.link == nil {
			l, err := s.post.dial(ctx)
			if err != nil {
				return fmt.Errorf("%w: %w", errBroken, err)
			}
			s.link = l
		}
		fresh := s.link.fresh
		s.link.fresh = false
		err := s.transact(ctx, from, to, mail)
		switch {
		case errors.Is(err, errBroken):
			s.drop((*link).cut)
			if fresh || ctx.Err() != nil {
				return err
			}
		case errors.Is(err, errRefused) && from == "": // it may be the sender: many servers say so only at the recipient
			from = s.post.From
		default:
			s.named = s.named || null && from != "" && err == nil
			return err
		}
	}
}

func (s *sender) transact(ctx context.Context, from, to string, mail []byte) error {
	l := s.link
	defer l.bound(ctx)()
	if offered, size := l.Extension("SIZE"); offered {
		if limit, err := strconv.Atoi(size); err == nil && limit > 0 && limit < len(mail) {
			return fmt.Errorf("%w: the mail has %d bytes, the server takes %d", transports.ErrTooLarge, len(mail), limit)
		}
	}
	for _, step := range []func() error{
		func() error {
			if err := l.Mail("<" + from + ">"); err != nil {
				return fmt.Errorf("%w <%s>: %w", errSender, from, err)
			}
			return nil
		},
		func() error { return l.Rcpt("<" + to + ">") },
		func() error { return l.data(mail) },
	} {
		if err := l.extend(); err != nil {
			return fmt.Errorf("%w: %w", errBroken, err)
		}
		if err := step(); err != nil {
			return l.judge(ctx, err)
		}
	}
	return nil
}

func (l *link) data(mail []byte) error {
	w, err := l.Data()
	if err != nil {
		return err
	}
	for len(mail) > 0 { // each piece has its time
		n := min(len(mail), 64<<10)
		if err := l.extend(); err != nil {
			return err
		}
		if _, err := w.Write(mail[:n]); err != nil {
			return err
		}
		mail = mail[n:]
	}
	if err := l.extend(); err != nil {
		return err
	}
	return w.Close()
}

// judge says what an error means. What the server has refused is taken back, so that the connection can go on.
func (l *link) judge(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", errBroken, context.Cause(ctx))
	}
	var answer *textproto.Error
	if !errors.As(err, &answer) || answer.Code == 421 || errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: %w", errBroken, err)
	}
	if reset := errors.Join(l.extend(), l.Reset()); reset != nil {
		l.cut() // the next one sees it
	}
	switch {
	case answer.Code == 552 && strings.HasPrefix(answer.Msg, "5.3.4"): // a full mailbox is 552 5.2.2
		return fmt.Errorf("%w: %w", transports.ErrTooLarge, err)
	case answer.Code/100 == 5:
		return fmt.Errorf("%w: %w", errRefused, err)
	}
	return fmt.Errorf("%w: %w", errLater, err)
}
