package hub_test

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/hub"
)

func TestPortInUse(t *testing.T) {
	r := newRig(t)
	first := r.serve()
	second, err := hub.NewServer(r.conf, r.masterEnv())
	must(t, err)
	in := newInbox()
	err = second.Run(t.Context(), nil, &in)
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), first.Addr().String()) || !strings.Contains(err.Error(), "set listen") {
		t.Errorf("error is %v", err)
	}
	if transports.IsPermanent(err) {
		t.Error("the port may become free, but the error is permanent")
	}
}

func TestUnreachableHub(t *testing.T) {
	r := newRig(t)
	r.serve().stop(t)
	err := r.client("mirror").fails(t)
	if transports.IsPermanent(err) || !errors.Is(err, syscall.ECONNREFUSED) || !strings.Contains(err.Error(), r.conf.Listen) {
		t.Errorf("error is %v", err)
	}
}

func TestSilentServerIsGivenUp(t *testing.T) {
	r := newRig(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close() //nolint:errcheck // it was only listening
	r.conf.Listen = l.Addr().String()
	err = r.client("mirror", func(c *hub.ClientConfig) { c.DialTimeout = span(50 * time.Millisecond) }).fails(t)
	if !isTimeoutOf(err) || !strings.Contains(err.Error(), r.conf.Listen) {
		t.Errorf("error is %v", err)
	}
}

func isTimeoutOf(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}

func TestStoppedHubSaysSo(t *testing.T) {
	r := newRig(t)
	s := r.serve()
	c := r.client("mirror").connect(t)
	s.stop(t)
	if err := c.ended(t); !errors.Is(err, transports.ErrClosed) || !strings.Contains(err.Error(), "the hub stops") {
		t.Errorf("error is %v", err)
	}
	if err := s.Publish(t.Context(), msg(debian, "m1", "x")); !errors.Is(err, transports.ErrNotConnected) {
		t.Errorf("publish after the end: %v", err)
	}
	if err := c.Publish(t.Context(), msg(reports, "r1", "x")); !errors.Is(err, transports.ErrNotConnected) {
		t.Errorf("publish after the end: %v", err)
	}
}

func TestNewerSubscriptionReplacesOlder(t *testing.T) {
	r := newRig(t)
	s := r.serve()
	older := r.client("mirror").connect(t)
	newer := r.client("mirror").connect(t)
	if err := older.ended(t); !strings.Contains(err.Error(), "replaced by a newer connection") {
		t.Errorf("error is %v", err)
	}
	out, status := s.stockOutput(t, "", nil, "ping") // which is no subscription
	if status != 0 {
		t.Errorf("ping: %s", out)
	}
	s.publish(t, msg(debian, "m1", "x"))
	newer.awaitID(t, "m1")
}

func TestMessagesGoToTheirTopicAlone(t *testing.T) {
	r := newRig(t)
	s := r.serve()
	fedora := transports.Topic{Kind: transports.Announce, Module: "fedora"}
	of := map[transports.Topic]*client{debian: r.client("one").connect(t), fedora: r.client("two").connect(t, transports.Subscription{Topic: fedora})}
	s.publish(t, msg(fedora, "f1", "x"))
	s.publish(t, msg(debian, "d1", "x"))
	s.publish(t, msg(fedora, "f2", "x"))
	s.publish(t, msg(debian, "d2", "x"))
	for topic, want := range map[transports.Topic][]string{debian: {"d1", "d2"}, fedora: {"f1", "f2"}} {
		of[topic].awaitID(t, want[1])
		if got := of[topic].ids(); !slices.Equal(got, want) {
			t.Errorf("the subscriber of %s got %v", topic, got)
		}
	}
}

func TestConnectionsOfOneNameAreLimited(t *testing.T) {
	r := newRig(t)
	s := r.serve()
	first := r.raw("mirror")
	await(t, "first connection", func() bool { return len(s.Peers()) == 1 })
	for range 4 {
		r.raw("mirror")
	}
	if err := first.Wait(); err == nil {
		t.Error("the oldest connection ended without an error")
	}
	await(t, "the other four", func() bool { return len(s.Peers()) == 4 })
}

func TestFullHub(t *testing.T) {
	r := newRig(t)
	r.conf.MaxConnections = 1
	s := r.serve()
	old := r.client("one").connect(t)
	if err := r.client("two").fails(t); transports.IsPermanent(err) || !strings.Contains(err.Error(), "max_connections") {
		t.Errorf("error is %v", err)
	}
	r.client("one").connect(t) // its old connection may be dead
	if err := old.ended(t); !strings.Contains(err.Error(), "replaced") {
		t.Errorf("error is %v", err)
	}
	if got := s.names(); !slices.Equal(got, []string{"one"}) {
		t.Errorf("peers are %v", got)
	}
}

// tunnel forwards connections to the hub until its mouth is stopped: then they stay open, and nothing comes through.
type tunnel struct {
	address string
	stopped chan struct{}
	parts   sync.WaitGroup
}

func (r *rig) tunnel() *tunnel {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(r.t, err)
	tun := &tunnel{address: l.Addr().String(), stopped: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	tun.parts.Go(func() {
		for {
			outer, err := l.Accept()
			if err != nil {
				return
			}
			inner, err := net.Dial("tcp", r.conf.Listen)
			if err != nil {
				r.t.Error(err)
				return
			}
			for _, way := range [][2]net.Conn{{outer, inner}, {inner, outer}} {
				tun.parts.Go(func() {
					io.Copy(stopper{way[1], tun.stopped, ctx.Done()}, way[0]) //nolint:errcheck // it ends with the test
				})
			}
			context.AfterFunc(ctx, func() {
				outer.Close() //nolint:errcheck // the test is over
				inner.Close() //nolint:errcheck // the test is over
			})
		}
	})
	r.t.Cleanup(func() {
		cancel()
		l.Close() //nolint:errcheck // it was only listening
		tun.parts.Wait()
	})
	return tun
}

// stopper takes nothing more once stopped.
type stopper struct {
	w             io.Writer
	stopped, over <-chan struct{}
}

func (s stopper) Write(b []byte) (int, error) {
	select {
	case <-s.stopped:
		<-s.over
		return 0, io.ErrClosedPipe
	default:
		return s.w.Write(b)
	}
}

func TestHalfOpenConnectionIsFound(t *testing.T) {
	const short = 300 * time.Millisecond
	for _, tt := range []struct {
		name           string
		master, mirror time.Duration // keepalives
		says           string        // the mirror
	}{
		{"by the mirror's keepalive", time.Hour, short, "no answer to a keepalive"},
		{"by the hub's keepalive, and its silence", short, time.Hour, "sent nothing"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			r.conf.Keepalive = span(tt.master)
			s := r.serve()
			tun := r.tunnel()
			c := r.client("mirror", func(c *hub.ClientConfig) { c.Address, c.Keepalive = tun.address, span(tt.mirror) }).connect(t)
			await(t, "age of many keepalives", func() bool { return time.Since(s.Peers()[0].Since) > 5*short })
			s.publish(t, msg(debian, "m1", "x"))
			c.awaitID(t, "m1")
			close(tun.stopped)
			start := time.Now()
			if err := c.ended(t); !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error is %v", err)
			}
			if tt.master == short {
				await(t, "end on the hub", func() bool { return len(s.Peers()) == 0 })
				if !strings.Contains(r.log.String(), `reason="no answer to a keepalive"`) {
					t.Errorf("log: %s", r.log.String())
				}
			}
			if took := time.Since(start); took > 30*short {
				t.Errorf("found after %v", took)
			}
		})
	}
}

