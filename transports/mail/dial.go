package mail

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"os"
	"strings"
	"time"

	"github.com/wneessen/go-mail/smtp"

	"github.com/mirrorbus/mirrorbus/transports"
)

// A link is a connection to the server that takes our mail.
type link struct {
	*smtp.Client
	raw     net.Conn
	timeout time.Duration
	fresh   bool // nothing was sent over it yet
}

// dial connects, greets, and logs in.
func (p *Post) dial(ctx context.Context) (*link, error) {
	raw, err := (&net.Dialer{Timeout: p.Timeout.Duration}).DialContext(ctx, "tcp", p.SMTP)
	if err != nil {
		return nil, fmt.Errorf("mail server: %w", err)
	}
	l := &link{raw: raw, timeout: p.Timeout.Duration, fresh: true}
	defer l.bound(ctx)()
	if err := l.begin(ctx, p); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		l.cut()
		return nil, fmt.Errorf("mail server %s: %w", p.SMTP, err)
	}
	return l, nil
}

func (l *link) begin(ctx context.Context, p *Post) error {
	if err := l.extend(); err != nil {
		return err
	}
	conf, err := p.tlsFor(p.SMTP)
	if err != nil {
		return transports.Permanent(err)
	}
	conn := l.raw
	if p.TLS == tlsImplicit {
		secure := tls.Client(l.raw, conf)
		if err := secure.HandshakeContext(ctx); err != nil {
			return fmt.Errorf("TLS: %w", err)
		}
		conn = secure
	}
	if l.Client, err = smtp.NewClient(conn, conf.ServerName); err != nil {
		return fmt.Errorf("it greets with: %w", err)
	}
	l.SkipSMTPUTF8(true)
	helo := p.Helo
	if helo == "" {
		if helo, err = os.Hostname(); err != nil {
			helo = "localhost"
		}
	}
	if err := l.Hello(helo); err != nil {
		return fmt.Errorf("EHLO %s: %w", helo, err)
	}
	if p.TLS == tlsStart {
		if offered, _ := l.Extension("STARTTLS"); !offered {
			return transports.Permanent(errors.New(`it offers no STARTTLS; write another port, tls = "implicit", or for a server on this host tls = "none"`))
		}
		if err := l.StartTLS(conf); err != nil {
			return fmt.Errorf("STARTTLS: %w", err)
		}
	}
	return l.login(p, conf.ServerName)
}

// login tells the server who we are, if it is to know.
func (l *link) login(p *Post, host string) error {
	if p.User == "" {
		return nil
	}
	_, ways := l.Extension("AUTH")
	plain := p.TLS == tlsNone // which the operator has written; the library would refuse
	var how smtp.Auth
	switch {
	case strings.Contains(" "+ways+" ", " PLAIN "):
		how = smtp.PlainAuth("", p.User, p.Password.Reveal(), host, plain)
	case strings.Contains(" "+ways+" ", " LOGIN "):
		how = smtp.LoginAuth(p.User, p.Password.Reveal(), host, plain)
	default:
		return transports.Permanent(fmt.Errorf("it offers no way to log in as %s that is known here (PLAIN, LOGIN), but %.60q", p.User, ways))
	}
	err := l.Auth(how)
	var answer *textproto.Error
	if errors.As(err, &answer) && answer.Code/100 == 5 {
		return transports.Permanent(fmt.Errorf("it does not let %s in: %w; see user and password_file", p.User, err))
	}
	if err != nil {
		return fmt.Errorf("log in as %s: %w", p.User, err)
	}
	return nil
}

// bound ends the connection when ctx does, until the function it returns is called.
func (l *link) bound(ctx context.Context) (done func()) {
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		l.cut()
		close(closed)
	})
	return func() {
		if !stop() {
			<-closed
		}
	}
}

// extend gives the server its time for the next answer.
func (l *link) extend() error { return l.raw.SetDeadline(time.Now().Add(l.timeout)) }

// cut ends the connection; what still reads or writes says so.
func (l *link) cut() { l.raw.Close() } //nolint:errcheck // it may be closed already

// goodbye is how long the server has to answer that the connection ends.
const goodbye = time.Second

// close ends the connection as it should be.
func (l *link) close() {
	if l.raw.SetDeadline(time.Now().Add(goodbye)) == nil {
		l.Quit() //nolint:errcheck // it may have ended already
	}
	l.cut()
}
