package amqp_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/amqp"
)

// A reader is a process that only receives, and what it logs.
type reader struct {
	transport *transports.CheckedTransport
	ended     chan error

	mu        sync.Mutex
	log       bytes.Buffer
	connected bool
	bodies    []string
}

// Write takes what is logged.
func (r *reader) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.Write(b)
}

// Connected implements transports.Receiver.
func (r *reader) Connected() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.connected = true
}

// Receive implements transports.Receiver.
func (r *reader) Receive(_ context.Context, m transports.Message) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bodies = append(r.bodies, string(m.Body))
	return nil
}

// listen runs a process, which hears of the module fedora until the test ends.
func (s *site) listen(role transports.Role, name, queue string) *reader {
	s.t.Helper()
	r := &reader{ended: make(chan error, 1)}
	t, err := s.open(role, name, transports.Env{Log: slog.New(slog.NewTextHandler(r, nil))}, func(c *amqp.MirrorConfig) { c.Queue = queue })
	if err != nil {
		s.t.Fatal(err)
	}
	r.transport = t.(*transports.CheckedTransport)
	ctx, cancel := context.WithCancelCause(context.Background())
	go func() { r.ended <- t.Run(ctx, hears(role), r) }()
	s.t.Cleanup(func() {
		cancel(errOver)
		if err := <-r.ended; !errors.Is(err, errOver) {
			s.t.Errorf("it ended with %v", err)
		}
	})
	testenv.WaitFor(s.t, patience, func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		if !r.connected {
			return errors.New("not connected")
		}
		return nil
	})
	return r
}

// hears waits until nothing but these bodies came.
func (r *reader) hears(t *testing.T, bodies ...string) {
	t.Helper()
	testenv.WaitFor(t, patience, func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		if fmt.Sprint(r.bodies) != fmt.Sprint(bodies) {
			return fmt.Errorf("heard %d messages, %.200q; want %q; %v", len(r.bodies), r.bodies, bodies, r.transport.Counters())
		}
		return nil
	})
}

// junk are messages that a process must take for nothing, by what is wrong with them.
func junk(word string) map[string]amqp091.Publishing {
	deep := amqp091.Table{}
	for range 100 {
		deep = amqp091.Table{"t": deep, "a": []any{deep, int8(1)}}
		if len(fmt.Sprint(deep)) > 20000 {
			break
		}
	}
	body := []byte("body")
	return map[string]amqp091.Publishing{
		word:                                  {Body: body},
		word + ".":                            {Body: body},
		word + "..":                           {Body: body},
		word + ".UPPER":                       {Body: body},
		word + ".fedora\n":                    {Body: body},
		word + ".\xff\xfe":                    {Body: body},
		word + ".a..b.":                       {Body: body},
		word + "." + strings.Repeat("x", 240): {Body: body},
		word + ".../etc/passwd":               {Body: body},
		word + ".fedora.\x00":                 {Body: body},
		word + ".deep.UPPER":                  {Body: body, Headers: deep},
	}
}

// What can be no message of ours is counted, said once per connection and forgotten, whatever its size, key and headers; what is good and comes
// behind it is heard.
func TestJunkIsCounted(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, queue, exchange, key, other string
		role                              transports.Role
	}{
		{"stream", "stream", "mb.announce", "announce.fedora", "announce.debian", transports.Mirror},
		{"quorum", "own", "mb.announce", "announce.fedora", "announce.debian", transports.Mirror},
		{"classic", "own", "mb.announce", "announce.fedora", "announce.debian", transports.Mirror},
		{"reports", "", "mb.report", "report.alpha.fedora", "report.alpha.debian", transports.Master},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			topology := amqp.DefaultTopology()
			if c.queue == "own" {
				topology.Inboxes = map[string]string{"alpha": c.name}
			}
			s := newSite(t, topology)
			s.t = t
			r := s.listen(c.role, "alpha", c.queue)
			word, _, _ := strings.Cut(c.key, ".")
			bad := junk(word)
			for key, m := range bad {
				s.sends(c.exchange, key, m)
			}
			headers := amqp091.Table{"x-stream-offset": int64(7), "x-death": "never", "CC": []any{}, "cloudEvents_type": int64(-1), "\x00": []byte{0xff},
				"x-delivery-count": "many", "x-retry": strings.Repeat("h", 60000)}
			s.sends(c.exchange, c.key, amqp091.Publishing{Headers: headers, ContentType: "text/html\r\n", Body: []byte("odd headers")})
			s.sends(c.exchange, c.other, amqp091.Publishing{Body: []byte("another module")})
			s.sends(c.exchange, c.key, amqp091.Publishing{}) // no body
			s.sends(c.exchange, c.key, amqp091.Publishing{MessageId: "not an id \x00", Body: []byte("x")})
			s.sends(c.exchange, c.key, amqp091.Publishing{Body: make([]byte, 256<<10+1)})
			s.sends(c.exchange, c.key, amqp091.Publishing{MessageId: "good", Body: []byte("good")})
			r.hears(t, "odd headers", "good")

			got := r.transport.Counters()
			if want := uint64(len(bad) + 3); got["dropped"] != want || got["skipped"] != 1 {
				t.Errorf("%v, want %d dropped and 1 skipped", got, want)
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			if n := strings.Count(r.log.String(), "\n"); n > 2 || n == 0 || r.log.Len() > 1500 {
				t.Errorf("it has logged %d lines:\n%s", n, &r.log)
			}
		})
	}
}

// A message of 100 MB costs time and memory, and nothing else.
func TestHugeMessageIsCounted(t *testing.T) {
	topology := amqp.DefaultTopology()
	topology.Inboxes = map[string]string{"alpha": "classic"}
	s := newSite(t, topology)
	mirror, own, master := s.listen(transports.Mirror, "stream", "stream"), s.listen(transports.Mirror, "alpha", "own"), s.listen(transports.Master, "master", "")
	huge := make([]byte, 100_000_000)
	for exchange, key := range map[string]string{"mb.announce": "announce.fedora", "mb.report": "report.alpha.fedora"} {
		s.sends(exchange, key, amqp091.Publishing{Body: huge})
		s.sends(exchange, key, amqp091.Publishing{Body: []byte("good")})
	}
	for name, r := range map[string]*reader{"mirror": mirror, "own": own, "master": master} {
		r.hears(t, "good")
		if n := r.transport.Counters()["dropped"]; n != 1 {
			t.Errorf("%s: %d dropped", name, n)
		}
	}
}

// sends is send of any message.
func (s *site) sends(exchange, key string, m amqp091.Publishing) {
	s.t.Helper()
	ch := s.channel()
	defer ch.Close() //nolint:errcheck // what it was for is done
	if err := ch.Confirm(false); err != nil {
		s.t.Fatal(err)
	}
	c, err := ch.PublishWithDeferredConfirm(exchange, key, false, false, m)
	if err != nil {
		s.t.Fatal(err)
	}
	select {
	case <-c.Done():
	case <-time.After(patience):
	}
	if !c.Acked() {
		s.t.Fatalf("the broker does not take a message on %q", key)
	}
}
