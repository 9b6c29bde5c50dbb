package irc

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/lrstanley/girc"

	"github.com/mirrorbus/mirrorbus/transports"
)

// connect enters the channel by the first server that lets it.
func (t *transport) connect(ctx context.Context, subs []transports.Subscription) (*session, error) {
	var errs []error
	for _, server := range t.conf.Servers {
		s := newSession(t, server, subs)
		err := s.enter(ctx)
		if err == nil {
			return s, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		errs = append(errs, fmt.Errorf("%s: %w", server, err))
	}
	err := errors.Join(errs...)
	if !slices.ContainsFunc(errs, func(e error) bool { return !transports.IsPermanent(e) }) {
		err = transports.Permanent(err)
	}
	return nil, err
}

// enter connects, registers and joins the channel. When it fails, all of it has ended.
func (s *session) enter(ctx context.Context) (err error) {
	limit := s.t.conf.DialTimeout.Duration
	late := fmt.Errorf("not in the channel within %v (dial_timeout)", limit)
	if s.t.conf.SASL == saslNickServ {
		late = fmt.Errorf("%w: is %s there, and does it log us in to the account %s?", late, s.services(), s.t.conf.Account)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, late)
	defer cancel()
	if s.conn, err = s.dial(ctx); err != nil {
		return preferCause(ctx, err)
	}
	if err := s.conn.say("CAP LS 302"); err != nil { // first of all: the server then waits with the rest until CAP END
		return errors.Join(err, s.conn.Close())
	}
	s.start()
	select {
	case <-s.entered:
		return nil
	case <-s.done:
		err = s.why()
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	s.close()
	return err
}

// dial makes the connection, with TLS if it is to be. The library would wait minutes for a handshake.
func (s *session) dial(ctx context.Context) (*conn, error) {
	conf := &s.t.conf
	host, port, err := conf.address(s.server)
	if err != nil {
		return nil, transports.Permanent(err)
	}
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(host, port))
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: raw, raw: raw, writeTimeout: conf.WriteTimeout.Duration, silence: 2 * conf.Keepalive.Duration, withheld: &s.t.counts.withheld}
	if conf.TLS {
		how, err := conf.tlsConfig(host)
		if err != nil {
			return nil, errors.Join(transports.Permanent(err), raw.Close())
		}
		secured := tls.Client(raw, how)
		if err := secured.HandshakeContext(ctx); err != nil {
			return nil, errors.Join(explainTLS(err), raw.Close())
		}
		c.Conn = secured
	}
	c.in = bufio.NewReaderSize(c.Conn, maxHeard)
	return c, nil
}

func explainTLS(err error) error {
	var record tls.RecordHeaderError
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &record):
		return fmt.Errorf("%w: is this a port with TLS? without it, tls = false", err)
	case errors.As(err, &unknown):
		return transports.Permanent(fmt.Errorf("%w: write who vouches for the server into ca_file", err))
	case errors.As(err, &name):
		return transports.Permanent(fmt.Errorf("%w: write the name that its certificate has into server_name", err))
	case errors.As(err, &invalid):
		return transports.Permanent(err)
	}
	return err
}

// dialed hands the library the connection that there is.
type dialed struct{ c *conn }

// Dial implements girc.Dialer.
func (d dialed) Dial(string, string) (net.Conn, error) { return d.c, nil }

// start has the library read, and the session tend itself. There is one client for each connection: what was queued in it would be said in the next.
func (s *session) start() {
	conf := &s.t.conf
	host, port, _ := conf.address(s.server) //nolint:errcheck // it was dialled
	number, _ := strconv.Atoi(port)         //nolint:errcheck // likewise; the library only looks whether it is one
	client := girc.New(girc.Config{
		Server: host, Port: number, ServerPass: conf.ServerPassword.Reveal(), Nick: s.nick, User: conf.User, Name: conf.RealName, AllowFlood: true, DisableSTS: true,
		PingDelay: -1, // see tend
		RecoverFunc: func(_ *girc.Client, err *girc.HandlerError) {
			s.fail(fmt.Errorf("a line of the server was too much: %w", err))
		},
	})
	client.DisableTracking()
	client.Handlers.Add(girc.ALL_EVENTS, s.on)
	s.parts.dropped = func() { s.t.counts.partsDropped.Add(1) }
	s.running.Go(func() {
		defer close(s.done)
		s.fail(client.DialerConnect(dialed{s.conn}))
		s.conn.Close() //nolint:errcheck // the library has closed it
		s.conn.settle()
	})
	s.running.Go(s.tend)
}

// goodbye is how long the server has to end the connection after we have said that we leave.
const goodbye = 2 * time.Second

// close leaves the network and waits until all of the session has ended. A server that is told lets the nick go at once.
func (s *session) close() {
	s.fail(transports.ErrClosed)
	if s.conn.say("QUIT :leaving") == nil {
		select {
		case <-s.done:
		case <-time.After(goodbye):
		}
	}
	s.conn.Close() //nolint:errcheck // it may be closed already
	s.running.Wait()
}
