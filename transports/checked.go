package transports

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"
)

// ErrRunning is returned by Run of a Checked transport while another Run of it is under way.
var ErrRunning = errors.New("transport is already running")

// A CheckedTransport keeps a transport and its peers to the contract. Make one with Checked.
type CheckedTransport struct {
	next    Transport
	caps    Capabilities
	log     *slog.Logger
	running atomic.Bool
	dropped atomic.Uint64
}

// Checked returns t held to its limits: Publish refuses what c does not allow; a delivery that is over-long, ill-formed or on a topic nobody
// subscribed to is counted, dropped (and so acknowledged, as delivering it again would not mend it) and logged once per Run; a second Run at
// the same time is refused; Run's error is never nil.
func Checked(t Transport, c Capabilities, log *slog.Logger) *CheckedTransport {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &CheckedTransport{next: t, caps: c, log: log}
}

// Publish implements Transport.
func (c *CheckedTransport) Publish(ctx context.Context, m Message) error {
	if err := c.caps.Check(m); err != nil {
		return fmt.Errorf("publish on %.80s: %w", m.Topic, err)
	}
	return c.next.Publish(ctx, m)
}

// Batch is the transport as a BatchPublisher, nil if it is none. What does not pass Check is refused and the rest is sent.
func (c *CheckedTransport) Batch() BatchPublisher {
	if b, ok := c.next.(BatchPublisher); ok {
		return checkedBatch{c, b}
	}
	return nil
}

type checkedBatch struct {
	c    *CheckedTransport
	next BatchPublisher
}

// PublishAll implements BatchPublisher.
func (b checkedBatch) PublishAll(ctx context.Context, ms []Message) []error {
	errs := make([]error, len(ms))
	var good []Message
	var places []int
	for i, m := range ms {
		if err := b.c.caps.Check(m); err != nil {
			errs[i] = fmt.Errorf("publish on %.80s: %w", m.Topic, err)
			continue
		}
		good, places = append(good, m), append(places, i)
	}
	if len(good) > 0 {
		for i, err := range b.next.PublishAll(ctx, good) {
			errs[places[i]] = err
		}
	}
	return errs
}

// Run implements Transport.
func (c *CheckedTransport) Run(ctx context.Context, subs []Subscription, r Receiver) error {
	if !c.running.CompareAndSwap(false, true) {
		return ErrRunning
	}
	defer c.running.Store(false)
	in := &checkedReceiver{Receiver: r, c: c, topics: make(map[Topic]bool, len(subs))}
	for _, s := range subs {
		if err := s.Topic.Check(); err != nil {
			return Permanent(fmt.Errorf("subscribe: %w", err))
		}
		in.topics[s.Topic] = true
	}
	if err := c.next.Run(ctx, subs, in); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return fmt.Errorf("%w, without a reason", ErrClosed)
}

// Dropped tells how many deliveries were dropped since Checked.
func (c *CheckedTransport) Dropped() uint64 { return c.dropped.Load() }

// A PeerCounter is a transport that knows how many peers are connected to it at the moment.
type PeerCounter interface{ PeerCount() int }

// PeerCount is how many peers are connected, 0 where the transport does not know.
func (c *CheckedTransport) PeerCount() int {
	if p, ok := c.next.(PeerCounter); ok {
		return p.PeerCount()
	}
	return 0
}

// A Callee is a transport that does not connect by itself: it waits for somebody to call.
type Callee interface{ IsCalled() bool }

// IsCalled tells whether the transport waits for somebody to call.
func (c *CheckedTransport) IsCalled() bool {
	is, ok := c.next.(Callee)
	return ok && is.IsCalled()
}

// A Noter is a transport that has something to say of single peers, as that one cannot be reached.
type Noter interface{ Notes() []string }

// Notes is what the transport has to say of single peers.
func (c *CheckedTransport) Notes() []string {
	if n, ok := c.next.(Noter); ok {
		return n.Notes()
	}
	return nil
}

// A Degrader is a transport that may be connected and still not bring everything to everybody.
type Degrader interface {
	// Degraded is whom it does not reach, and why, as far as is known. It is empty again once they are reached.
	Degraded() []string
}

// Degraded is whom the transport does not reach although it is connected.
func (c *CheckedTransport) Degraded() []string {
	if d, ok := c.next.(Degrader); ok {
		return d.Degraded()
	}
	return nil
}

// RetryMax is the longest wait before an attempt to connect, 0 where the transport does not say.
func (c *CheckedTransport) RetryMax() time.Duration {
	if r, ok := c.next.(Retrier); ok {
		return r.RetryMax()
	}
	return 0
}

// A Counter is a transport that counts what it sees, since it was opened.
type Counter interface{ Counters() map[string]uint64 }

// Counters are what the transport has counted by name, and "dropped", the deliveries that Checked has dropped.
func (c *CheckedTransport) Counters() map[string]uint64 {
	all := map[string]uint64{}
	if n, ok := c.next.(Counter); ok {
		all = n.Counters()
	}
	all["dropped"] += c.dropped.Load()
	return all
}

// checkedReceiver stands between the transport and the receiver during one Run.
type checkedReceiver struct {
	Receiver
	c      *CheckedTransport
	topics map[Topic]bool
	logged bool // Receive is called one at a time
}

func (r *checkedReceiver) Receive(ctx context.Context, m Message) error {
	err := r.c.caps.checkReceived(m)
	if err == nil && !r.topics[m.Topic] {
		err = fmt.Errorf("topic %s: not subscribed to", m.Topic)
	}
	if err == nil {
		return r.settled(r.Receiver.Receive(ctx, m))
	}
	r.c.dropped.Add(1)
	if !r.logged {
		r.logged = true
		r.c.log.Warn("message dropped, further ones of this connection are only counted", "error", err, "from", m.From)
	}
	return nil
}

// settled takes a refusal for an answer, unless the other side is told of it.
func (r *checkedReceiver) settled(err error) error {
	var refusal *Refusal
	if _, tells := r.c.next.(Teller); !tells && errors.As(err, &refusal) {
		return nil
	}
	return err
}

// checkReceived is Check for a message that arrived: a transport need not carry the ID.
func (c Capabilities) checkReceived(m Message) error {
	if m.ID == "" {
		m.ID = "none"
	}
	return c.Check(m)
}
