package amqp_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/amqp"
)

// TestEmbargo: a module that not everybody may hear of goes into the log of those who may, and into no other.
func TestEmbargo(t *testing.T) {
	t.Parallel()
	s := newSite(t, amqp.DefaultTopology())
	secret := transports.Topic{Kind: transports.Announce, Module: "secret.one"}
	public := transports.Topic{Kind: transports.Announce, Module: "fedora"}
	master, err := s.open(transports.Master, "master", transports.Env{Allowed: func(peer string, topic transports.Topic, _ bool) error {
		if topic.Module == "secret.one" && peer != "tier1" {
			return errors.New("not for " + peer)
		}
		return nil
	}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	all := []transports.Subscription{{Topic: secret}, {Topic: public}}
	runs := func(tr transports.Transport) *reader {
		t.Helper()
		r := &reader{ended: make(chan error, 1), transport: tr.(*transports.CheckedTransport)}
		ctx, cancel := context.WithCancelCause(context.Background())
		go func() { r.ended <- tr.Run(ctx, all, r) }()
		t.Cleanup(func() {
			cancel(errOver)
			if err := <-r.ended; !errors.Is(err, errOver) {
				t.Errorf("it ended with %v", err)
			}
		})
		testenv.WaitFor(t, patience, func() error {
			r.mu.Lock()
			defer r.mu.Unlock()
			if !r.connected {
				return errors.New("not connected")
			}
			return nil
		})
		return r
	}
	mirror := func(name string, embargoed bool) *reader {
		t.Helper()
		tr, err := s.open(transports.Mirror, name, transports.Env{}, func(c *amqp.MirrorConfig) { c.Embargoed = embargoed })
		if err != nil {
			t.Fatal(err)
		}
		return runs(tr)
	}
	runs(master)
	tier1, other := mirror("tier1", true), mirror("other", false)
	for _, m := range []transports.Message{{Topic: secret, ID: "1", Body: []byte("hidden")}, {Topic: public, ID: "2", Body: []byte("seen")}} {
		if err := master.Publish(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	other.hears(t, "seen")
	testenv.WaitFor(t, patience, func() error { // two logs have no order between them
		tier1.mu.Lock()
		defer tier1.mu.Unlock()
		if heard := strings.Join(tier1.bodies, " "); heard != "hidden seen" && heard != "seen hidden" {
			return errors.New("it has heard " + heard)
		}
		return nil
	})
	other.hears(t, "seen")
}

// TestReturned: what no queue takes is not accepted, and is when one does.
func TestReturned(t *testing.T) {
	t.Parallel()
	s := newSite(t, amqp.DefaultTopology())
	m := s.member(&member{role: transports.Mirror, name: "alpha"}).run()
	m.await(0)
	if err := s.channel().QueueUnbind("mb.report.in", "report.#", "mb.report", nil); err != nil {
		t.Fatal(err)
	}
	tr, ok := m.transport.(*transports.CheckedTransport)
	if !ok {
		t.Fatalf("it is a %T", m.transport)
	}
	err := tr.Publish(t.Context(), m.message("lost"))
	if err == nil || !strings.Contains(err.Error(), "no queue for it: run `mirrorbus amqp init`") {
		t.Errorf("a report that nobody takes: %v", err)
	}
	if n := tr.Counters()["returned"]; n != 1 {
		t.Errorf("%d are counted as returned, want 1", n)
	}
	if err := s.channel().QueueBind("mb.report.in", "report.#", "mb.report", false, nil); err != nil {
		t.Fatal(err)
	}
	if err := tr.Publish(t.Context(), m.message("taken")); err != nil {
		t.Errorf("a report that is taken: %v", err)
	}
}

// TestReportOfAnotherUser: a report under a mirror's key that the broker says another user has sent is nobody's.
func TestReportOfAnotherUser(t *testing.T) {
	t.Parallel()
	s := newSite(t, amqp.DefaultTopology())
	master := s.listen(transports.Master, "master", "")
	s.sends("mb.report", "report.alpha.fedora", amqp091.Publishing{UserId: s.node.User, Body: []byte("forged")})
	s.sends("mb.report", "report.alpha.fedora", amqp091.Publishing{Body: []byte("of nobody known")})
	s.sends("mb.report", "report."+s.node.User+".fedora", amqp091.Publishing{UserId: s.node.User, Body: []byte("true")})
	master.hears(t, "of nobody known", "true")
	if n := master.transport.Counters()["dropped"]; n != 1 {
		t.Errorf("%d are counted as dropped, want 1", n)
	}
}

// refusing is a receiver that refuses the first message.
type refusing struct {
	reader
	refused bool
}

var errRefused = errors.New("refused")

func (r *refusing) Receive(ctx context.Context, m transports.Message) error {
	if !r.refused {
		r.refused = true
		return errRefused
	}
	return r.reader.Receive(ctx, m)
}

// TestRefusedIsHeardAgain: the log is read again from what was not taken, also by another process with the same position.
func TestRefusedIsHeardAgain(t *testing.T) {
	t.Parallel()
	s := newSite(t, amqp.DefaultTopology())
	s.sends("mb.announce", "announce.fedora", amqp091.Publishing{MessageId: "1", Body: []byte("first")})
	tr, err := s.open(transports.Mirror, "alpha", transports.Env{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.Run(t.Context(), hears(transports.Mirror), &refusing{}); !errors.Is(err, errRefused) {
		t.Fatalf("it ended with %v", err)
	}
	s.listen(transports.Mirror, "alpha", "stream").hears(t, "first")
}
