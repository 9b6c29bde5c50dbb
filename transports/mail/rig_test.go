package mail_test

import (
	"cmp"
	"context"
	"errors"
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
	"github.com/mirrorbus/mirrorbus/transports/mail"
)

func TestMain(m *testing.M) { os.Exit(testenv.Main(m)) }

// mirrors are those that the conformance suite opens. Each has an address NAME@lmtp.test, which is a socket, as has the master.
var mirrors = []string{"mirror", "mirror-1", "mirror-2", "mirror-3", "one", "every", "slow", "quick"}

// others are the names that single tests use, each its own, as they run at the same time.
var others = []string{"loner", "gone-hub", "gone", "mixed-hub", "mixed", "report-hub", "report", "bounce-hub", "junk", "refusing", "thread-hub", "thread", "beat-hub", "beat", "tls-hub", "tls", "login", "loris", "panic", "digest-hub", "kept-hub", "kept", "embargo-hub", "inner", "outer"}

// boxes are the names of mailboxes that single tests use.
var boxes = []string{"box", "resumed", "shared", "renamed", "locked", "secure", "people", "answers", "readers", "talking", "silent"}

// postfix is the mail server of all tests here.
func postfix(t *testing.T) *testenv.Postfix {
	t.Helper()
	return testenv.SharedPostfix(t, testenv.PostfixOptions{Sockets: slices.Concat([]string{"master"}, mirrors, others), Maildirs: slices.Concat([]string{"master"}, mirrors, boxes)})
}

func at(name string) string { return name + "@lmtp.test" }

// post is a process that has the name as its address, and sends to others.
func post(server *testenv.Postfix, name string, to ...string) mail.Post {
	p := mail.DefaultMasterConfig().Post
	p.SMTP, p.TLS, p.From, p.LMTP = server.Addr(), "none", at(name), server.Socket(name)
	for _, other := range to {
		if !strings.Contains(other, "@") {
			other = at(other)
		}
		p.To = append(p.To, other)
	}
	p.Timeout = config.Duration{Duration: 10 * time.Second}
	return p
}

// masterOf is the configuration of a master.
func masterOf(p mail.Post) *mail.MasterConfig {
	c := mail.DefaultMasterConfig()
	c.Post = p
	return c
}

// opener opens transports the way a process does.
func opener(server *testenv.Postfix, lent transports.Env) func(transports.Role, string) (transports.Transport, error) {
	return func(role transports.Role, name string) (transports.Transport, error) {
		env := lent
		env.Self = name
		var conf any = &mail.MirrorConfig{Post: post(server, name, "master")}
		if role == transports.Master {
			conf = masterOf(post(server, name, mirrors...))
		}
		return transports.Registry{mail.Driver()}.Open(role, mail.Name, conf, env)
	}
}

var (
	debian  = transports.Topic{Kind: transports.Announce, Module: "debian"}
	reports = transports.Topic{Kind: transports.Report, Module: "debian"}
)

// bound is when a test gives up.
const bound = 20 * time.Second

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func msg(t transports.Topic, id string) transports.Message {
	return transports.Message{Topic: t, ID: id, Body: []byte("body of " + id)}
}

// A side is a transport that runs, and what it has received.
type side struct {
	*transports.CheckedTransport
	t       *testing.T
	log     testenv.Buffer
	refuses func(transports.Message) error
	ends    error // what Run is to return, if not that it was ended

	mu        sync.Mutex
	connected int
	got       []transports.Message
}

// start runs a transport until the test ends. Its kind is that of the topic it hears.
func start(t *testing.T, topic transports.Topic, p mail.Post) *side {
	t.Helper()
	s := prepare(t, topic, p, nil)
	s.run(topic)
	return s
}

// prepare makes a transport that does not run yet.
func prepare(t *testing.T, topic transports.Topic, p mail.Post, bookmarks transports.Bookmarks) *side {
	t.Helper()
	s := &side{t: t}
	var conf any = &mail.MirrorConfig{Post: p}
	role := transports.Mirror
	if topic.Kind == transports.Report {
		conf, role = masterOf(p), transports.Master
	}
	name, _, _ := strings.Cut(p.From, "@")
	var err error
	s.CheckedTransport, err = transports.Registry{mail.Driver()}.Open(role, mail.Name, conf, transports.Env{Self: name, Bookmarks: bookmarks, Log: slog.New(slog.NewTextHandler(&s.log, nil))})
	must(t, err)
	return s
}

// run runs the transport until the function it returns is called, or the test ends.
func (s *side) run(topic transports.Topic) (stop func()) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; !errors.Is(err, cmp.Or(s.ends, context.Canceled)) {
			s.t.Errorf("Run returned %v", err)
		}
	})
	s.t.Cleanup(stop)
	s.mu.Lock()
	before := s.connected
	s.mu.Unlock()
	go func() { done <- s.Run(ctx, []transports.Subscription{{Topic: topic}}, s) }()
	s.await("connected", func() bool { return s.connected > before })
	return stop
}

// Connected implements transports.Receiver.
func (s *side) Connected() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.connected++
}

// Receive implements transports.Receiver.
func (s *side) Receive(_ context.Context, m transports.Message) error {
	s.mu.Lock()
	refuses := s.refuses
	s.mu.Unlock()
	if refuses != nil {
		if err := refuses(m); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got = append(s.got, m)
	return nil
}

// answers makes the side return an error for every message.
func (s *side) answers(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuses = func(transports.Message) error { return err }
}

// await waits until the side satisfies a condition.
func (s *side) await(what string, ok func() bool) {
	s.t.Helper()
	testenv.WaitFor(s.t, bound, func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if ok() {
			return nil
		}
		return fmt.Errorf("not %s; connected %d times, got %d messages, counted %v; log:\n%s", what, s.connected, len(s.got), s.Counters(), s.log.String())
	})
}

func (s *side) has(id string) {
	s.t.Helper()
	s.await("has "+id, func() bool {
		return slices.ContainsFunc(s.got, func(m transports.Message) bool { return m.ID == id && string(m.Body) == "body of "+id })
	})
}

func (s *side) counts(what string, n uint64) {
	s.t.Helper()
	s.await(fmt.Sprintf("counted %d %s", n, what), func() bool { return s.Counters()[what] >= n })
}

func (s *side) publish(m transports.Message) {
	s.t.Helper()
	must(s.t, s.Publish(s.t.Context(), m))
}
