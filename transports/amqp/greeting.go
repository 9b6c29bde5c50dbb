package amqp

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/mirrorbus/mirrorbus/transports"
)

// A greeting is a connection whose first bytes are kept, and the first error in their place: they tell what is on the other side if it is no
// broker that lets us in. The library tells of many such errors only that there was one.
type greeting struct {
	net.Conn

	mu    sync.Mutex
	first []byte
	err   error
}

const greetingBytes = 80

// Read implements net.Conn.
func (g *greeting) Read(b []byte) (int, error) {
	n, err := g.Conn.Read(b)
	g.mu.Lock()
	defer g.mu.Unlock()
	if room := greetingBytes - len(g.first); room > 0 {
		g.first = append(g.first, b[:min(n, room)]...)
	}
	g.err = cmp.Or(g.err, err)
	return n, err
}

// stranger says who answers in place of a broker that speaks AMQP 0-9-1, nil if one seems to. secret is whether TLS is spoken.
func (g *greeting) stranger(server string, secret bool) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	is := func(prefix string) bool { return bytes.HasPrefix(g.first, []byte(prefix)) }
	switch {
	case is("\x01\x00\x00"): // a method on channel 0
		return nil
	case g.err != nil && explainAlert(server, g.err) != nil:
		return explainAlert(server, g.err)
	case len(g.first) == 0 && secret:
		return fmt.Errorf("broker %s: %w before it had said anything", server, transports.ErrClosed)
	case len(g.first) == 0:
		return fmt.Errorf("broker %s: %w before it had said anything; if this port is for TLS, write amqps://", server, transports.ErrClosed)
	case is("\x15\x03"), is("\x16\x03"):
		return permanent(server, "it speaks TLS on this port: write amqps://, or take the port without TLS, 5672 usually")
	case is("AMQP"):
		return permanent(server, "it speaks another version of AMQP than 0-9-1")
	}
	line, _, _ := strings.Cut(string(g.first), "\n")
	return permanent(server, "this is no AMQP server, it says %q: correct the host or the port in servers", strings.TrimSpace(line))
}

// lastWord hears why a broker ends TLS, by connecting once more and saying nothing. In TLS 1.3 it says so when the handshake is over for us, and what
// we write after it has closed makes the system throw its last word away. nil: it says nothing.
func (t *transport) lastWord(ctx context.Context, s server) error {
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.addr)
	if err != nil {
		return nil //nolint:nilerr // the first attempt has an error of its own
	}
	defer raw.Close()                                          //nolint:errcheck // it was only listened to
	defer context.AfterFunc(ctx, func() { _ = raw.Close() })() // ends what follows, which says so
	conn, err := t.secure(ctx, s, raw)
	if err == nil {
		err = conn.SetReadDeadline(time.Now().Add(goodbye))
	}
	if err == nil {
		_, err = conn.Read(make([]byte, 1))
	}
	if err == nil {
		return nil
	}
	return explainAlert(s.addr, err)
}
