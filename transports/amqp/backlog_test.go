package amqp_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/amqp"
)

func TestThousandWait(t *testing.T) {
	s := newSite(t, crowded)
	c := s.crowd()
	for _, m := range c.mirrors() {
		m.stop()
	}
	waiting := numbered("waiting", 1000)
	c.master.put(waiting...)
	testenv.WaitFor(t, patience, func() error { return s.holds("inbox.quorum", 1000) })
	testenv.WaitFor(t, patience, func() error { return s.holds("inbox.classic", 1000) })
	for _, m := range c.mirrors() {
		m.run()
		if n := m.gets(waiting...); n > 0 {
			t.Errorf("%s: %d came twice", m.name, n)
		}
		m.stop() // what is not acknowledged comes again
		m.run().await(m.connections())
	}
	c.put("after")
	c.sent = append(waiting, c.sent...)
	for _, m := range c.mirrors() {
		if n := m.gets(c.sent...); n > 0 {
			t.Errorf("%s: %d came twice, the second time after it was there again", m.name, n)
		}
	}
}

// A receiver that was given a message when the connection was lost says that it has it on another connection, where the numbers that the broker
// gave to messages have begun anew: the broker must not be told that messages are safe that were not received.
func TestAcknowledgedOnTheConnectionItCameBy(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"stream", "quorum", "classic"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, crowded)
			entered, release := make(chan struct{}, 100), make(chan struct{})
			master := s.member(&member{role: transports.Master, name: "master-" + name}).run()
			master.await(0)
			m := s.member(&member{role: transports.Mirror, name: name, own: name != "stream", tune: func(b *amqp.Broker) { b.Prefetch = 10 },
				taken: func(ctx context.Context, msg transports.Message) error {
					if len(msg.ID) > 3 && msg.ID[len(msg.ID)-1] == '3' { // held until the connection has gone
						entered <- struct{}{}
						<-release
					}
					return nil
				}}).run()
			m.await(0)
			ids := numbered(name, 40)
			master.put(ids...)
			for held, connects := 0, 1; held < 4; held++ {
				<-entered
				s.cutAll("while a message is held")
				release <- struct{}{}
				m.await(connects)
				connects = m.connections()
				if held == 3 {
					close(release)
				}
			}
			t.Logf("%d came twice", m.gets(ids...))
			if name != "stream" {
				testenv.WaitFor(t, patience, func() error { return s.holds("inbox."+name, 0) })
			}
		})
	}
}

// Those who lose the same broker come back apart.
func TestManyComeBack(t *testing.T) {
	const many = 200
	before := goleak.IgnoreCurrent()
	s := newSite(t, amqp.DefaultTopology())
	master := s.member(&member{role: transports.Master, name: "master"}).run()
	master.await(0)
	ctx, leave := context.WithCancelCause(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer leave(errOver)
	all := make([]*member, many)
	for i := range all {
		m := &member{role: transports.Mirror, name: fmt.Sprint("mirror-", i), relay: master.relay, t: t}
		var err error
		if m.transport, err = s.open(m.role, m.name, transports.Env{}, nil); err != nil {
			t.Fatal(err)
		}
		all[i] = m
		running.Go(func() {
			transports.Keep(ctx, m.transport, hears(m.role), m, transports.KeepOptions{Min: 2 * time.Second, Max: 2 * time.Second, State: m.state}) //nolint:errcheck // it says why it was ended
		})
	}
	for _, m := range all {
		m.await(0)
	}
	s.node.Sync()
	s.node.Kill()
	for _, m := range all {
		m.awaitLoss(1)
	}
	bins := make([]int, 8)
	for _, m := range all {
		bins[int(m.firstWait()*8/(2*time.Second+1))]++
	}
	for i, n := range bins { // 25 are expected in each
		if n < 5 || n > 60 {
			t.Errorf("%d of %d try again in part %d of 8 of the time: %v", n, many, i+1, bins)
		}
	}
	s.node.Start()
	for _, m := range all {
		m.await(1)
	}
	master.await(1)
	master.put("after")
	for _, m := range all {
		m.gets("after")
		if _, permanent := m.said(""); permanent {
			t.Fatalf("%s has given up:\n\t%s", m.name, m.errors())
		}
	}
	leave(errOver)
	running.Wait()
	master.close()
	s.nothingLeft(before)
}

// firstWait is how long the member waited before its first attempt to connect again.
func (m *member) firstWait() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.states {
		if !s.Next.IsZero() {
			return min(max(s.Next.Sub(s.Since), 0), 2*time.Second)
		}
	}
	return 0
}

func TestBatchLargerThanTheWindow(t *testing.T) {
	t.Parallel()
	s := newSite(t, amqp.DefaultTopology())
	master := s.member(&member{role: transports.Master, name: "master", tune: func(b *amqp.Broker) { b.Window = 5 }}).run()
	mirror := s.member(&member{role: transports.Mirror, name: "mirror"}).run()
	master.await(0)
	mirror.await(0)
	ids := numbered("large", 23)
	var msgs []transports.Message
	for _, id := range ids {
		msgs = append(msgs, master.message(id))
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var both errgroup.Group
	for range 2 { // each takes the window from the other
		both.Go(func() error {
			return errors.Join(master.transport.(*transports.CheckedTransport).Batch().PublishAll(ctx, msgs)...)
		})
	}
	if err := both.Wait(); err != nil {
		t.Fatal(err)
	}
	mirror.gets(ids...)
}
