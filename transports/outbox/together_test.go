package outbox_test

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/outbox"
)

// batching is a transport that takes several messages at a time, and loses a whole batch when one of it is refused, as a channel does that its
// broker closes.
type batching struct {
	next
	refuses string // the body of a message
	batches []int  // how many messages each had
}

var errRefused = errors.New("refused")

func (b *batching) Batch() transports.BatchPublisher { return b }

func (b *batching) PublishAll(ctx context.Context, ms []transports.Message) []error {
	b.batches = append(b.batches, len(ms))
	errs := make([]error, len(ms))
	var err error
	for i, m := range ms {
		if string(m.Body) == b.refuses {
			err = errRefused
		}
		if errs[i] = err; err == nil {
			errs[i] = b.Publish(ctx, m)
		}
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
				b := &batching{refuses: c.refuses}
				b.fail = func(m transports.Message) error {
					if string(m.Body) == b.refuses {
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
