// Package line is a connection to an SSH server as the side has it that dials: how it is made and ended, and the programs that are run over it. The mirrors of
// a hub and the master of transports/ssh both have such lines.
package line

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/mirrorbus/mirrorbus/internal/hostkey"
)

// A Call says whom to dial and how.
type Call struct {
	What    string // the server as errors name it
	Address string // host:port
	User    string
	Version string // what the server logs, beginning with SSH-2.0-
	Keys    []ssh.Signer
	Trust   hostkey.Trust
	Timeout time.Duration // to connect, to authenticate, and for what follows until Settled

	// Explain makes the error of a failed handshake one that says what to do.
	Explain func(error) error
}

// A Line is an authenticated connection.
type Line struct {
	Client *ssh.Client

	what string
	tcp  net.Conn
	open []*Remote
}

// Dial connects and authenticates. The line has a deadline until Settled is called: the library itself would wait for a silent server without end.
func (c Call) Dial(ctx context.Context) (*Line, error) {
	tcp, err := (&net.Dialer{Timeout: c.Timeout}).DialContext(ctx, "tcp", c.Address)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", c.What, err)
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
	if err := tcp.SetDeadline(time.Now().Add(c.Timeout)); err != nil {
		return nil, errors.Join(fmt.Errorf("connect to %s: %w", c.What, err), tcp.Close())
	}
	conn, chans, reqs, err := ssh.NewClientConn(tcp, c.Address, &ssh.ClientConfig{ // closes tcp on error
		User: c.User, ClientVersion: c.Version, Auth: []ssh.AuthMethod{ssh.PublicKeys(c.Keys...)},
		HostKeyCallback: c.Trust.Check, HostKeyAlgorithms: c.Trust.Algorithms(),
	})
	if err != nil {
		return nil, c.Explain(err)
	}
	return &Line{Client: ssh.NewClient(conn, chans, reqs), what: c.What, tcp: tcp}, nil
}

// Settled takes the deadline of dialling off.
func (l *Line) Settled() error {
	if err := l.tcp.SetDeadline(time.Time{}); err != nil {
		return fmt.Errorf("%s: %w", l.what, err)
	}
	return nil
}

// HangUp ends the connection at once: everything that still reads or writes says so.
func (l *Line) HangUp() {
	l.tcp.Close() //nolint:errcheck // it may be closed already
}

// EndWith ends the connection when ctx ends, which it must; closed is closed then.
func (l *Line) EndWith(ctx context.Context) (closed <-chan struct{}) {
	done := make(chan struct{})
	context.AfterFunc(ctx, func() {
		l.HangUp()
		close(done)
	})
	return done
}

// Close ends the connection and waits for what the library started on it.
func (l *Line) Close() {
	l.Client.Close() //nolint:errcheck // it may be closed already
	l.Client.Wait()  //nolint:errcheck // how it ended was said by who noticed
	for _, r := range l.open {
		r.wait() //nolint:errcheck // as above
	}
}

// Prefer returns why ctx ended if it did, err otherwise: what ended it is why the rest failed.
func Prefer(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
