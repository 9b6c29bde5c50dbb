package amqp

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/transports"
)

// A link is one connection to the broker.
type link struct {
	*amqp091.Connection
	raw    net.Conn
	server string
	ended  chan *amqp091.Error // gets why the connection ended, if somebody said, and is closed then
	once   sync.Once
	reason atomic.Pointer[error] // why it was given up, if it was
}

// goodbye is how long the broker has to answer that it closes a connection.
const goodbye = 2 * time.Second

// close ends the connection and what the library started for it.
func (l *link) close() {
	l.once.Do(func() {
		// The library waits for a lock that a write into a full socket may hold, so the socket goes first if the broker does not answer.
		stop := time.AfterFunc(goodbye, l.cut)
		defer stop.Stop()
		l.CloseDeadline(time.Now().Add(goodbye)) //nolint:errcheck // it may have ended already; why was said by who noticed
		l.cut()
	})
	for range l.ended { //nolint:revive // until it is closed, which the library does last
	}
}

// cut ends the connection under the library, which notices.
func (l *link) cut() { l.raw.Close() } //nolint:errcheck // it may be closed already

// giveUp cuts the connection for a reason of ours.
func (l *link) giveUp(reason error) {
	l.reason.CompareAndSwap(nil, &reason)
	l.cut()
}

// explain says what an error means that the library has returned.
func (l *link) explain(err error) error {
	if reason := l.reason.Load(); reason != nil {
		return *reason
	}
	return explain(l.server, err)
}

// answerTimeout is how long the broker may take to answer. A node that has just started may never answer who wants to read a quorum queue of
// which it has no leader yet; asked again it does.
const answerTimeout = 5 * time.Second

// answers bounds what follows until the function it returns is called: the library waits without end.
func (l *link) answers(ctx context.Context, what string) (done func()) {
	late := time.AfterFunc(answerTimeout, func() {
		l.giveUp(fmt.Errorf("broker %s: no answer within %v to: %s", l.server, answerTimeout, what))
	})
	stop := context.AfterFunc(ctx, func() { l.giveUp(context.Cause(ctx)) })
	return func() {
		late.Stop()
		stop()
	}
}

// why says why a link ended of which something was seen to have ended.
func (l *link) why() error {
	select {
	case err := <-l.ended:
		if err != nil {
			return l.explain(err)
		}
	case <-time.After(time.Second): // the library closes it right after what was seen
	}
	return fmt.Errorf("broker %s: %w", l.server, transports.ErrClosed)
}

