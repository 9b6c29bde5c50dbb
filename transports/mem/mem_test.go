package mem_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/mem"
	"github.com/mirrorbus/mirrorbus/transports/transporttest"
)

// harness makes buses with the given capabilities, and transports as open opens them.
func harness(caps transports.Capabilities, open func(transports.Driver, transports.Role, transports.Env) (transports.Transport, error)) transporttest.Harness {
	return transporttest.Harness{
		Driver: mem.NewBus(mem.Options{Capabilities: caps}).Driver(),
		Start: func(_ context.Context, env transports.Env) (*transporttest.Bus, error) {
			bus := mem.NewBus(mem.Options{Capabilities: caps, Backlog: env.Backlog})
			return &transporttest.Bus{
				Open: func(role transports.Role, name string) (transports.Transport, error) {
					env.Self = name
					return open(bus.Driver(), role, env)
				},
				Stop:    func(context.Context) error { bus.Stop(); return nil },
				Start:   func(context.Context) error { bus.Start(); return nil },
				Secrets: []string{"mem has no secret"},
			}, nil
		},
	}
}

// bare opens a transport as it is.
func bare(d transports.Driver, role transports.Role, env transports.Env) (transports.Transport, error) {
	return d.Open(role, &mem.Config{}, env)
}

// checked opens a transport as a process does.
func checked(d transports.Driver, role transports.Role, env transports.Env) (transports.Transport, error) {
	return transports.Registry{d}.Open(role, d.Name, &mem.Config{Name: env.Self}, env)
}

func TestConformance(t *testing.T) {
	poor := transports.Capabilities{MaxBody: 372}
	t.Run("all", func(t *testing.T) { transporttest.Run(t, harness(mem.All(), bare)) })
	t.Run("all-checked", func(t *testing.T) { transporttest.Run(t, harness(mem.All(), checked)) })
	t.Run("poor", func(t *testing.T) { transporttest.Run(t, harness(poor, bare)) })
}

func TestOpenRefusesAnotherConfiguration(t *testing.T) {
	d := mem.NewBus(mem.Options{}).Driver()
	if _, err := d.Open(transports.Mirror, &struct{}{}, transports.Env{}); err == nil || !strings.Contains(err.Error(), "want *mem.Config") {
		t.Errorf("error is %v", err)
	}
}

var fedora = transports.Topic{Kind: transports.Announce, Module: "fedora"}

// taker takes messages until it has enough, and then ends the Run.
type taker struct {
	want int
	up   func()
	got  []string
}

var errEnough = errors.New("enough")

func (r *taker) Connected() { r.up() }

func (r *taker) Receive(_ context.Context, m transports.Message) error {
	r.got = append(r.got, string(m.Body))
	if len(r.got) == r.want {
		return errEnough
	}
	return nil
}

// exchange lets a process publish letters to itself on t as soon as it is connected and returns what it received.
func exchange(t *testing.T, o mem.Options, letters string) string {
	t.Helper()
	self := mem.NewBus(o).Connect("self")
	r := &taker{want: len(letters)}
	r.up = func() {
		for _, c := range letters {
			if err := self.Publish(t.Context(), transports.Message{Topic: fedora, ID: string(c), Body: []byte(string(c))}); err != nil {
				t.Error(err)
			}
		}
	}
	if err := self.Run(t.Context(), []transports.Subscription{{Topic: fedora}}, r); !errors.Is(err, errEnough) {
		t.Error(err)
	}
	return strings.Join(r.got, "")
}

func TestSeedDecidesTheOrder(t *testing.T) {
	caps := transports.Capabilities{MaxBody: 1}
	letters := "abcdefghijkl"
	first := exchange(t, mem.Options{Capabilities: caps, Seed: 1}, letters)
	if again := exchange(t, mem.Options{Capabilities: caps, Seed: 1}, letters); again != first {
		t.Errorf("the same seed gave %s and %s", first, again)
	}
	if other := exchange(t, mem.Options{Capabilities: caps, Seed: 2}, letters); other == first || first == letters {
		t.Errorf("seeds gave %s and %s for %s, want different orders", first, other, letters)
	}
	sorted := []byte(first)
	slices.Sort(sorted)
	if string(sorted) != letters {
		t.Errorf("received %s, want each of %s once", first, letters)
	}
	caps.Ordered = true
	if got := exchange(t, mem.Options{Capabilities: caps, Seed: 1}, letters); got != letters {
		t.Errorf("an ordered bus delivered %s", got)
	}
}

func TestHubsShareReportsWithoutBroadcast(t *testing.T) {
	caps := mem.All()
	caps.Broadcast = false
	bus := mem.NewBus(mem.Options{Capabilities: caps})
	topic := transports.Topic{Kind: transports.Report, Module: "fedora"}
	subs := []transports.Subscription{{Topic: topic}}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // subscribe and leave again, messages wait
	for _, hub := range []string{"one", "two"} {
		if err := bus.Connect(hub).Run(ctx, subs, &taker{up: func() {}}); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	mirror := bus.Connect("mirror")
	send := func() {
		for _, body := range []string{"a", "b", "c", "d"} {
			if err := mirror.Publish(t.Context(), transports.Message{Topic: topic, ID: body, Body: []byte(body)}); err != nil {
				t.Error(err)
			}
		}
		cancelled, stop := context.WithCancel(t.Context())
		stop()
		if err := mirror.Publish(cancelled, transports.Message{Topic: topic, ID: "e", Body: []byte("e")}); !errors.Is(err, context.Canceled) {
			t.Errorf("publish with a context that has ended: %v", err)
		}
	}
	if err := mirror.Run(ctx, nil, &taker{up: send}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	for hub, want := range map[string]string{"one": "ac", "two": "bd"} {
		r := &taker{want: 2, up: func() {}}
		if err := bus.Connect(hub).Run(t.Context(), subs, r); !errors.Is(err, errEnough) || strings.Join(r.got, "") != want {
			t.Errorf("hub %s received %v and ended with %v, want %s", hub, r.got, err, want)
		}
	}
}

func TestConnectTwice(t *testing.T) {
	bus := mem.NewBus(mem.Options{Capabilities: mem.All()})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	up := func() {
		if err := bus.Connect("self").Run(ctx, nil, &taker{}); err == nil || !strings.Contains(err.Error(), `"self" is connected already`) {
			t.Errorf("second connection: %v", err)
		}
		cancel()
	}
	if err := bus.Connect("self").Run(ctx, nil, &taker{up: up}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
