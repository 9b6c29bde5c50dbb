package ssh_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/ssh"
)

var (
	debian  = transports.Topic{Kind: transports.Announce, Module: "debian"}
	reports = transports.Topic{Kind: transports.Report, Module: "debian"}
)

// bound is when a test gives up.
const bound = 20 * time.Second

func msg(t transports.Topic, id string) transports.Message {
	return transports.Message{Topic: t, ID: id, Body: []byte("body of " + id)}
}

// A side is a transport that runs, and what it has received.
type side[T transports.Transport] struct {
	transport T
	t         *testing.T
	log       testenv.Buffer
	refuses   func(transports.Message) error

	mu        sync.Mutex
	connected int
	got       []string
}

// start runs a transport until the test ends.
func start[T transports.Transport](t *testing.T, topic transports.Topic, open func(transports.Env) (T, error)) *side[T] {
	t.Helper()
	s := &side[T]{t: t}
	var err error
	s.transport, err = open(transports.Env{Log: slog.New(slog.NewTextHandler(&s.log, nil))})
	must(t, err)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.transport.Run(ctx, []transports.Subscription{{Topic: topic}}, s) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v", err)
		}
	})
	return s
}

// Connected implements transports.Receiver.
func (s *side[T]) Connected() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.connected++
}

// Receive implements transports.Receiver.
func (s *side[T]) Receive(_ context.Context, m transports.Message) error {
	if s.refuses != nil {
		if err := s.refuses(m); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got = append(s.got, m.ID)
	return nil
}

// await waits until the side satisfies a condition.
func (s *side[T]) await(what string, ok func() bool) {
	s.t.Helper()
	testenv.WaitFor(s.t, bound, func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if ok() {
			return nil
		}
		return fmt.Errorf("not %s; connected %d times, got %v; log:\n%s", what, s.connected, s.got, s.log.String())
	})
}

func (s *side[T]) has(id string) {
	s.t.Helper()
	s.await("has "+id, func() bool { return slices.Contains(s.got, id) })
}

func (s *side[T]) isConnected(times int) {
	s.t.Helper()
	s.await("connected", func() bool { return s.connected >= times })
}

func (s *side[T]) logs(text string) {
	s.t.Helper()
	s.await("logged "+text, func() bool { return strings.Contains(s.log.String(), text) })
}

// master calls the named mirrors.
func (r *rig) master(names []string, change ...func(*ssh.MasterConfig)) *side[*ssh.Master] {
	r.t.Helper()
	conf := r.masterConf()
	conf.Mirrors = slices.DeleteFunc(conf.Mirrors, func(m ssh.MirrorAddress) bool { return !slices.Contains(names, m.Name) })
	for _, f := range change {
		f(conf)
	}
	return start(r.t, reports, func(e transports.Env) (*ssh.Master, error) { return ssh.NewMaster(*conf, e) })
}

func (r *rig) mirror(name string, change ...func(*ssh.MirrorConfig)) *side[*ssh.Mirror] {
	r.t.Helper()
	conf := r.mirrorConf(name)
	for _, f := range change {
		f(conf)
	}
	return start(r.t, debian, func(e transports.Env) (*ssh.Mirror, error) { return ssh.NewMirror(*conf, e) })
}
