package ssh

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"

	"github.com/mirrorbus/mirrorbus/internal/control"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/wire"
)

// A Mirror waits on a socket for those who hand over what a master has sent.
type Mirror struct {
	conf MirrorConfig
	env  transports.Env
	log  *slog.Logger

	mu       sync.Mutex
	sessions map[*handover]bool
	counts   map[string]uint64
}

// NewMirror checks the configuration.
func NewMirror(c MirrorConfig, env transports.Env) (*Mirror, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return &Mirror{conf: c, env: env, log: cmp.Or(env.Log, slog.New(slog.DiscardHandler)), sessions: map[*handover]bool{}, counts: map[string]uint64{}}, nil
}

// Run implements transports.Transport. It tells r that it is connected each time that somebody comes who takes reports.
func (m *Mirror) Run(ctx context.Context, subs []transports.Subscription, r transports.Receiver) error {
	l, err := control.Listen(string(m.conf.Socket))
	if err != nil {
		return err
	}
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	closed := make(chan struct{})
	context.AfterFunc(ctx, func() {
		l.Close() //nolint:errcheck // it was only listening
		close(closed)
	})
	var all sync.WaitGroup
	in := wire.NewIntake(ctx, subs, r, fail)
	places := make(chan struct{}, m.conf.MaxSessions)
	for ctx.Err() == nil {
		conn, err := l.Accept()
		if err != nil {
			fail(fmt.Errorf("socket %s: %w", m.conf.Socket, err))
			break
		}
		select {
		case places <- struct{}{}:
		default:
			m.count("turned away")
			m.log.Warn("somebody was turned away: there are as many sessions as max_sessions")
			conn.Close() //nolint:errcheck // it is not wanted
			continue
		}
		all.Go(func() {
			defer func() { <-places }()
			m.serve(ctx, conn, subs, r, in)
		})
	}
	<-closed
	all.Wait()
	return context.Cause(ctx)
}

// serve serves one that hands over, until it or ctx ends.
func (m *Mirror) serve(ctx context.Context, conn net.Conn, subs []transports.Subscription, r transports.Receiver, in *wire.Intake) {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	closed := make(chan struct{})
	context.AfterFunc(ctx, func() {
		conn.Close() //nolint:errcheck // everything that still reads or writes says so
		close(closed)
	})
	h := &handover{m: m, conn: conn, lines: wire.Lines(conn), fail: fail}
	err := h.begin(subs)
	if err == nil {
		err = h.talk(ctx, r, in)
	}
	fail(err)
	<-closed
	h.parts.Wait()
	if cause := context.Cause(ctx); !errors.Is(cause, io.EOF) {
		m.log.Info("a session of ssh has ended", "from", h.from, "reason", cause)
	}
}

// Publish implements transports.Transport. It returns when one of those that hand over has answered.
func (m *Mirror) Publish(ctx context.Context, one transports.Message) error {
	if err := capabilities(transports.Mirror).Check(one); err != nil {
		return err
	}
	err := transports.ErrNotConnected
	for _, h := range m.handovers() {
		if one := h.out.Publish(ctx, one); one == nil {
			err = nil
		} else if err != nil {
			err = one
		}
	}
	return err
}

func (m *Mirror) handovers() (all []*handover) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for h := range m.sessions {
		all = append(all, h)
	}
	return all
}

func (m *Mirror) set(h *handover, there bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if there {
		m.sessions[h] = true
		m.counts["sessions"]++
	} else {
		delete(m.sessions, h)
	}
}

func (m *Mirror) count(what string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.counts[what]++
}

// TellsRefusals implements transports.Teller: who hands over by hand is told what became of it.
func (m *Mirror) TellsRefusals() {}

// IsCalled implements transports.Callee.
func (m *Mirror) IsCalled() bool { return true }

// PeerCount implements transports.PeerCounter.
func (m *Mirror) PeerCount() int { return len(m.handovers()) }

// Counters implements transports.Counter.
func (m *Mirror) Counters() map[string]uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := map[string]uint64{"sessions": 0, "turned away": 0}
	for k, v := range m.counts {
		all[k] = v
	}
	return all
}
