package listener_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/listener"
	"github.com/mirrorbus/mirrorbus/listener/rsync"
)

// Many mirrors at once want what an upstream gives to two at a time. Those it turns away come again, and all are served; none takes it for a failure
// that needs a human.
func TestACrowdAtAnUpstreamForTwo(t *testing.T) {
	w := newWorld(t, func(m *testenv.Module) { m.MaxConnections = 2 })
	w.write(testenv.File("big", strings.Repeat("0123456789abcdef", 20_000)))
	w.announce(w.rec(event.Write, "big"))
	w.publishManifest()
	held := []net.Conn{w.hold(), w.hold()}
	var crowd errgroup.Group
	var turnedAway sync.WaitGroup
	var checks []func()
	for range 10 {
		turnedAway.Add(1)
		x := w.another()
		clock := time.Now()
		x.now = func() time.Time { return clock }
		a := x.agentOf(x.runner(func(c *rsync.Config) { c.Upstream.BWLimitKiB = 1000 }))
		checks = append(checks, func() { x.same(a, 1) })
		crowd.Go(func() error {
			once := sync.OnceFunc(turnedAway.Done)
			defer once()
			for attempt := range 500 {
				err := a.Reconcile(t.Context(), pub)
				s, statusErr := a.Status(t.Context())
				if statusErr != nil {
					return statusErr
				}
				m := s.Modules[0]
				switch {
				case err == nil && m.Applied == 1 && attempt > 0:
					return nil
				case err == nil:
					return fmt.Errorf("served in spite of those who hold both connections: %+v", m)
				case err != nil && (m.State != listener.Retrying || !strings.Contains(m.Error, "max connections") || m.Next.Sub(clock) > 5*time.Minute):
					return fmt.Errorf("attempt %d: %w: %+v", attempt, err, m)
				}
				once()
				clock = clock.Add(time.Minute) // so that the test does not wait; the pauses are for the sake of the upstream
			}
			return fmt.Errorf("never served")
		})
	}
	crowd.Go(func() error {
		turnedAway.Wait() // each of them, once at least
		return errors.Join(held[0].Close(), held[1].Close())
	})
	w.must(crowd.Wait())
	for _, check := range checks {
		check()
	}
}

// hold takes one of the upstream's connections.
func (w *world) hold() net.Conn {
	w.t.Helper()
	c, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", w.daemon.Port))
	w.must(err)
	w.t.Cleanup(func() { c.Close() }) //nolint:errcheck // it may be closed already
	_, err = io.WriteString(c, "@RSYNCD: 31.0 sha512 md5\npub\n")
	w.must(err)
	said := bufio.NewReader(c)
	for {
		line, err := said.ReadString('\n')
		w.must(err)
		if line == "@RSYNCD: OK\n" {
			return c
		}
	}
}
