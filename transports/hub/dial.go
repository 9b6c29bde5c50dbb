package hub

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/mirrorbus/mirrorbus/internal/hostkey"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/wire"
)

// A link is an authenticated connection to the hub.
type link struct {
	tcp    net.Conn
	client *ssh.Client
	open   []*remote
}

// dial connects to the hub and authenticates. The connection has a deadline, which is to be taken off when the subscription stands: the library
// itself would wait for a silent server without end.
func (c *Client) dial(ctx context.Context) (*link, error) {
	trusted, err := c.trusted()
	if err != nil {
		return nil, transports.Permanent(err)
	}
	limit := c.conf.DialTimeout.Duration
	tcp, err := (&net.Dialer{Timeout: limit}).DialContext(ctx, "tcp", c.conf.Address)
	if err != nil {
		return nil, fmt.Errorf("connect to hub %s: %w", c.conf.Address, err)
	}
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		tcp.Close() //nolint:errcheck // it ends the handshake, which says so
		close(closed)
	})
	defer func() {
		if !stop() {
			<-closed
		}
	}()
	if err := tcp.SetDeadline(time.Now().Add(limit)); err != nil {
		return nil, errors.Join(fmt.Errorf("connect to hub %s: %w", c.conf.Address, err), tcp.Close())
	}
	conn, chans, reqs, err := ssh.NewClientConn(tcp, c.conf.Address, &ssh.ClientConfig{ // closes tcp on error
		User: userName, ClientVersion: clientVersion, Auth: []ssh.AuthMethod{ssh.PublicKeys(c.env.Signer)},
		HostKeyCallback: trusted.Check, HostKeyAlgorithms: trusted.Algorithms(),
	})
	if err != nil {
		return nil, c.explain(err)
	}
	return &link{tcp: tcp, client: ssh.NewClient(conn, chans, reqs)}, nil
}

func (c *Client) trusted() (hostkey.Trust, error) {
	if c.conf.KnownHosts == "" {
		return hostkey.Pin(c.conf.HostKey)
	}
	t, err := hostkey.Known(string(c.conf.KnownHosts), c.conf.Address)
	if errors.Is(err, hostkey.ErrUnknown) {
		err = fmt.Errorf("%w: add the line that `mirrorbus init master` printed on the master", err)
	}
	return t, err
}

// explain says what a failed handshake means. That the hub did not take the key is only in the library's text; a test keeps watch over it.
func (c *Client) explain(err error) error {
	switch {
	case errors.Is(err, hostkey.ErrOther):
		return transports.Permanent(fmt.Errorf("hub: %w", err))
	case strings.Contains(err.Error(), "unable to authenticate"):
		return transports.Permanent(fmt.Errorf("hub %s refuses our key %s: on the master, run the line that `mirrorbus init mirror` printed",
			c.conf.Address, ssh.FingerprintSHA256(c.env.Signer.PublicKey())))
	}
	return fmt.Errorf("hub %s: %w", c.conf.Address, err)
}

// start runs a command on the hub.
func (l *link) start(command string) (*remote, error) {
	session, err := l.client.NewSession()
	if err != nil {
		return nil, fmt.Errorf("hub: %w", err)
	}
	r := &remote{
		wait: sync.OnceValue(session.Wait), said: &wire.Capped{},
		hangUp: func() { l.tcp.Close() }, //nolint:errcheck // everything that still reads or writes says so
	}
	session.Stderr = r.said
	out, err := session.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("hub: %w", err)
	}
	if r.input, err = session.StdinPipe(); err != nil {
		return nil, fmt.Errorf("hub: %w", err)
	}
	r.lines = wire.Lines(out)
	if err := session.Start(command); err != nil {
		return nil, fmt.Errorf("hub: start %.20q: %w", command, err)
	}
	l.open = append(l.open, r)
	return r, nil
}

// close ends the connection and waits for what the library started on it.
func (l *link) close() {
	l.client.Close() //nolint:errcheck // it may be closed already
	l.client.Wait()  //nolint:errcheck // how it ended was said by who noticed
	for _, r := range l.open {
		r.wait() //nolint:errcheck // as above
	}
}
