package outbox_test

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/outbox"
)

// batching is a transport that takes several messages at a time, and loses a whole batch when one of it is refused, as a channel does that its
// broker closes.
type batching struct {
	next
	batches []int // how many messages each had
}

var errRefused = errors.New("refused")

func (b *batching) Batch() transports.BatchPublisher { return b }

func (b *batching) PublishAll(ctx context.Context, ms []transports.Message) []error {
	b.batches = append(b.batches, len(ms))
	errs := make([]error, len(ms))
	var err error
	for i, m := range ms {
		if err == nil {
			err = b.Publish(ctx, m)
		}
		errs[i] = err
	}
	return errs
}

// TestTogether: what waits goes together; what was refused, and what went down with it, is tried alone, and holds up its own topic only.
func TestTogether(t *testing.T) {
	for name, c := range map[string]struct {
		refuses string
		batches []int
		sent    []string
	}{
		"all well":       {"", []int{5}, []string{"announce/fedora 1", "announce/fedora 2", "announce/debian a", "announce/debian b", "announce/fedora 3", "announce/debian short"}},
		"one is refused": {"2", []int{5}, []string{"announce/fedora 1", "announce/debian a", "announce/debian b", "announce/debian short"}},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, db *sql.DB) {
				large := entry(debian, "larger than it takes")
				large.Short = []byte("short")
				put(t, db, []string{"irc"}, entry(fedora, "1"), entry(fedora, "2"), entry(debian, "a"), entry(debian, "b"), entry(fedora, "3"), large)
				b := &batching{}
				b.fail = func(m transports.Message) error {
					if string(m.Body) == c.refuses {
						return errRefused
					}
					return nil
				}
				r := outbox.NewRelay(outbox.Options{DB: db, Name: "irc", Transport: b, Caps: limits})
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error)
				go func() { done <- r.Run(ctx) }()
				synctest.Wait()
				cancel()
				<-done
				want(t, "sent", b.received(), c.sent...)
				if len(b.batches) != 1 || b.batches[0] != c.batches[0] {
					t.Errorf("batches of %v, want %v", b.batches, c.batches)
				}
			})
		})
	}
}

// TestAfterARefusalOneGoesFirst: a broker of which part does not work refuses what goes together, and gives it to some all the same, at each attempt.
func TestAfterARefusalOneGoesFirst(t *testing.T) {
	inBubble(t, func(t *testing.T, db *sql.DB) {
		put(t, db, []string{"irc"}, entry(fedora, "1"), entry(fedora, "2"), entry(fedora, "3"), entry(fedora, "4"))
		b, began, all := &batching{}, time.Now(), make(chan struct{})
		b.fail = func(m transports.Message) error {
			switch {
			case time.Since(began) < 10*time.Second:
				return errRefused
			case string(m.Body) == "4":
				close(all)
			}
			return nil
		}
		r := outbox.NewRelay(outbox.Options{DB: db, Name: "irc", Transport: b, Caps: limits, Min: time.Second, Max: time.Second})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- r.Run(ctx) }()
		<-all
		synctest.Wait()
		cancel()
		<-done
		want(t, "sent", b.received(), "announce/fedora 1", "announce/fedora 2", "announce/fedora 3", "announce/fedora 4")
		if n := len(b.attempts()); n < 10 || !slices.Equal(b.batches, []int{4, 3}) {
			t.Errorf("%d attempts, batches of %v; want all four together once, then one, and the others together when that was taken", n, b.batches)
		}
	})
}
