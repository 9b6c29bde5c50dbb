package mail

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	gosmtp "github.com/emersion/go-smtp"

	"github.com/mirrorbus/mirrorbus/internal/control"
	"github.com/mirrorbus/mirrorbus/transports"
)

// A door is where mail servers of this host hand over mail, by LMTP (RFC 2033).
type door struct {
	t  *transport
	in *intake
	l  net.Listener

	mu      sync.Mutex
	closing bool
	open    map[*visit]bool
}

// openDoor listens. Anybody on the host may come: a mail server does so under a user of its own, and what counts is signed.
func openDoor(t *transport, in *intake) (*door, error) {
	d := &door{t: t, in: in, open: map[*visit]bool{}}
	var err error
	if strings.HasPrefix(t.post.LMTP, "/") {
		if d.l, err = control.Listen(t.post.LMTP); err == nil {
			err = os.Chmod(t.post.LMTP, 0o666)
		}
	} else {
		d.l, err = net.Listen("tcp", t.post.LMTP)
	}
	if err != nil {
		return nil, fmt.Errorf("take mail on %s: %w", t.post.LMTP, err)
	}
	return d, nil
}

// serve serves those who come, until ctx is done. When it returns all have gone: each is told what becomes of the mail that it has just brought.
func (d *door) serve(ctx context.Context) error {
	s := gosmtp.NewServer(gosmtp.BackendFunc(func(*gosmtp.Conn) (gosmtp.Session, error) { return &session{d: d}, nil }))
	s.LMTP, s.Domain, s.MaxRecipients = true, "mirrorbus", 100
	s.MaxLineLength = 2 * maxMail // what receive --mail hands over may be one line
	s.WriteTimeout = d.t.post.Timeout.Duration
	s.ErrorLog = complaints{d.t.log}
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		d.shut()
		close(closed)
	})
	err := s.Serve(d)
	if !stop() {
		<-closed
	}
	d.shut()
	if gone := s.Shutdown(context.WithoutCancel(ctx)); gone != nil && !errors.Is(gone, net.ErrClosed) {
		err = errors.Join(err, gone)
	}
	return fmt.Errorf("take mail on %s: %w", d.t.post.LMTP, err)
}

// shut lets nobody in any more, and hears nobody.
func (d *door) shut() {
	d.l.Close() //nolint:errcheck // it was only listening
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closing = true
	for v := range d.open {
		v.Conn.SetReadDeadline(time.Now()) //nolint:errcheck // it is closed then
	}
}

// Accept implements net.Listener. One for whom there is no place is turned away.
func (d *door) Accept() (net.Conn, error) {
	for {
		conn, err := d.l.Accept()
		if err != nil {
			return nil, err
		}
		v := &visit{Conn: conn, d: d, until: time.Now().Add(longestVisit)}
		if d.letIn(v) {
			return v, nil
		}
		d.t.count("turned_away")
		conn.Close() //nolint:errcheck // it is not wanted
	}
}

func (d *door) letIn(v *visit) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closing || len(d.open) >= d.t.post.MaxSessions {
		return false
	}
	d.open[v] = true
	return true
}

// Close implements net.Listener.
func (d *door) Close() error { return d.l.Close() }

// Addr implements net.Listener.
func (d *door) Addr() net.Addr { return d.l.Addr() }

// longestVisit is how long one may stay: mail servers come again.
const longestVisit = 10 * time.Minute

// A visit is a connection that may be silent only for so long, and may not stay for ever.
type visit struct {
	net.Conn
	d     *door
	until time.Time
}

// Read implements net.Conn.
func (v *visit) Read(b []byte) (int, error) {
	limit := time.Now().Add(v.d.t.post.Timeout.Duration)
	if v.until.Before(limit) {
		limit = v.until
	}
	v.d.mu.Lock()
	if v.d.closing {
		limit = time.Now()
	}
	err := v.Conn.SetReadDeadline(limit)
	v.d.mu.Unlock()
	if err != nil {
		return 0, err
	}
	return v.Conn.Read(b)
}

// SetReadDeadline implements net.Conn. The limits are those of Read.
func (v *visit) SetReadDeadline(time.Time) error { return nil }

// Close implements net.Conn.
func (v *visit) Close() error {
	v.d.mu.Lock()
	delete(v.d.open, v)
	v.d.mu.Unlock()
	return v.Conn.Close()
}

// complaints are what the library says of single connections.
type complaints struct{ log *slog.Logger }

// Printf implements smtp.Logger.
func (c complaints) Printf(format string, args ...any) {
	c.log.Debug("mail session", "error", oneLine(fmt.Sprintf(format, args...)))
}

// Println implements smtp.Logger.
func (c complaints) Println(args ...any) {
	c.log.Debug("mail session", "error", oneLine(fmt.Sprint(args...)))
}

// A session is what one connection says. Whom a mail is for does not matter: the socket is ours.
type session struct {
	d    *door
	from string
}

// Mail implements smtp.Session.
func (s *session) Mail(from string, _ *gosmtp.MailOptions) error {
	s.from = from
	return nil
}

// Rcpt implements smtp.Session.
func (*session) Rcpt(string, *gosmtp.RcptOptions) error { return nil }

// Reset implements smtp.Session.
func (*session) Reset() {}

// Logout implements smtp.Session.
func (*session) Logout() error { return nil }

// later is the answer after which a mail server keeps the mail and comes again.
func later(why string) error {
	return &gosmtp.SMTPError{Code: 451, EnhancedCode: gosmtp.EnhancedCode{4, 3, 0}, Message: why}
}

// Data implements smtp.Session. A mail that is too large is read to its end and dropped, as everything else that is not ours.
func (s *session) Data(r io.Reader) (err error) {
	t := s.d.t
	defer func() {
		if p := recover(); p != nil { // the text is for us, not for whoever has sent the mail
			t.log.Error("a mail could not be read, this is a mistake of the program", "panic", oneLine(fmt.Sprint(p)))
			err = later("internal error")
		}
	}()
	raw, err := io.ReadAll(io.LimitReader(r, maxMail+1))
	if err == nil && len(raw) > maxMail {
		_, err = io.Copy(io.Discard, r)
	}
	switch {
	case errors.Is(err, gosmtp.ErrTooLongLine): // to come again would not help it
		t.count("too_large")
		return nil
	case err != nil: // it is not whole
		return later("the mail did not come whole")
	case len(raw) > maxMail:
		t.count("too_large")
		return nil
	case !t.rates.Allow():
		t.count("too_many")
		return later("too much mail at a time")
	}
	err = s.d.in.take(raw)
	var refusal *transports.Refusal
	switch {
	case errors.As(err, &refusal) && s.known():
		return &gosmtp.SMTPError{Code: 550, EnhancedCode: gosmtp.EnhancedCode{5, 7, 1}, Message: oneLine(refusal.Error())}
	case errors.As(err, &refusal), err == nil:
		return nil
	}
	return later(err.Error())
}

// known tells whether the sender is one of those we send to. Only they are told that a mail was not taken, and only through the mail server that has it.
func (s *session) known() bool {
	return slices.ContainsFunc(s.d.t.post.To, func(to string) bool { return strings.EqualFold(to, s.from) })
}
