package irc_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/irc"
)

var (
	fedora  = transports.Topic{Kind: transports.Announce, Module: "fedora"}
	reports = transports.Topic{Kind: transports.Report, Module: "fedora"}
)

const (
	bound   = 20 * time.Second
	channel = "#mirrorbus"
	secret  = "hunter2-is-secret"
)

// TestMain runs many tests beside each other: they wait for servers, and hardly compute.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "24"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

func span(d time.Duration) config.Duration { return config.Duration{Duration: d} }

// network is how tests reach a server: without TLS, and as fast as a test likes.
func network(port int, nick string) irc.Network {
	n := irc.DefaultMasterConfig().Network
	n.Servers, n.TLS, n.Nick, n.Rate, n.Burst = []string{fmt.Sprint("127.0.0.1:", port)}, false, nick, 10000, 1000
	n.DialTimeout, n.AnswerTimeout = span(bound), span(bound)
	return n
}

func masterConfig(n irc.Network) *irc.MasterConfig {
	c := irc.DefaultMasterConfig()
	c.Network = n
	return c
}

// opener opens transports the way a process does. The nick is the process's name.
func opener(server func() *testenv.IRCServer, env transports.Env) func(transports.Role, string) (transports.Transport, error) {
	return func(role transports.Role, name string) (transports.Transport, error) {
		n := network(server().Port, "")
		n.ServerPassword = config.NewSecret(secret)
		env := env
		env.Self = name
		var conf any = &irc.MirrorConfig{Network: n, Master: "master"}
		if role == transports.Master {
			conf = masterConfig(n)
		}
		return transports.Registry{irc.Driver()}.Open(role, irc.Name, conf, env)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func body(n int) string { return fmt.Sprintf("mirrorbus1 change module=fedora serial=%d", n) }

// announce is a message that is one line.
func announce(n int) transports.Message { return message(fedora, body(n)) }

func message(t transports.Topic, text string) transports.Message {
	return transports.Message{Topic: t, ID: "x", Body: []byte(text)}
}

// A side is a transport that runs, and what it has received.
type side struct {
	*transports.CheckedTransport
	t    testing.TB
	role transports.Role
	log  testenv.Buffer
	wait func() // called with each message, if set
	subs []transports.Subscription

	stop context.CancelFunc
	done chan error

	mu        sync.Mutex
	connected int
	got       []transports.Message
}

// open opens one end; change may alter its configuration.
func open(t testing.TB, role transports.Role, port int, nick string, change ...func(*irc.Network)) *side {
	t.Helper()
	n := network(port, nick)
	for _, f := range change {
		f(&n)
	}
	var conf any = &irc.MirrorConfig{Network: n, Master: "master"}
	if role == transports.Master {
		conf = masterConfig(n)
	}
	s := &side{t: t, role: role, done: make(chan error, 1)}
	var err error
	s.CheckedTransport, err = transports.Registry{irc.Driver()}.Open(role, irc.Name, conf,
		transports.Env{Self: nick, Log: slog.New(slog.NewTextHandler(&s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	must(t, err)
	return s
}

// run runs a side until the test ends.
func (s *side) run() *side {
	return s.runs(func(ctx context.Context, subs []transports.Subscription) error { return s.Run(ctx, subs, s) })
}

// keep runs a side again and again until the test ends, as a daemon does.
func (s *side) keep() *side {
	return s.runs(func(ctx context.Context, subs []transports.Subscription) error {
		return transports.Keep(ctx, s, subs, s, transports.KeepOptions{Min: 10 * time.Millisecond, Max: time.Second})
	})
}

func (s *side) runs(run func(context.Context, []transports.Subscription) error) *side {
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	if s.subs == nil && s.role == transports.Master {
		s.subs = []transports.Subscription{{Topic: reports}}
	}
	if s.subs == nil {
		s.subs = []transports.Subscription{{Topic: fedora}}
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.done <- run(ctx, s.subs)
	}()
	s.t.Cleanup(func() {
		stop()
		<-ended
	})
	return s
}

// master and mirror are sides in the channel.
func master(t testing.TB, port int, change ...func(*irc.Network)) *side {
	t.Helper()
	return open(t, transports.Master, port, "master", change...).run().isConnected(1)
}

func mirror(t testing.TB, port int, nick string, change ...func(*irc.Network)) *side {
	t.Helper()
	return open(t, transports.Mirror, port, nick, change...).run().isConnected(1)
}

// Connected implements transports.Receiver.
func (s *side) Connected() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.connected++
}

// Receive implements transports.Receiver.
func (s *side) Receive(_ context.Context, m transports.Message) error {
	if s.wait != nil {
		s.wait()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got = append(s.got, m)
	return nil
}

func (s *side) bodies() (all []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.got {
		all = append(all, string(m.Body))
	}
	return all
}

func (s *side) await(what string, ok func() bool) {
	s.t.Helper()
	testenv.WaitFor(s.t, bound, func() error {
		if ok() {
			return nil
		}
		return fmt.Errorf("%s: not %s; got %d messages; log:\n%s", s.role, what, len(s.bodies()), s.log.String())
	})
}

func (s *side) isConnected(times int) *side {
	s.t.Helper()
	s.await(fmt.Sprint("connected ", times), func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.connected >= times
	})
	return s
}

// connects is how often it was told that it is connected.
func (s *side) connects() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.connected
}

func (s *side) has(text string) {
	s.t.Helper()
	s.await("has "+text, func() bool { return slices.Contains(s.bodies(), text) })
}

func (s *side) logs(text string) {
	s.t.Helper()
	s.await("logged "+text, func() bool { return strings.Contains(s.log.String(), text) })
}

// ends waits until Run has ended, and returns its error.
func (s *side) ends() error {
	s.t.Helper()
	select {
	case err := <-s.done:
		return err
	case <-time.After(bound):
		s.t.Fatalf("Run has not ended; log:\n%s", s.log.String())
		return nil
	}
}

// endsPermanently waits until Run has ended with an error that names a text, and that somebody must act on.
func (s *side) endsPermanently(text string) {
	s.t.Helper()
	if err := s.ends(); !transports.IsPermanent(err) || !strings.Contains(err.Error(), text) {
		s.t.Errorf("Run returned %v, want a permanent error with %q", err, text)
	}
}

// publishes publishes, and the server takes it.
func (s *side) publishes(ms ...transports.Message) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	for _, m := range ms {
		if err := s.Publish(ctx, m); err != nil {
			s.t.Fatalf("%s: publish: %v; log:\n%s", s.role, err, s.log.String())
		}
	}
}

// cannotPublish waits until publishing fails with an error that names a text.
func (s *side) cannotPublish(m transports.Message, text string) (err error) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	testenv.WaitFor(s.t, bound, func() error {
		if err = s.Publish(ctx, m); err == nil || !strings.Contains(err.Error(), text) {
			return fmt.Errorf("publish returned %v, want an error with %q", err, text)
		}
		return nil
	})
	return err
}

// notConnected tells whether it is an error for which the outbox tries the whole transport again.
func notConnected(err error) bool { return errors.Is(err, transports.ErrNotConnected) }

func startNg(t *testing.T) *testenv.IRCServer {
	t.Helper()
	return testenv.StartNgIRCd(t, testenv.IRCOptions{})
}
