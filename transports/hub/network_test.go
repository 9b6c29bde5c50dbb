package hub_test

import (
	"context"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/hub"
)

// The hub's host loses its power: no end of the connection, no reset, no answer. Both sides find out by themselves, and get together again once it
// answers.
func TestHubThatFallsSilent(t *testing.T) {
	network, ok := testenv.OwnNetwork(t)
	if !ok {
		return
	}
	const short = time.Second
	r := newRig(t)
	r.conf.Keepalive = span(short)
	s := r.serve()
	_, p, err := net.SplitHostPort(r.conf.Listen)
	must(t, err)
	port, err := strconv.Atoi(p)
	must(t, err)
	c := r.client("mirror", func(c *hub.ClientConfig) { c.Keepalive, c.DialTimeout = span(short), span(time.Second) })
	ctx, cancel := context.WithCancel(t.Context())
	var states []transports.State
	var mu sync.Mutex
	seen := func(f func(transports.State) bool) func() bool {
		return func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(states) > 0 && f(states[len(states)-1])
		}
	}
	var keeping sync.WaitGroup
	keeping.Go(func() {
		transports.Keep(ctx, c, []transports.Subscription{{Topic: debian}}, &c.inbox, transports.KeepOptions{Min: short, Max: short, State: func(s transports.State) { //nolint:errcheck // it ends with ctx
			mu.Lock()
			states = append(states, s)
			mu.Unlock()
		}})
	})
	defer keeping.Wait()
	defer cancel()
	c.awaitConnected(t)
	s.publish(t, msg(debian, "m1", "x"))
	c.awaitID(t, "m1")

	network.Silence(port)
	await(t, "the mirror notices", seen(func(s transports.State) bool { return !s.Connected }))
	await(t, "the hub notices", func() bool { return len(s.Peers()) == 0 })
	if !strings.Contains(r.log.String(), `reason="no answer to a keepalive"`) {
		t.Errorf("log: %s", r.log.String())
	}
	network.Heal()
	await(t, "connection", seen(func(s transports.State) bool { return s.Connected }))
	s.publish(t, msg(debian, "m2", "x"))
	c.awaitID(t, "m2")
}

// A link on which three packets in a hundred are lost each way, at 256 kbit/s, is slow and no more.
func TestSlowLinkThatLosesPackets(t *testing.T) {
	network, ok := testenv.OwnNetwork(t)
	if !ok {
		return
	}
	r := newRig(t)
	s := r.serve()
	_, p, err := net.SplitHostPort(r.conf.Listen)
	must(t, err)
	port, err := strconv.Atoi(p)
	must(t, err)
	network.Slow(256)
	network.Lose(3, port)
	c := r.client("mirror").connect(t)
	body := strings.Repeat("0123456789abcdef", 500)
	for i := range 3 {
		s.publish(t, msg(debian, numbered(i), body))
		c.awaitID(t, numbered(i))
	}
	must(t, c.Publish(t.Context(), msg(reports, "r1", "x")))
}
