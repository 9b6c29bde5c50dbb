package amqp_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/amqp"
)

// alarm makes the node believe that it is short of memory, until the test ends or free is called.
func (s *site) alarm() (free func()) {
	s.t.Helper()
	set := func(limit string) { s.node.Ctl("set_vm_memory_high_watermark", "absolute", limit) }
	set("1MB")
	raised := true
	free = func() {
		if raised {
			raised = false
			set("4GB")
		}
	}
	s.t.Cleanup(free)
	return free
}

func TestBrokerShortOfMemory(t *testing.T) {
	before := goleak.IgnoreCurrent()
	s := newSite(t, crowded)
	master := s.member(&member{role: transports.Master, name: "master"}).run()
	master.await(0)
	waiting := numbered("waiting", 20)
	master.put(waiting...)
	mirror := s.member(&member{role: transports.Mirror, name: "quorum", own: true})
	testenv.WaitFor(t, patience, func() error { return s.holds("inbox.quorum", len(waiting)) })
	free := s.alarm()

	mirror.run()
	mirror.gets(waiting...) // who listens goes on
	for _, m := range []*member{master, mirror} {
		began := time.Now()
		err := m.transport.Publish(t.Context(), m.message("direct"))
		if took := time.Since(began); !errors.Is(err, amqp.ErrBlocked) || !errors.Is(err, transports.ErrNotConnected) || took > 12*time.Second {
			t.Errorf("%s: publish to a broker that takes nothing: %v after %v, want ErrBlocked within seconds", m.name, err, took)
		} else if !strings.Contains(err.Error(), "low on memory") {
			t.Errorf("%s: the broker's reason is not in %q", m.name, err)
		}
	}
	held := numbered("held", 20)
	master.put(held...)
	mirror.put("report")
	if mirror.connections() != 1 || master.connections() != 1 {
		t.Errorf("connected %d and %d times, want once each: to be told to wait is no reason to connect again", master.connections(), mirror.connections())
	}
	free()
	if n := mirror.gets(append(waiting, held...)...); n > 0 {
		t.Errorf("%d came twice", n)
	}
	master.getsAll("report")
	master.close()
	mirror.close()
	s.nothingLeft(before)
}

// holds tells whether a queue has so many messages.
func (s *site) holds(queue string, n int) error {
	code := "{ok, Q} = rabbit_amqqueue:lookup(rabbit_misc:r(<<%q>>, queue, <<%q>>)), [{messages, N}] = rabbit_amqqueue:info(Q, [messages]), N."
	if has := s.node.Eval(fmt.Sprintf(code, s.vhost, queue)); has != fmt.Sprint(n) {
		return fmt.Errorf("queue %s holds %s messages, not %d", queue, has, n)
	}
	return nil
}

// A write that nobody reads blocks once the sockets are full, and the library holds a lock meanwhile which it needs to end the connection.
func TestBrokerReadsNothing(t *testing.T) {
	for _, ends := range []string{"timeout", "context of the message", "context of the run"} {
		t.Run(ends, func(t *testing.T) {
			s := newSite(t, amqp.DefaultTopology())
			proxy := testenv.StartProxy(t, s.node.Port)
			before := goleak.IgnoreCurrent()
			m := s.member(&member{role: transports.Master, name: "master", tune: func(b *amqp.Broker) {
				b.Servers = []string{fmt.Sprint("amqp://127.0.0.1:", proxy.Port)}
				b.Heartbeat.Duration, b.WriteTimeout.Duration = time.Minute, time.Minute
				if ends == "timeout" {
					b.WriteTimeout.Duration = time.Second
				}
			}})
			running, stopRun := context.WithCancelCause(t.Context())
			defer stopRun(nil)
			ended := make(chan error, 1)
			go func() { ended <- m.transport.Run(running, hears(m.role), m) }()
			testenv.WaitFor(t, patience, func() error {
				if m.connections() == 0 {
					return errors.New("not connected")
				}
				return nil
			})
			proxy.Hang(true)
			sending, stopSending := context.WithCancelCause(t.Context())
			defer stopSending(nil)
			sent := make(chan error, 1)
			go func() { sent <- m.fill(sending) }()
			select {
			case err := <-sent:
				t.Fatalf("the sockets took everything (%v); the test needs more", err)
			case <-time.After(500 * time.Millisecond): // for the sockets to fill
			}
			switch ends {
			case "context of the message":
				stopSending(errOver)
			case "context of the run":
				stopRun(errOver)
			}
			if err := within(t, 10*time.Second, sent); err == nil || ends == "context of the message" && !errors.Is(err, errOver) {
				t.Errorf("publish into full sockets: %v", err)
			}
			stopRun(errOver)
			if err := within(t, 10*time.Second, ended); !errors.Is(err, errOver) {
				t.Errorf("run ended with %v", err)
			}
			proxy.Hang(false)
			proxy.Drop()
			m.close()
			s.nothingLeft(before)
		})
	}
}

// fill publishes more than sockets hold.
func (m *member) fill(ctx context.Context) error {
	batch := m.transport.(*transports.CheckedTransport).Batch()
	msgs := make([]transports.Message, 100)
	for i := range msgs {
		msgs[i] = m.message(fmt.Sprint("large-", i))
		msgs[i].Body = make([]byte, amqp.Driver().Capabilities(m.role).MaxBody)
	}
	return errors.Join(batch.PublishAll(ctx, msgs)...)
}

func within(t *testing.T, bound time.Duration, c <-chan error) error {
	t.Helper()
	select {
	case err := <-c:
		return err
	case <-time.After(bound):
		t.Fatalf("not within %v", bound)
		return nil
	}
}

// A frozen broker is found by its missing heartbeats, whatever is written to it at that time.
func TestFrozenBrokerAndLargeMessages(t *testing.T) {
	before := goleak.IgnoreCurrent()
	s := newSite(t, amqp.DefaultTopology())
	m := s.member(&member{role: transports.Master, name: "master", tune: func(b *amqp.Broker) {
		b.Heartbeat = config.Duration{Duration: 2 * time.Second}
	}}).run()
	m.await(0)
	s.node.Freeze()
	defer s.node.Thaw()
	sent := make(chan error, 1)
	go func() { sent <- m.fill(t.Context()) }()
	if err := within(t, 20*time.Second, sent); err == nil {
		t.Error("a frozen broker has confirmed messages")
	}
	m.awaitLoss(1)
	s.node.Thaw()
	m.await(1)
	if err := m.transport.Publish(t.Context(), m.message("after")); err != nil {
		t.Error(err)
	}
	m.close()
	s.nothingLeft(before)
}
