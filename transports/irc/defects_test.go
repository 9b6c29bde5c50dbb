package irc_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/irc"
)

// These tests are named for what the library does, each of which does not show here.

// G1: it takes a server that says how long a line may be for one that takes lines of 4 KiB.
func TestG1LongLinesAreNotCut(t *testing.T) {
	t.Parallel()
	port := testenv.StartInspIRCd(t, testenv.IRCOptions{}).Port
	reader := testenv.DialIRC(t, port, "reader", "")
	reader.Join(channel)
	m, heard := master(t, port), mirror(t, port, "mirror")
	line := body(1)
	line += " x=" + strings.Repeat("y", 372-len(line)-3)
	for _, text := range []string{line, line + "z", line + "\n", body(2) + "\n", strings.Repeat("long ", 800)} {
		m.publishes(message(fedora, text))
		heard.has(text)
	}
	reader.Await("PRIVMSG " + channel + " :" + line)
	if n := reader.Count(line + "z"); n != 0 {
		t.Error("a line that is too long was said in one")
	}
}

// G2: its Connect does not return while the peer takes nothing.
func TestG2StalledPeerEndsTheRun(t *testing.T) {
	t.Parallel()
	proxy := testenv.StartProxy(t, testenv.StartNgIRCd(t, testenv.IRCOptions{}).Port)
	for name, end := range map[string]func(*side){
		"by answer_timeout": func(s *side) { s.cannotPublish(announce(1), "answer_timeout") },
		"by its context":    func(s *side) { s.stop() },
	} {
		s := open(t, transports.Master, proxy.Port, "master", func(n *irc.Network) { n.AnswerTimeout = span(300 * time.Millisecond) }).run().isConnected(1)
		proxy.Hang(true)
		end(s)
		if err := s.ends(); err == nil {
			t.Errorf("%s: Run returned nil", name)
		}
		proxy.Hang(false)
		proxy.Drop()
	}
}

// peer is a TCP server that treats its connections as a test says.
func peer(t *testing.T, treat func(net.Conn)) (port int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	var all sync.WaitGroup
	t.Cleanup(func() {
		l.Close() //nolint:errcheck // it only listened
		all.Wait()
	})
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close() //nolint:errcheck // nothing matters any more
				treat(c)
			})
		}
	})
	return l.Addr().(*net.TCPAddr).Port
}

// silent takes what comes, and says nothing until the other side goes.
func silent(c net.Conn) {
	for buf := make([]byte, 1024); ; {
		if _, err := c.Read(buf); err != nil {
			return
		}
	}
}

// G3: its TLS handshake has no limit. The peer is one that takes all and says nothing, or a server that hangs.
func TestG3SilentPeerIsGivenUp(t *testing.T) {
	t.Parallel()
	cert := testenv.NewAuthority(t).Issue("server", 2*time.Hour, "127.0.0.1")
	server := testenv.StartInspIRCd(t, testenv.IRCOptions{TLS: &cert})
	server.Freeze()
	defer server.Thaw()
	port := peer(t, silent)
	for _, tls := range []bool{true, false} {
		for name, port := range map[string]int{"peer": port, "server": map[bool]int{true: server.TLSPort, false: server.Port}[tls]} {
			s := open(t, transports.Master, port, "master", func(n *irc.Network) { n.TLS, n.DialTimeout = tls, span(300*time.Millisecond) }).run()
			if err := s.ends(); !strings.Contains(err.Error(), "dial_timeout") || transports.IsPermanent(err) {
				t.Errorf("silent %s, tls %v: Run returned %v", name, tls, err)
			}
		}
	}
}

// G4: what was to be said while the server was away is an error then, and is not said when it is back.
func TestG4NothingIsSaidLater(t *testing.T) {
	t.Parallel()
	server := testenv.StartNgIRCd(t, testenv.IRCOptions{})
	reader, between := op(t, server.Port), testenv.StartProxy(t, server.Port)
	m := master(t, between.Port)
	m.publishes(announce(1))
	between.Refuse(true)
	m.ends() //nolint:errcheck // the server has gone
	for n := range 5 {
		if err := m.Publish(t.Context(), announce(10+n)); !notConnected(err) {
			t.Errorf("Publish returned %v", err)
		}
	}
	between.Refuse(false)
	m.run().isConnected(2)
	m.publishes(announce(2))
	reader.Await(body(2))
	if n := reader.Count(body(1)); n != 1 {
		t.Errorf("%d lines were said, of those from before and of those to be said meanwhile", n)
	}
}

// G4: what waits in it is said in the next connection, before anything else.
func TestG4NothingIsSaidBeforeRegistration(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var first []string
	port := peer(t, func(c net.Conn) {
		in := bufio.NewScanner(c)
		for n := 0; n < 3 && in.Scan(); n++ {
			mu.Lock()
			first = append(first, strings.Fields(in.Text())[0])
			mu.Unlock()
		}
	})
	s := open(t, transports.Master, port, "master")
	ctx, stop := context.WithCancel(t.Context())
	var both sync.WaitGroup
	both.Go(func() { transports.Keep(ctx, s, nil, s, transports.KeepOptions{Max: time.Millisecond}) }) //nolint:errcheck // it is stopped
	defer both.Wait()
	defer stop()
	s.await("three connections", func() bool {
		if err := s.Publish(ctx, announce(1)); !notConnected(err) {
			t.Errorf("Publish returned %v", err)
		}
		mu.Lock()
		defer mu.Unlock()
		return len(first) >= 9
	})
	mu.Lock()
	defer mu.Unlock()
	if !slices.Equal(first[:9], slices.Repeat([]string{"CAP", "NICK", "USER"}, 3)) {
		t.Errorf("said %q", first)
	}
}

