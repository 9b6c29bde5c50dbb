package hub

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/wire"
)

const (
	// maxPerName is how many connections with one name are kept: an agent's and a few by hand.
	maxPerName = 4

	// maxSessions is how many channels of a connection are open at the same time.
	maxSessions = 4

	// maxRefusals is how often a connection may ask for what it does not get.
	maxRefusals = 64
)

// A peer is one authenticated connection on the master side.
type peer struct {
	s       *Server
	in      *wire.Intake
	name    string
	since   time.Time
	tcp     net.Conn
	conn    *ssh.ServerConn
	refusal error                   // why it gets nothing, nil if it does
	end     context.CancelCauseFunc // ends the connection for a reason that the peer is told; never blocks

	queue *wire.Queue // guarded by Server.mu; nil if it has not subscribed

	mu       sync.Mutex
	refused  int
	sessions map[ssh.Channel]bool
}

// serve serves the connection until it ends, and returns why it did. ctx is the one that end ends.
func (p *peer) serve(ctx context.Context, chans <-chan ssh.NewChannel, reqs <-chan *ssh.Request) error {
	var parts sync.WaitGroup
	closed := make(chan struct{})
	context.AfterFunc(ctx, func() {
		p.hangUp(context.Cause(ctx))
		close(closed)
	})
	if p.refusal != nil { // it has time to ask for something and be told
		late := time.AfterFunc(p.s.conf.HandshakeTimeout.Duration, func() { p.end(p.refusal) })
		defer late.Stop()
	}
	parts.Go(func() { ssh.DiscardRequests(reqs) }) // it says no to forwardings, and that is an answer to keepalives, too
	parts.Go(func() { wire.KeepAlive(ctx, p.conn, p.s.conf.Keepalive.Duration, p.stillWelcome, p.end) })
	for nc := range chans {
		p.open(ctx, nc, &parts)
	}
	p.end(transports.ErrClosed)
	<-closed
	parts.Wait()
	return context.Cause(ctx)
}

// hangUp tells the sessions why, as far as the peer still takes anything, and closes the connection. The channels have windows and may be full
// to the brim; requests have none.
func (p *peer) hangUp(reason error) {
	if err := p.tcp.SetWriteDeadline(time.Now().Add(farewell)); err == nil {
		for _, ch := range p.opened() {
			ch.SendRequest("exit-signal", false, ssh.Marshal(exitSignal{Signal: "TERM", Text: reason.Error()})) //nolint:errcheck // it may be gone
		}
	}
	p.tcp.Close() //nolint:errcheck // everything that still reads or writes says so
}

// exitSignal is described in RFC 4254, section 6.10.
type exitSignal struct {
	Signal     string
	CoreDumped bool
	Text       string
	Language   string
}

// exitStatus is described in RFC 4254, section 6.10.
type exitStatus struct{ Status uint32 }

func (p *peer) opened() []ssh.Channel {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []ssh.Channel
	for ch := range p.sessions {
		all = append(all, ch)
	}
	return all
}

// stillWelcome asks again whose key it is: it may have been revoked, or expired, since the connection was made.
func (p *peer) stillWelcome() error {
	key, err := ssh.ParsePublicKey([]byte(p.conn.Permissions.Extensions[extKey]))
	if err != nil {
		return fmt.Errorf("key of the connection: %w", err)
	}
	name, err := p.s.env.PeerName(key)
	if err != nil {
		return fmt.Errorf("key %s is no longer welcome: %w", ssh.FingerprintSHA256(key), err)
	}
	if name != p.name {
		return fmt.Errorf("key %s now belongs to %s", ssh.FingerprintSHA256(key), name)
	}
	return nil
}

// open answers the wish for a channel. Every wish must be answered: the library holds the connection up until then.
func (p *peer) open(ctx context.Context, nc ssh.NewChannel, parts *sync.WaitGroup) {
	switch {
	case p.refusal != nil:
		p.reject(nc, ssh.ResourceShortage, p.refusal.Error())
		p.end(p.refusal)
	case nc.ChannelType() != "session":
		p.reject(nc, ssh.Prohibited, "the hub opens sessions and nothing else")
	case len(p.opened()) >= maxSessions:
		p.reject(nc, ssh.ResourceShortage, fmt.Sprintf("at most %d channels at the same time", maxSessions))
	default:
		ch, reqs, err := nc.Accept()
		if err != nil {
			return // the connection has ended
		}
		p.mu.Lock()
		p.sessions[ch] = true
		p.mu.Unlock()
		parts.Go(func() { p.session(ctx, ch, reqs) })
	}
}

func (p *peer) reject(nc ssh.NewChannel, reason ssh.RejectionReason, text string) {
	nc.Reject(reason, text) //nolint:errcheck // the connection has ended then
	p.countRefusal()
}

func (p *peer) countRefusal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refused++; p.refused > maxRefusals {
		p.end(errUnruly)
	}
}

// session serves one channel until the peer has closed it too: it runs the first command and refuses everything else, pty, env, shell and
// subsystems among it.
func (p *peer) session(ctx context.Context, ch ssh.Channel, reqs <-chan *ssh.Request) {
	ctx, cancel := context.WithCancel(ctx)
	var command sync.WaitGroup
	started := false
	for req := range reqs {
		var exec struct{ Line string }
		ok := !started && req.Type == "exec" && len(req.Payload) <= wire.MaxCommand && ssh.Unmarshal(req.Payload, &exec) == nil
		if req.WantReply {
			req.Reply(ok, nil) //nolint:errcheck // the connection has ended then, and reqs too
		}
		if !ok {
			p.countRefusal()
			continue
		}
		started = true
		command.Go(func() { p.exec(ctx, ch, exec.Line) })
	}
	cancel()
	command.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.sessions, ch)
}
