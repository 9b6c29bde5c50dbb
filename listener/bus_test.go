package listener_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/listener"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/mem"
)

func TestTierBelowIsFedByTheTierAbove(t *testing.T) {
	w := newWorld(t)
	a := w.adopted()
	below := newWorld(t)
	d := testenv.StartRsyncd(t, testenv.RsyncdOptions{}, testenv.Module{Name: "pub", Path: w.dest})
	b := below.agentOf(below.runnerOf(d.URL("pub", "")))
	w.write(testenv.File("a", "x"))
	w.send(a, w.announce(w.rec(event.Write, "a")))
	w.must(a.Reconcile(t.Context(), pub))
	w.must(b.Reconcile(t.Context(), pub))
	if s := below.status(b); s.Applied != 2 {
		t.Errorf("%+v", s)
	}
	if d := slices.DeleteFunc(testenv.Diff(t, w.up, below.dest, event.ExportDir), below.dirTime); len(d) > 0 {
		t.Errorf("the tier below differs: %q", d)
	}
	w.write(testenv.File("c", "x"))
	x := w.announce(w.rec(event.Write, "c"))
	below.send(b, x) // before the tier above has it
	if err := b.Reconcile(t.Context(), pub); err == nil || below.status(b).State != listener.Waiting {
		t.Errorf("%v %+v", err, below.status(b))
	}
	w.send(a, x)
	w.must(a.Reconcile(t.Context(), pub))
	w.must(b.SyncNow(t.Context(), pub))
	w.must(b.Reconcile(t.Context(), pub))
	if s := below.status(b); s.Applied != 3 {
		t.Errorf("%+v", s)
	}
}

func TestConnectedLooksAtTheHeadAndSaysHave(t *testing.T) {
	w := newWorld(t)
	bus := mem.NewBus(mem.Options{Capabilities: mem.All()})
	hub, own := bus.Connect("hub"), bus.Connect("mirror1")
	w.must(w.adopted().Close())
	a := w.reopen(func(o *listener.Options) {
		o.Publish = func(ctx context.Context, _ string, m transports.Message) error { return own.Publish(ctx, m) }
	})
	w.write(testenv.File("a", "x"))
	w.announce(w.rec(event.Write, "a")) // its message is lost
	start(t, a)
	heard := make(chan event.Report, 100)
	run(t, hub, transports.Topic{Kind: transports.Report, Module: string(pub)}, receive(func(m transports.Message) error {
		s, err := event.Read(m.Body)
		if err == nil {
			heard <- *s.Report
		}
		return err
	}))
	run(t, own, transports.Topic{Kind: transports.Announce, Module: string(pub)}, a.Receiver("mem"))
	select {
	case r := <-heard:
		if r.Outcome != event.Have || r.Applied > 2 || r.Mirror != "mirror1" {
			t.Errorf("%+v", r)
		}
	case <-time.After(waitLong):
		t.Fatal("no have")
	}
	w.waitFor(a, "applied", func(s listener.ModuleStatus) bool { return s.Applied == 2 })
	w.same(a, 2)
	w.write(testenv.File("b", "x"))
	x := w.announce(w.rec(event.Write, "b"))
	w.must(hub.Publish(t.Context(), transports.Message{Topic: transports.Topic{Kind: transports.Announce, Module: string(pub)}, ID: "3", Body: x.body}))
	w.waitFor(a, "applied", func(s listener.ModuleStatus) bool { return s.Applied == 3 && s.State == listener.Current })
	w.same(a, 3)
}

// receive is a transports.Receiver of a function.
type receive func(transports.Message) error

func (receive) Connected() {}

func (f receive) Receive(_ context.Context, m transports.Message) error { return f(m) }

func run(t *testing.T, tr transports.Transport, topic transports.Topic, r transports.Receiver) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	connected, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- transports.Keep(ctx, tr, []transports.Subscription{{Topic: topic}}, r, transports.KeepOptions{State: func(s transports.State) {
			if s.Connected {
				close(connected)
			}
		}})
	}()
	t.Cleanup(func() { cancel(); <-done })
	<-connected
}
