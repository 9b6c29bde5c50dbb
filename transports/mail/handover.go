package mail

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	gosmtp "github.com/emersion/go-smtp"
)

// Errors of HandOver.
var (
	ErrNobody     = errors.New("the agent does not answer")
	ErrNotTaken   = errors.New("refused")          // and would be again
	ErrNotNow     = errors.New("not taken now")    // it is to be brought again
	ErrUnreadable = errors.New("cannot read mail") // standard input
)

// handOverTime bounds one handing over; whoever brings a mail waits no longer either.
const handOverTime = 4 * time.Minute

// HandOver brings a mail to the process that takes mail at a door, a path or host:port, as a mail server does. from is the sender on its envelope.
func HandOver(ctx context.Context, door, from string, mail io.Reader) error {
	raw, err := io.ReadAll(io.LimitReader(mail, maxMail+1)) // one that is cut here is too large there
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnreadable, err)
	}
	ctx, cancel := context.WithTimeout(ctx, handOverTime)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, doorNetwork(door), door)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNobody, err)
	}
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		conn.Close() //nolint:errcheck // everything that still reads or writes says so
		close(closed)
	})
	defer func() {
		if !stop() {
			<-closed
		}
		conn.Close() //nolint:errcheck // what was to be said is said
	}()
	return judgeAnswer(bring(conn, from, raw))
}

func bring(conn net.Conn, from string, raw []byte) error {
	c := gosmtp.NewClientLMTP(conn)
	if checkAddress("from", from) != nil {
		from = ""
	}
	if err := c.Hello("localhost"); err != nil {
		return err
	}
	if err := c.Mail(from, nil); err != nil {
		return err
	}
	if err := c.Rcpt("mirrorbus@localhost", nil); err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := w.Write(raw); err != nil {
		return err
	}
	_, err = w.CloseWithLMTPResponse()
	return err
}

func judgeAnswer(err error) error {
	var answer *gosmtp.SMTPError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &answer) && answer.Code/100 == 5:
		return fmt.Errorf("%w: %s", ErrNotTaken, oneLine(answer.Message))
	case errors.As(err, &answer):
		return fmt.Errorf("%w: %s", ErrNotNow, oneLine(answer.Message))
	}
	return fmt.Errorf("%w: %w", ErrNobody, err)
}
