package hub

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/time/rate"

	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/wire"
)

// Reasons for which the hub ends a connection. Their texts reach the peer.
var (
	errSlow     = errors.New("slow: more waits for this subscriber than the hub keeps, or it takes nothing; it may resume")
	errHalf     = errors.New("a message stopped half way")
	errReplaced = errors.New("replaced by a newer connection with the same name; if that was not you, two machines share a key")
	errFull     = errors.New("the hub has as many connections as it takes (max_connections)")
	errUnruly   = errors.New("too many requests for what the hub does not do")
	errStopped  = errors.New("the hub stops")
)

// A Server is the master side: it listens, and hands what it publishes to those who have subscribed.
type Server struct {
	conf ServerConfig
	env  transports.Env
	ssh  *ssh.ServerConfig
	log  *slog.Logger

	noise rate.Sometimes // lines about connections that did not get in, which strangers can cause

	mu    sync.Mutex
	addr  net.Addr // nil while not running
	peers map[*peer]bool
	feed  wire.Feed
}

// NewServer checks the configuration and reads the host key. env needs PeerName.
func NewServer(c ServerConfig, env transports.Env) (*Server, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if env.PeerName == nil {
		return nil, errors.New("the hub needs a trust file to know its peers by")
	}
	key, err := LoadHostKey(string(c.HostKey))
	if err != nil {
		return nil, err
	}
	s := &Server{
		conf: c, env: env, log: env.Log, noise: rate.Sometimes{First: 20, Interval: 10 * time.Second},
		peers: make(map[*peer]bool),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.ssh = &ssh.ServerConfig{
		ServerVersion: serverVersion, PublicKeyCallback: s.authenticate,
		PublicKeyAuthAlgorithms: ssh.SupportedAlgorithms().PublicKeyAuths, // the library's own choice still has SHA-1
	}
	s.ssh.AddHostKey(key)
	return s, nil
}

// Run implements transports.Transport. It listens and serves until ctx is done or r refuses a message.
func (s *Server) Run(ctx context.Context, subs []transports.Subscription, r transports.Receiver) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", s.conf.Listen)
	if err != nil {
		return listenError(s.conf.Listen, err)
	}
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	closed := make(chan struct{})
	context.AfterFunc(ctx, func() {
		l.Close() //nolint:errcheck // it was only listening
		close(closed)
	})
	s.setAddr(l.Addr())
	r.Connected()
	fail(s.acceptAll(ctx, l, wire.NewIntake(ctx, subs, r, fail)))
	s.setAddr(nil)
	<-closed
	return context.Cause(ctx)
}

func listenError(address string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("listen on %s: %w; stop the other program or set listen to another port", address, err)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("listen on %s: %w; set listen to a port above 1023 or give the service CAP_NET_BIND_SERVICE", address, err)
	}
	return fmt.Errorf("listen on %s: %w", address, err)
}

// Publish implements transports.Transport: it queues m for each subscriber that is connected, and returns at once. The others get it from
// Env.Backlog when they come.
func (s *Server) Publish(ctx context.Context, m transports.Message) error {
	if err := capabilities(transports.Master).Check(m); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if s.Addr() == nil {
		return transports.ErrNotConnected
	}
	s.feed.Put(m)
	return nil
}

// Addr is the address that the server listens on, nil while Run is not under way.
func (s *Server) Addr() net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addr
}

func (s *Server) setAddr(a net.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.addr = a
}

// A Peer is an authenticated connection, for status.
type Peer struct {
	Name       string
	Address    string // the other end's "host:port"
	Since      time.Time
	Subscribed bool
	Queued     int // bytes waiting for it in the hub
}

// Peers lists the connections by name, then by age.
func (s *Server) Peers() []Peer {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]Peer, 0, len(s.peers))
	for p := range s.peers {
		info := Peer{Name: p.name, Address: p.tcp.RemoteAddr().String(), Since: p.since, Subscribed: p.queue != nil}
		if p.queue != nil {
			info.Queued = p.queue.Queued()
		}
		list = append(list, info)
	}
	slices.SortFunc(list, func(a, b Peer) int { return cmp.Or(cmp.Compare(a.Name, b.Name), a.Since.Compare(b.Since)) })
	return list
}

// PeerCount implements transports.PeerCounter.
func (s *Server) PeerCount() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.peers)
}

// admit adds p to the connected peers. Of too many with one name, dead ones most likely, the oldest has to go; and only somebody who brings no
// such is refused when the hub is full.
func (s *Server) admit(p *peer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	same, oldest := 0, (*peer)(nil)
	for other := range s.peers {
		if other.name != p.name {
			continue
		}
		same++
		if oldest == nil || other.since.Before(oldest.since) {
			oldest = other
		}
	}
	full := len(s.peers) >= s.conf.MaxConnections
	if full && oldest == nil {
		return errFull
	}
	if full || same >= maxPerName {
		oldest.end(errReplaced)
		delete(s.peers, oldest)
	}
	s.peers[p] = true
	return nil
}

func (s *Server) dismiss(p *peer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.peers, p)
}

// join makes queue the subscription of p and ends an older one with the same name: a half-open connection must not lock its owner out.
func (s *Server) join(p *peer, queue *wire.Queue, wants []wire.Want) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.queue != nil {
		return errors.New("this connection has a subscription already")
	}
	for other := range s.peers {
		if other != p && other.name == p.name && other.queue != nil {
			other.end(errReplaced)
		}
	}
	p.queue = queue
	s.feed.Join(queue, wants)
	return nil
}

func (s *Server) leave(p *peer, queue *wire.Queue, wants []wire.Want) {
	s.feed.Leave(queue, wants)
	s.mu.Lock()
	defer s.mu.Unlock()
	p.queue = nil
}