func TestRefusedReportEndsTheHubsRun(t *testing.T) {
	r := newRig(t)
	s := r.serve()
	full := errors.New("disk full")
	s.on = func(context.Context, transports.Message) error { return full }
	c := r.client("mirror").connect(t)
	err := c.Publish(t.Context(), msg(reports, "r1", "x"))
	if err == nil || strings.Contains(err.Error(), "disk full") {
		t.Errorf("publish: %v", err)
	}
	if err := s.ended(t); !errors.Is(err, full) || !strings.Contains(err.Error(), "from mirror") {
		t.Errorf("hub: %v", err)
	}
}

func TestPublishGivesUpWithItsContext(t *testing.T) {
	r := newRig(t)
	s := r.serve()
	entered, leave := make(chan struct{}), make(chan struct{})
	s.on = func(_ context.Context, m transports.Message) error {
		if m.ID == "r1" {
			close(entered)
			<-leave
		}
		return nil
	}
	c := r.client("mirror").connect(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("gone")
	go func() {
		<-entered
		cancel(gone)
	}()
	if err := c.Publish(ctx, msg(reports, "r1", "x")); !errors.Is(err, gone) {
		t.Errorf("publish: %v", err)
	}
	close(leave)
	must(t, c.Publish(t.Context(), msg(reports, "r2", "x"))) // the answers are still told apart
	if got := s.ids(); !slices.Equal(got, []string{"r1", "r2"}) {
		t.Errorf("the hub took %v", got)
	}
}
