package bench_test

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/sqlite"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/amqp"
	"github.com/mirrorbus/mirrorbus/transports/outbox"
)

// confirmed is line 9: announcements per second that the broker has confirmed, nobody listening: given to the transport together and one after the
// other, and from a durable outbox by its relay, which forgets each only then. The bare client sends the same messages, and keeps as many on their way as the transport does.
func (b *bench) confirmed() error {
	if !b.hasBroker() {
		return nil
	}
	r, err := b.broker(8)
	if err == nil {
		err = r.vhosts(amqp.DefaultTopology())
	}
	if err != nil {
		return err
	}
	master, err := r.open(transports.Master, "master")
	if err != nil {
		return err
	}
	ours := b.side("mirrorbus", 0)
	ours.lead(master)
	bare := r.bare(0)
	for _, s := range []*side{ours, bare} {
		defer s.end()
		if err := s.announce("first"); err != nil { // the publisher is connected
			return err
		}
	}
	box, err := b.outbox(master)
	if err != nil {
		return err
	}
	defer box.db.Close() //nolint:errcheck // thrown away
	for _, way := range []struct {
		what       string
		n          int
		ours, bare func(context.Context, []transports.Message) error
		aim        float64 // of the bare client's rate; 0: none, as that stores nothing
	}{
		{"given to the transport together", b.messages, ours.together, bare.together, 1 / overTheBare},
		{"given to the transport one after the other", b.messages / 10, ours.oneByOne, bare.oneByOne, 1 / overTheBare},
		{"from the outbox, by its relay", b.messages, box.relay, bare.together, 0},
	} {
		if err := b.compared(way.what, way.n, way.ours, way.bare, way.aim); err != nil {
			return err
		}
	}
	return nil
}

// compared adds the row of one way to publish n messages.
func (b *bench) compared(what string, n int, ours, bare func(context.Context, []transports.Message) error, aim float64) error {
	ways := []func(context.Context, []transports.Message) error{ours, bare}
	rates := make([][]float64, len(ways))
	for round := range b.rounds + 1 {
		ms := announcements(fmt.Sprint("rate-", round), n)
		for k, way := range ways {
			start := time.Now()
			if err := way(b.ctx, ms); err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
			if round > 0 { // the first is slow on either side
				rates[k] = append(rates[k], float64(n)/time.Since(start).Seconds())
			}
		}
	}
	b.add(row{line: "9", what: "announcements confirmed, " + what, ours: median(rates[0]), against: "bare amqp091-go", theirs: median(rates[1]), unit: perSecond,
		aim: aim * median(rates[1]), rounds: b.rounds})
	return nil
}

func (s *side) together(ctx context.Context, ms []transports.Message) error {
	failed := slices.DeleteFunc(s.publish(ctx, ms), func(err error) bool { return err == nil })
	if len(failed) > 0 {
		return fmt.Errorf("%d of %d were not confirmed: %w", len(failed), len(ms), failed[0])
	}
	return nil
}

func (s *side) oneByOne(ctx context.Context, ms []transports.Message) error {
	for i := range ms {
		if err := s.publish(ctx, ms[i:i+1])[0]; err != nil {
			return err
		}
	}
	return nil
}

// A box is an outbox in a database that is as durable as the journal's.
type box struct {
	db     *sql.DB
	master *transports.CheckedTransport
}

const boxName = "amqp"

func (b *bench) outbox(master *transports.CheckedTransport) (*box, error) {
	db, err := sqlite.Open(b.ctx, filepath.Join(b.dir, "outbox.db"), sqlite.Options{Durability: sqlite.Full, Schema: []sqlite.Component{outbox.Schema()}})
	return &box{db, master}, err
}

// relay puts messages into the outbox and waits until none is left.
func (x *box) relay(ctx context.Context, ms []transports.Message) error {
	err := sqlite.Tx(ctx, x.db, func(tx *sql.Tx) error {
		for _, m := range ms {
			if err := outbox.Put(ctx, tx, outbox.Entry{Message: m}, []string{boxName}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		done <- outbox.NewRelay(outbox.Options{DB: x.db, Name: boxName, Transport: x.master, Caps: amqp.Driver().Capabilities(transports.Master)}).Run(ctx)
	}()
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for waits := true; waits && err == nil; {
		select {
		case <-look.C:
			err = x.db.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM outbox_waiting)").Scan(&waits)
		case err = <-done: // a relay ends only with an error
			done <- err
		}
	}
	stop()
	<-done
	return err
}
