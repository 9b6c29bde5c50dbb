package outbox_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/mem"
	"github.com/mirrorbus/mirrorbus/transports/outbox"
)

// process is a receiver that wakes its relay, if it has one, when its transport connects.
type process struct {
	relay *outbox.Relay
	got   []string
}

func (p *process) Connected() {
	if p.relay != nil {
		p.relay.Connected()
	}
}

func (p *process) Receive(_ context.Context, m transports.Message) error {
	p.got = append(p.got, string(m.Body))
	return nil
}

// TestWithKeep puts a relay, Keep and a bus together as a daemon does: what was put while the bus was away arrives as soon as it is back.
func TestWithKeep(t *testing.T) {
	inBubble(t, func(t *testing.T, db *sql.DB) {
		bus := mem.NewBus(mem.Options{Capabilities: mem.All()})
		hub := transports.Checked(bus.Connect("hub"), mem.All(), nil)
		agent := transports.Checked(bus.Connect("agent"), mem.All(), nil)
		relay := outbox.NewRelay(outbox.Options{DB: db, Name: "mem", Transport: hub, Caps: mem.All()})
		mirror := &process{}
		ctx, cancel := context.WithCancel(t.Context())
		var g errgroup.Group
		g.Go(func() error { return relay.Run(ctx) })
		g.Go(func() error { return transports.Keep(ctx, hub, nil, &process{relay: relay}, transports.KeepOptions{}) })
		g.Go(func() error {
			return transports.Keep(ctx, agent, []transports.Subscription{{Topic: fedora}}, mirror, transports.KeepOptions{})
		})
		synctest.Wait()
		bus.Stop()
		for i := range 3 {
			put(t, db, []string{"mem"}, entry(fedora, fmt.Sprint(i)))
			relay.Wake()
		}
		time.Sleep(time.Hour)
		bus.Start()
		time.Sleep(time.Minute) // both are connected again, and the relay did not wait longer than the hub
		cancel()
		if err := g.Wait(); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		want(t, "received", mirror.got, "0", "1", "2")
	})
}
