package outlet_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"

	"github.com/mirrorbus/mirrorbus/internal/sqlite"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/mem"
	"github.com/mirrorbus/mirrorbus/transports/outbox"
	"github.com/mirrorbus/mirrorbus/transports/outlet"
)

const bound = 20 * time.Second

var fedora = transports.Topic{Kind: transports.Announce, Module: "fedora"}

// full is a transport that is connected and takes nothing until it has room.
type full struct {
	transports.Transport
	mu   sync.Mutex
	room bool
	lost []string
}

func (f *full) Degraded() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.lost
}

var errFull = errors.New("no room")

func (f *full) Publish(ctx context.Context, m transports.Message) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.room {
		return errFull
	}
	return f.Transport.Publish(ctx, m)
}

func (f *full) Counters() map[string]uint64 { return map[string]uint64{"tries": 7} }

// heard is a receiver that keeps what comes.
type heard struct {
	mu    sync.Mutex
	there bool
	got   []string
}

func (h *heard) Connected() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.there = true
}

func (h *heard) Receive(_ context.Context, m transports.Message) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.got = append(h.got, string(m.Body))
	return nil
}

// TestSet: what waits for a transport that has gone is dropped; of the others each is connected, sends what waits and says how it stands: also when
// it is connected and takes nothing.
func TestSet(t *testing.T) {
	db := openDB(t)
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	put(t, db, "stubborn", "gone")
	bus := mem.NewBus(mem.Options{Capabilities: mem.All()})
	stubborn := &full{Transport: bus.Connect("master")}
	s := outlet.NewSet(db, slog.New(slog.DiscardHandler))
	s.Add(outlet.Outlet{Name: "stubborn", Transport: stubborn, Caps: mem.All()})
	if err := s.Forget(t.Context()); err != nil {
		t.Fatal(err)
	}
	mirror := &heard{}
	ctx, cancel := context.WithCancel(t.Context())
	g, ctx := errgroup.WithContext(ctx)
	s.Run(ctx, g, nil, func(string) transports.Receiver { return &heard{} })
	g.Go(func() error {
		return bus.Connect("mirror").Run(ctx, []transports.Subscription{{Topic: fedora}}, mirror)
	})
	status := func(want string) {
		t.Helper()
		testenv.WaitFor(t, bound, func() error {
			all, err := s.Status(ctx)
			if err != nil || len(all) != 1 {
				return fmt.Errorf("status is %+v, %w", all, err)
			}
			o := all[0]
			if got := fmt.Sprintf("%s %s (%s) connected=%t waiting=%d %s tries=%d", o.Name, o.State, o.Reason, o.Connected, o.Waiting, o.SendError, o.Counters["tries"]); got != want {
				return fmt.Errorf("status is %q, want %q", got, want)
			}
			return nil
		})
	}
	status("stubborn degraded (publish on announce/fedora: no room) connected=true waiting=1 publish on announce/fedora: no room tries=7")
	change := func(room bool, lost ...string) {
		stubborn.mu.Lock()
		defer stubborn.mu.Unlock()
		stubborn.room, stubborn.lost = room, lost
	}
	await := func(what string, ok func() bool) {
		t.Helper()
		testenv.WaitFor(t, bound, func() error {
			mirror.mu.Lock()
			defer mirror.mu.Unlock()
			if !ok() {
				return errors.New("the mirror is not " + what)
			}
			return nil
		})
	}
	await("there", func() bool { return mirror.there })
	change(true)
	status("stubborn connected () connected=true waiting=0  tries=7")
	change(true, "a hears nothing")
	status("stubborn degraded (a hears nothing) connected=true waiting=0  tries=7")
	change(true, "a hears nothing", "b", "c")
	status("stubborn degraded (a hears nothing; and 2 more) connected=true waiting=0  tries=7")
	change(true)
	status("stubborn connected () connected=true waiting=0  tries=7")
	await("told", func() bool { return len(mirror.got) == 1 })
	if err := s.Publish(ctx, "stubborn", message("direct")); err != nil {
		t.Errorf("publish by a transport of the set: %v", err)
	}
	if err := s.Publish(ctx, "gone", message("direct")); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("publish by a transport that is not in the set: %v", err)
	}
	change(true, "a hears nothing")
	cancel()
	if err := g.Wait(); !errors.Is(err, context.Canceled) {
		t.Errorf("it ended with %v", err)
	}
	ctx = t.Context()
	status("stubborn not connected (context canceled) connected=false waiting=0  tries=7")
}

func message(body string) transports.Message {
	return transports.Message{Topic: fedora, ID: "id", Body: []byte(body)}
}

func openDB(t *testing.T) *sql.DB {
	t.Helper()
	db, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "db"), sqlite.Options{Durability: sqlite.Normal, Schema: []sqlite.Component{outbox.Schema()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

// put stores a message for each of the names.
func put(t *testing.T, db *sql.DB, names ...string) {
	t.Helper()
	err := sqlite.Tx(t.Context(), db, func(tx *sql.Tx) error {
		return outbox.Put(t.Context(), tx, outbox.Entry{Message: message("news")}, names)
	})
	if err != nil {
		t.Fatal(err)
	}
}