// dial connects to the first server that answers. purpose is for those who look at the broker's list of connections.
func (t *transport) dial(ctx context.Context, purpose string) (*link, error) {
	var servers []server
	for _, text := range t.broker.Servers {
		s, err := parseServer(text, t.broker.Plaintext)
		if err != nil {
			return nil, transports.Permanent(err)
		}
		servers = append(servers, s)
	}
	if t.broker.Order == orderRandom {
		rand.Shuffle(len(servers), func(i, j int) { servers[i], servers[j] = servers[j], servers[i] })
	}
	var errs []error
	for _, s := range servers {
		l, err := t.dialOne(ctx, s, purpose)
		if err == nil {
			return l, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		errs = append(errs, err)
	}
	err := errors.Join(errs...)
	if !slices.ContainsFunc(errs, func(e error) bool { return !transports.IsPermanent(e) }) {
		err = transports.Permanent(err)
	}
	return nil, err
}

func (t *transport) dialOne(ctx context.Context, s server, purpose string) (_ *link, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, t.broker.DialTimeout.Duration,
		fmt.Errorf("broker %s: no answer within %v; see that the port is that of a RabbitMQ", s.addr, t.broker.DialTimeout.Duration))
	defer cancel()
	defer func() {
		if err != nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
	}()
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.addr)
	if err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	cutOff := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		raw.Close() //nolint:errcheck // it ends the handshake, which says so
		close(cutOff)
	})
	defer func() {
		if !stop() {
			<-cutOff
		}
	}()
	conn, err := t.secure(ctx, s, raw)
	if err != nil {
		return nil, errors.Join(explain(s.addr, err), ignoreClosed(raw.Close()))
	}
	first := &greeting{Conn: conn}
	c, err := amqp091.Open(&deadlined{first, t.broker.WriteTimeout.Duration}, t.login(purpose))
	if err != nil {
		err = cmp.Or(first.stranger(s.addr, s.tls), explain(s.addr, err))
		if c != nil {
			c.Close() //nolint:errcheck // it has failed
		}
		if s.tls && errors.Is(err, transports.ErrClosed) {
			err = cmp.Or(t.lastWord(ctx, s), err)
		}
		return nil, errors.Join(err, ignoreClosed(raw.Close()))
	}
	return &link{Connection: c, raw: raw, server: s.addr, ended: c.NotifyClose(make(chan *amqp091.Error, 1))}, nil
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// secure makes the TLS connection, if there is to be one.
func (t *transport) secure(ctx context.Context, s server, raw net.Conn) (net.Conn, error) {
	if !s.tls {
		return raw, nil
	}
	conf, err := t.tls.load()
	if err != nil {
		return nil, err
	}
	if conf.ServerName == "" {
		conf.ServerName = s.host
	}
	conn := tls.Client(raw, conf)
	return conn, conn.HandshakeContext(ctx)
}

// login is what the library needs to know. It is not told to reconnect: its way would acknowledge messages that were not taken, and lose others.
func (t *transport) login(purpose string) amqp091.Config {
	var how amqp091.Authentication = &amqp091.ExternalAuth{}
	if !t.broker.Password.IsZero() {
		how = &amqp091.PlainAuth{Username: t.broker.User, Password: t.broker.Password.Reveal()}
	}
	return amqp091.Config{
		SASL: []amqp091.Authentication{how}, Vhost: t.broker.VHost, Heartbeat: t.broker.Heartbeat.Duration, ChannelMax: 16, Locale: "en_US",
		Properties: amqp091.Table{
			"product": "mirrorbus", "version": version(), "platform": "Go",
			"connection_name": fmt.Sprintf("mirrorbus %s %s %s", t.role, t.env.Self, purpose),
		},
	}
}

// version is that of the program.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}

// deadlined is a connection each write to which has a time limit: the library has none, and a broker that takes nothing more would hold it for
// ever.
type deadlined struct {
	net.Conn
	limit time.Duration
}

// Write implements net.Conn.
func (d *deadlined) Write(b []byte) (int, error) {
	if err := d.SetWriteDeadline(time.Now().Add(d.limit)); err != nil {
		return 0, err
	}
	return d.Conn.Write(b)
}

// tlsFiles reads the certificates anew for each connection: they are renewed while the process runs.
type tlsFiles struct {
	ca, cert, key, name string
}

func (b *Broker) tlsConfig() (*tlsFiles, error) {
	f := &tlsFiles{ca: string(b.CA), cert: string(b.Certificate), key: string(b.ClientKey), name: b.ServerName}
	_, err := f.load()
	return f, err
}

func (f *tlsFiles) load() (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: f.name}
	if f.ca != "" {
		text, err := os.ReadFile(f.ca)
		if err != nil {
			return nil, config.Fault("ca_file", fmt.Sprint("cannot be read: ", err), "create it or correct the path")
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(text) {
			return nil, config.Fault("ca_file", fmt.Sprintf("names %s, which holds no certificate", f.ca), "give certificates in PEM form")
		}
	}
	if f.cert != "" {
		pair, err := tls.LoadX509KeyPair(f.cert, f.key)
		if err != nil {
			return nil, config.Fault("cert_file", fmt.Sprint("and key_file cannot be used: ", err), "give the certificate and its private key in PEM form")
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	return conf, nil
}
