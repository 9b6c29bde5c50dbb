package ssh_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/transports/ssh"
)

// Whatever is said in either direction goes over the one connection that was made at the beginning; when that is lost there is another.
func TestTheConnectionIsKept(t *testing.T) {
	r := newRig(t)
	between := testenv.StartProxy(t, r.sshd.Port)
	known, err := os.ReadFile(r.sshd.KnownHosts)
	must(t, err)
	one := r.mirror("one")
	m := r.master([]string{"one"}, func(c *ssh.MasterConfig) {
		c.Mirrors[0].Address = fmt.Sprint("127.0.0.1:", between.Port)
		_, c.Mirrors[0].HostKey, _ = strings.Cut(strings.TrimSpace(string(known)), " ")
	})
	one.isConnected(1)
	for n := range 20 {
		id := fmt.Sprint("m.", n)
		must(t, m.transport.Publish(t.Context(), msg(debian, id)))
		one.has(id)
		must(t, one.transport.Publish(t.Context(), msg(reports, "r"+id)))
		m.has("r" + id)
	}
	if n := between.Accepted(); n != 1 {
		t.Errorf("%d connections for 40 messages", n)
	}
	between.Drop()
	one.isConnected(2)
	must(t, m.transport.Publish(t.Context(), msg(debian, "after")))
	one.has("after")
	if n := m.transport.Counters()["sessions"]; n != 2 {
		t.Errorf("%d sessions, want one more after the first was lost", n)
	}
}

// No more mirrors than `parallel` are on their way to being connected at the same time, however many there are. Each has its turn.
func TestDiallingIsBounded(t *testing.T) {
	r := newRig(t)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer silent.Close() //nolint:errcheck // it was only listening
	const mirrors, atOnce = 7, 2
	m := r.master(nil, func(c *ssh.MasterConfig) {
		c.Parallel, c.DialTimeout = atOnce, config.Duration{Duration: bound}
		for i := range mirrors {
			c.Mirrors = append(c.Mirrors, ssh.MirrorAddress{Name: fmt.Sprint("dead", i), Address: silent.Addr().String(), Keys: []config.Path{config.Path(r.keyFile("one"))},
				HostKey: "SHA256:" + strings.Repeat("A", 43)})
		}
	})
	accept := func(within time.Duration) (net.Conn, error) {
		must(t, silent.(*net.TCPListener).SetDeadline(time.Now().Add(within)))
		return silent.Accept()
	}
	var held []net.Conn
	defer func() {
		for _, c := range held {
			c.Close() //nolint:errcheck // nothing was said over it
		}
	}()
	for range atOnce {
		c, err := accept(bound)
		must(t, err)
		held = append(held, c)
	}
	if c, err := accept(300 * time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		if err == nil {
			held = append(held, c)
		}
		t.Errorf("one more was called while %d were on their way: %v", atOnce, err)
	}
	m.await("all have had their turn", func() bool {
		must(t, held[0].Close())
		c, err := accept(bound)
		must(t, err)
		held = append(held[1:], c)
		return strings.Count(strings.Join(m.transport.Notes(), "\n"), "is not reached since") >= mirrors-atOnce
	})
}
