package hub

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/time/rate"

	"github.com/mirrorbus/mirrorbus/transports/wire"
)

// acceptAll serves the connections that come to l, not more than so many a second, until ctx is done. It has waited for all of them.
func (s *Server) acceptAll(ctx context.Context, l net.Listener, in *wire.Intake) error {
	var conns sync.WaitGroup
	defer conns.Wait()
	serving, stop := context.WithCancelCause(context.WithoutCancel(ctx)) // so that this is what the peers are told
	defer stop(errStopped)                                               // before the wait
	limit := rate.NewLimiter(rate.Limit(s.conf.AcceptRate), s.conf.AcceptBurst)
	room := &lobby{size: s.conf.MaxUnauthenticated, grace: s.conf.HandshakeTimeout.Duration / 10, left: make(chan struct{}, 1)}
	for {
		if err := limit.Wait(ctx); err != nil { // ctx is done, or its deadline comes before anybody else may
			<-ctx.Done()
			return context.Cause(ctx)
		}
		tcp, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			return errors.Join(context.Cause(ctx), closeIf(tcp))
		case shortage(err):
			s.log.Warn("cannot accept connections for now", "error", err)
			if !wait(ctx, time.Second) {
				return context.Cause(ctx)
			}
		case err != nil:
			return fmt.Errorf("accept on %s: %w", l.Addr(), err)
		default:
			room.enter(ctx, tcp)
			conns.Go(func() { s.serve(serving, tcp, room, in) })
		}
	}
}

// shortage tells whether the system may accept again after a while.
func shortage(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func closeIf(c net.Conn) error {
	if c == nil {
		return nil
	}
	return c.Close()
}

// wait returns false if ctx ended first.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// A lobby holds the connections that have not said yet who they are. When it is full the one that came first goes, once it has had its grace:
// those who only hold a place cannot keep others out, and a machine that is merely busy does not turn everybody away.
type lobby struct {
	size  int
	grace time.Duration
	left  chan struct{} // holds one token if somebody left since it was last looked at

	mu sync.Mutex
	in []guest // the one that came first is first
}

type guest struct {
	conn  net.Conn
	since time.Time
}

// enter waits until there is room for c, or ctx is done.
func (l *lobby) enter(ctx context.Context, c net.Conn) {
	for {
		soon := l.try(c)
		if soon == 0 {
			return
		}
		timer := time.NewTimer(soon)
		select {
		case <-timer.C:
		case <-l.left:
		case <-ctx.Done():
			timer.Stop()
			return // everybody goes
		}
		timer.Stop()
	}
}

// try lets c in, or returns how long it takes at most until there is room.
func (l *lobby) try(c net.Conn) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.in) >= l.size {
		if soon := time.Until(l.in[0].since.Add(l.grace)); soon > 0 {
			return soon
		}
		l.in[0].conn.Close() //nolint:errcheck // it ends the handshake, which says so
		l.in = slices.Delete(l.in, 0, 1)
	}
	l.in = append(l.in, guest{c, time.Now()})
	return 0
}

func (l *lobby) leave(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := slices.IndexFunc(l.in, func(g guest) bool { return g.conn == c }); i >= 0 {
		l.in = slices.Delete(l.in, i, i+1)
	}
	select {
	case l.left <- struct{}{}:
	default:
	}
}

// serve takes one connection from its first byte to its end.
func (s *Server) serve(ctx context.Context, tcp net.Conn, room *lobby, in *wire.Intake) {
	conn, chans, reqs, err := s.handshake(ctx, tcp, room)
	if err != nil {
		s.noise.Do(func() { s.log.Info("connection did not get in", "address", tcp.RemoteAddr().String(), "error", err) })
		return
	}
	ctx, end := context.WithCancelCause(ctx)
	p := &peer{
		s: s, in: in, name: conn.Permissions.Extensions[extPeer], since: time.Now(), tcp: tcp, conn: conn, end: end,
		sessions: make(map[ssh.Channel]bool),
	}
	log := s.log.With("peer", p.name, "address", tcp.RemoteAddr().String())
	if p.refusal = s.admit(p); p.refusal == nil {
		defer s.dismiss(p)
		log.Info("peer connected")
	}
	log.Info("peer gone", "reason", p.serve(ctx, chans, reqs))
}

// handshake brings the connection to its authenticated state, or closes it.
func (s *Server) handshake(ctx context.Context, tcp net.Conn, room *lobby) (*ssh.ServerConn, <-chan ssh.NewChannel, <-chan *ssh.Request, error) {
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		tcp.Close() //nolint:errcheck // it ends the handshake, which says so
		close(closed)
	})
	defer room.leave(tcp)
	defer func() {
		if !stop() {
			<-closed
		}
	}()
	if err := tcp.SetDeadline(time.Now().Add(s.conf.HandshakeTimeout.Duration)); err != nil {
		return nil, nil, nil, errors.Join(err, tcp.Close())
	}
	conn, chans, reqs, err := ssh.NewServerConn(tcp, s.ssh) // closes tcp on error
	if err != nil {
		return nil, nil, nil, err
	}
	if err := tcp.SetDeadline(time.Time{}); err != nil {
		return nil, nil, nil, errors.Join(err, conn.Close())
	}
	return conn, chans, reqs, nil
}

// Extensions of ssh.Permissions. The library calls authenticate for every key that is offered, and hands the Permissions of the one that was
// proved to the connection; so this is how the name of that one is known.
const (
	extPeer = "peer@mirrorbus"
	extKey  = "key@mirrorbus" // in wire form
)

// authenticate implements ssh.ServerConfig.PublicKeyCallback.
func (s *Server) authenticate(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
	if cert, ok := key.(*ssh.Certificate); ok && len(cert.CriticalOptions) > 0 {
		return nil, fmt.Errorf("certificate %s has critical options, which the hub does not know", ssh.FingerprintSHA256(cert.Key))
	}
	name, err := s.env.PeerName(key)
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", ssh.FingerprintSHA256(key), err)
	}
	return &ssh.Permissions{Extensions: map[string]string{extPeer: name, extKey: string(key.Marshal())}}, nil
}
