package poll_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/poll"
)

// bound is when a test gives up.
const bound = 20 * time.Second

var fedora = transports.Topic{Kind: transports.Announce, Module: "fedora"}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func milliseconds(n int) config.Duration {
	return config.Duration{Duration: time.Duration(n) * time.Millisecond}
}

// mirrorConf is the configuration of a mirror that looks often.
func mirrorConf(p poll.Places) *poll.MirrorConfig {
	c := poll.DefaultMirrorConfig()
	c.Places, c.EveryMin, c.EveryMax, c.Timeout = p, milliseconds(10), milliseconds(50), milliseconds(10_000)
	return c
}

// masterConf is the configuration of a master with a web server on a free port.
func masterConf(t testing.TB) *poll.MasterConfig {
	t.Helper()
	c := poll.DefaultMasterConfig()
	c.Listen, c.MaxAge = fmt.Sprint("127.0.0.1:", testenv.FreePort(t)), milliseconds(0)
	return c
}

func feedOf(c *poll.MasterConfig) string { return "http://" + c.Listen + "/{module}/feed.atom" }
func headOf(c *poll.MasterConfig) string { return "http://" + c.Listen + "/{module}/head" }

// line is a line of the kind as a master would sign it, with 370 bytes or so.
func line(kind string, serial int) string {
	rest := fmt.Sprintf("at=2026-11-20T19:02:%02dZ n=1482 set=%s prev=%s", serial%60, strings.Repeat("S", 43), strings.Repeat("P", 43))
	if kind == "head" {
		rest = fmt.Sprintf("at=2026-11-20T19:02:%02dZ ttl=900 last=%s man=%s", serial%60, strings.Repeat("L", 43), strings.Repeat("M", 43))
	}
	return fmt.Sprintf("mirrorbus1 %s module=fedora epoch=7c1e9f02 serial=%d %s key=%s sig=%s", kind, serial, rest, strings.Repeat("K", 11), strings.Repeat("s", 86))
}

func change(serial int) transports.Message {
	return transports.Message{Topic: fedora, ID: fmt.Sprint("7c1e9f02.", serial), Body: []byte(line("change", serial))}
}

func head(serial int) transports.Message {
	return transports.Message{Topic: fedora, ID: fmt.Sprint("7c1e9f02.", serial, ".head.1"), Body: []byte(line("head", serial))}
}

// A side is a transport that may run, and what it has received.
type side struct {
	*transports.CheckedTransport
	t   testing.TB
	log lockedBuffer

	mu        sync.Mutex
	refuses   error
	connected int
	got       []string
}

// open opens a transport the way a process does.
func open(t testing.TB, role transports.Role, conf any, env transports.Env) *side {
	t.Helper()
	s := &side{t: t}
	env.Self, env.Log = string(role), slog.New(slog.NewTextHandler(&s.log, nil))
	var err error
	s.CheckedTransport, err = transports.Registry{poll.Driver()}.Open(role, poll.Name, conf, env)
	must(t, err)
	return s
}

func openMaster(t testing.TB, c *poll.MasterConfig) *side {
	t.Helper()
	s := open(t, transports.Master, c, transports.Env{})
	s.runs(transports.Topic{Kind: transports.Report, Module: "fedora"})
	return s
}

func openMirror(t testing.TB, p poll.Places) *side {
	t.Helper()
	s := open(t, transports.Mirror, mirrorConf(p), transports.Env{})
	s.runs(fedora)
	return s
}

// runs runs the transport until the function it returns is called, or the test ends, and waits until it is connected.
func (s *side) runs(topic transports.Topic) (stop func()) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
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

// ends runs the transport until it ends by itself, and returns why.
func (s *side) ends() error {
	s.t.Helper()
	ctx, cancel := context.WithTimeoutCause(s.t.Context(), bound, errors.New("it goes on and on"))
	defer cancel()
	return s.Run(ctx, []transports.Subscription{{Topic: fedora}}, s)
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
	defer s.mu.Unlock()
	if s.refuses != nil {
		return s.refuses
	}
	s.got = append(s.got, string(m.Body))
	return nil
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
		return fmt.Errorf("not %s; connected %d times, got %d messages, counted %v, noted %q; log:\n%s",
			what, s.connected, len(s.got), s.Counters(), s.Notes(), s.log.String())
	})
}

func (s *side) has(m transports.Message) {
	s.t.Helper()
	s.await("has "+m.ID, func() bool { return slices.Contains(s.got, string(m.Body)) })
}

// notes waits until a note says something.
func (s *side) notes(text string) {
	s.t.Helper()
	s.await("noted "+text, func() bool { return strings.Contains(strings.Join(s.Notes(), "\n"), text) })
}

func (s *side) publish(all ...transports.Message) {
	s.t.Helper()
	for _, m := range all {
		must(s.t, s.Publish(s.t.Context(), m))
	}
}

// lockedBuffer is a log that several goroutines write.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