// onEach runs a test on a server of each kind.
func onEach(t *testing.T, o testenv.IRCOptions, test func(t *testing.T, port int)) {
	t.Helper()
	for name, start := range map[string]func(testing.TB, testenv.IRCOptions) *testenv.IRCServer{"ngircd": testenv.StartNgIRCd, "inspircd": testenv.StartInspIRCd} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, start(t, o).Port)
		})
	}
}

// G7: it tries one other nick, again and again.
func TestG7NickIsTakenAndGivenBack(t *testing.T) {
	t.Parallel()
	onEach(t, testenv.IRCOptions{}, func(t *testing.T, port int) {
		holder := testenv.DialIRC(t, port, "master", "")
		holder.Join(channel)
		testenv.DialIRC(t, port, "master_", "")
		m, heard := master(t, port), mirror(t, port, "mirror")
		m.logs("somebody else has our nick")
		if notes := m.Notes(); len(notes) != 1 || !strings.Contains(notes[0], "somebody else has the nick master") {
			t.Errorf("noted %q", notes)
		}
		m.publishes(announce(1))
		heard.has(body(1))
		holder.Send("QUIT")
		m.logs("has another nick")
		heard.publishes(message(reports, "mirrorbus1 report module=fedora"))
		m.has("mirrorbus1 report module=fedora")
	})
}

// G8: it goes on without an account where nobody can log in.
func TestG8NoAccountIsAnError(t *testing.T) {
	t.Parallel()
	plain := func(n *irc.Network) { n.SASL, n.Password = "plain", config.NewSecret(secret) }
	ng := testenv.StartNgIRCd(t, testenv.IRCOptions{})
	open(t, transports.Master, ng.Port, "master", plain).run().endsPermanently("lets nobody log in (SASL)")
	insp := testenv.StartInspIRCd(t, testenv.IRCOptions{}) // which offers it while there are services
	open(t, transports.Master, insp.Port, "master", plain).run().endsPermanently("lets nobody log in (SASL)")
}

// G10: its parts race with each other. To be run with -race.
func TestG10ComingAndGoing(t *testing.T) {
	t.Parallel()
	port := testenv.StartNgIRCd(t, testenv.IRCOptions{}).Port
	for range 5 {
		m := master(t, port)
		var all sync.WaitGroup
		for n := range 4 {
			all.Go(func() {
				for m.Publish(context.Background(), announce(n)) == nil {
				}
			})
		}
		testenv.WaitFor(t, bound, func() error {
			if m.Counters()["lines_said"] < 20 {
				return errors.New("hardly begun")
			}
			return nil
		})
		m.stop()
		m.ends() //nolint:errcheck // it was stopped
		all.Wait()
	}
}

// G11: it drops what comes while a message is being handled.
func TestG11SlowReceiverLosesNothing(t *testing.T) {
	t.Parallel()
	port := testenv.StartNgIRCd(t, testenv.IRCOptions{}).Port
	m := master(t, port)
	heard := open(t, transports.Mirror, port, "mirror", func(n *irc.Network) { n.Keepalive = span(200 * time.Millisecond) })
	release := make(chan struct{})
	heard.wait = func() { <-release }
	heard.run().isConnected(1)
	var want []string
	for n := range 200 {
		m.publishes(announce(n))
		want = append(want, body(n))
	}
	time.AfterFunc(time.Second, func() { close(release) }) // several times its keepalive
	heard.await("all are heard", func() bool { return slices.Equal(heard.bodies(), want) })
	if c := heard.Counters(); c["connects"] != 1 {
		t.Errorf("counted %v", c)
	}
}

// G13: two seconds after the welcome it says that it is connected, even if it is not any more.
func TestG13NothingIsLeftBehind(t *testing.T) {
	port := testenv.StartNgIRCd(t, testenv.IRCOptions{}).Port
	before := goleak.IgnoreCurrent()
	m := master(t, port)
	m.stop()
	m.ends() //nolint:errcheck // it was stopped
	if err := goleak.Find(before); err != nil {
		t.Error(err)
	}
}

// G14: it looks whether the server is there every 20 s at most, and first after 30.
func TestG14HalfOpenConnectionIsNoticed(t *testing.T) {
	t.Parallel()
	server := testenv.StartNgIRCd(t, testenv.IRCOptions{})
	m := master(t, server.Port, func(n *irc.Network) { n.Keepalive = span(200 * time.Millisecond) })
	server.Freeze()
	defer server.Thaw()
	if err := m.ends(); err == nil || !strings.Contains(err.Error(), "it has said nothing for 400ms") {
		t.Errorf("Run returned %v", err)
	}
}

// A line that does not end takes no memory.
func TestEndlessLine(t *testing.T) {
	t.Parallel()
	port := peer(t, func(c net.Conn) {
		for range 10 << 10 {
			if _, err := fmt.Fprint(c, strings.Repeat("x", 1024)); err != nil {
				return
			}
		}
	})
	if err := open(t, transports.Master, port, "master").run().ends(); !strings.Contains(err.Error(), "no IRC server") {
		t.Errorf("Run returned %v", err)
	}
}
