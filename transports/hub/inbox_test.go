package hub_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/transports"
)

// inbox is a receiver that keeps what it gets.
type inbox struct {
	connected chan struct{}
	on        func(context.Context, transports.Message) error // decides; nil accepts

	mu  *sync.Mutex
	got *[]transports.Message
}

func newInbox() inbox {
	return inbox{connected: make(chan struct{}, 1000), mu: new(sync.Mutex), got: new([]transports.Message)}
}

func (in *inbox) Connected() { in.connected <- struct{}{} }

func (in *inbox) Receive(ctx context.Context, m transports.Message) error {
	if in.on != nil {
		if err := in.on(ctx, m); err != nil {
			return err
		}
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	*in.got = append(*in.got, m)
	return nil
}

func (in *inbox) awaitConnected(t testing.TB) {
	t.Helper()
	select {
	case <-in.connected:
	case <-time.After(bound):
		t.Fatal("not connected")
	}
}

// ids returns the IDs of what came, in order.
func (in *inbox) ids() []string {
	in.mu.Lock()
	defer in.mu.Unlock()
	var ids []string
	for _, m := range *in.got {
		ids = append(ids, m.ID)
	}
	return ids
}

// awaitID waits for the message with this ID.
func (in *inbox) awaitID(t testing.TB, id string) {
	t.Helper()
	await(t, "message "+id, func() bool { return slices.Contains(in.ids(), id) })
}

// await waits until ok.
func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(bound)
	for pause := time.Millisecond; !ok(); pause = min(2*pause, 20*time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no %s within %v", what, bound)
		}
		time.Sleep(pause)
	}
}
