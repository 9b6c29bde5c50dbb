package outbox

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/failpoint"
	"github.com/mirrorbus/mirrorbus/transports"
)

// A Publisher is the sending half of a transports.Transport.
type Publisher interface {
	Publish(ctx context.Context, m transports.Message) error
}

// Options describe a Relay. DB, Name and Transport are required.
type Options struct {
	DB        *sql.DB
	Name      string                  // of the transport, as given to Put
	Transport Publisher               // one that has a method Batch, as transports.CheckedTransport, is given several messages at a time
	Caps      transports.Capabilities // only MaxBody is looked at
	Log       *slog.Logger            // nil: nothing is logged

	// The wait before trying again is drawn from 0 to a limit that is Min at first and doubles up to Max. Defaults: 1 s, 60 s.
	Min, Max time.Duration

	// Timeout is how long one Publish may take. Default: 30 s.
	Timeout time.Duration
}

// A Relay sends what waits for one transport. There must be only one for each transport.
type Relay struct {
	o         Options
	wake      chan struct{} // holds one token
	connected chan struct{} // holds one token

	batch transports.BatchPublisher // nil if the transport is none

	// The rest is touched by Run alone.
	pause transports.Pause
	retry <-chan time.Time          // fires when what failed is due again; nil if nothing failed
	down  bool                      // the transport as a whole failed, not just some topics
	stuck map[transports.Topic]bool // topics of which a message failed: those behind it wait, for the order
	said  string                    // the error text that was logged last, "" if things went well since
	since time.Time                 // since when sending has failed
	sent  []int64                   // what the transport has taken and the database still holds
}

// NewRelay makes a relay.
func NewRelay(o Options) *Relay {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Min == 0 {
		o.Min = time.Second
	}
	if o.Max == 0 {
		o.Max = time.Minute
	}
	if o.Timeout == 0 {
		o.Timeout = 30 * time.Second
	}
	var batch transports.BatchPublisher
	if b, ok := o.Transport.(interface {
		Batch() transports.BatchPublisher
	}); ok {
		batch = b.Batch()
	}
	return &Relay{
		o: o, batch: batch, wake: make(chan struct{}, 1), connected: make(chan struct{}, 1),
		pause: transports.Pause{Min: o.Min, Max: o.Max}, stuck: make(map[transports.Topic]bool),
	}
}

// Wake tells the relay that something was put. It does not cut short the wait of what failed.
func (r *Relay) Wake() { token(r.wake) }

// Connected tells the relay that its transport has connected: what failed is tried again at once, and the waits begin anew at their shortest.
func (r *Relay) Connected() { token(r.connected) }

func token(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Run sends what waits and what is put until ctx is done, and returns context.Cause(ctx). Messages of one topic go in the order of Put; a
// message that the transport does not take holds back its own topic only. Each is tried without end, except one that is too large for the
// transport even in its short form: that is dropped, logged and counted. An error is logged when its text changes.
func (r *Relay) Run(ctx context.Context) error {
	for {
		err := r.drain(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		switch {
		case err != nil:
			r.failed(ctx, err)
		case r.retry == nil:
			r.well(ctx)
		}
		if !r.idle(ctx) {
			return context.Cause(ctx)
		}
	}
}

// idle waits until there may be something to do, and returns false if that is to end.
func (r *Relay) idle(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-r.wake:
		return true // what is down or stuck stays so until it is due
	case <-r.connected:
		r.pause.Reset()
	case <-r.retry:
	}
	r.retry, r.down = nil, false
	clear(r.stuck)
	return true
}

// failed decides when to try again, and says what is wrong.
func (r *Relay) failed(ctx context.Context, err error) {
	if r.since.IsZero() {
		r.since = time.Now()
	}
	if r.retry != nil && !r.down {
		return // another topic has failed before, and decided
	}
	wait := r.pause.Next(rand.Float64())
	if transports.IsPermanent(err) {
		wait = r.o.Max
	}
	r.retry = time.After(wait)
	next := time.Now().Add(wait)
	if text := err.Error(); text != r.said {
		r.said = text
		r.o.Log.Warn("cannot send, trying again", "error", err, "next", next)
	}
	r.record(ctx, err.Error(), r.since, next)
}

// well notes that nothing is left that failed.
func (r *Relay) well(ctx context.Context) {
	r.pause.Reset()
	if r.said != "" {
		r.o.Log.Info("sending again")
	}
	r.said, r.since = "", time.Time{}
	r.record(ctx, "", time.Time{}, time.Time{})
}

// drain sends all that waits, but what is down or stuck. Its error is the first one met.
func (r *Relay) drain(ctx context.Context) error {
	if r.down {
		return nil
	}
	var first error
	alone := !r.since.IsZero() // what is sent together may be refused together although some who get copies have it by then: not at each attempt
	for {
		// What could not be forgotten the last time would be read, and sent, again.
		if err := r.forget(ctx); err != nil {
			return errors.Join(first, err)
		}
		batch, err := r.read(ctx)
		if err != nil {
			r.down = true // the database is, and nothing can be sent
			return errors.Join(first, err)
		}
		if len(batch) == 0 {
			return first
		}
		if alone {
			batch = batch[:1]
		} else {
			batch = r.sendTogether(ctx, batch)
		}
		err = r.sendAll(ctx, batch)
		alone = alone && err != nil
		first = cmp.Or(first, err)
		if r.down || ctx.Err() != nil {
			return errors.Join(first, r.forget(ctx))
		}
	}
}

// sendTogether sends of a batch what the transport takes together, and returns the rest, which is to be sent one by one: so a message that is
// refused, and those that went down with it, hold up only their own topics.
func (r *Relay) sendTogether(ctx context.Context, batch []waiting) (rest []waiting) {
	if r.batch == nil {
		return batch
	}
	var together []waiting
	var messages []transports.Message
	n := 0
	for ; n < len(batch) && len(batch[n].Body) > 0; n++ { // up to one that is too large, and was not read
		if m := batch[n]; !r.stuck[m.Topic] {
			together, messages = append(together, m), append(messages, m.Message)
		}
	}
	if len(together) < 2 {
		return batch
	}
	sending()
	bound, cancel := context.WithTimeoutCause(ctx, r.o.Timeout, errNoAnswer)
	defer cancel()
	for i, err := range r.batch.PublishAll(bound, messages) {
		if err != nil {
			rest = append(rest, together[i])
			continue
		}
		r.took(together[i])
	}
	return append(rest, batch[n:]...)
}

// sending is passed before anything is sent.
func sending() { failpoint.Here("relay.send") }

// took notes that the transport has taken a message.
func (r *Relay) took(m waiting) {
	r.sent = append(r.sent, m.row)
	failpoint.Here("relay.sent")
}

// sendAll sends a batch, but of a topic only up to what fails. Its error is the first one met.
func (r *Relay) sendAll(ctx context.Context, batch []waiting) error {
	var first error
	began := time.Now()
	for _, m := range batch {
		if r.stuck[m.Topic] {
			continue
		}
		sending()
		err := r.send(ctx, m)
		if err == nil && time.Since(began) > time.Second { // little is sent twice after a crash, even by a slow transport
			err = r.forget(ctx)
			began = time.Now()
		}
		if err != nil && first == nil {
			first = err
		}
		if r.down || ctx.Err() != nil {
			break
		}
	}
	return first
}

// send publishes one message in the longest form that the transport takes.
func (r *Relay) send(ctx context.Context, m waiting) error {
	err := transports.ErrTooLarge
	for _, body := range [][]byte{m.Body, m.short} {
		if len(body) == 0 || len(body) > r.o.Caps.MaxBody || !errors.Is(err, transports.ErrTooLarge) {
			continue
		}
		m.Body = body
		err = r.publish(ctx, m.Message)
	}
	switch {
	case err == nil:
		r.took(m)
		return nil
	case errors.Is(err, transports.ErrTooLarge):
		return r.drop(ctx, m)
	case errors.Is(err, transports.ErrNotConnected), errors.Is(err, transports.ErrClosed), errors.Is(err, errNoAnswer):
		r.down = true
	default:
		r.stuck[m.Topic] = true
	}
	return fmt.Errorf("publish on %s: %w", m.Topic, err)
}

// errNoAnswer is the error of a Publish that took too long.
var errNoAnswer = errors.New("no answer")

func (r *Relay) publish(ctx context.Context, m transports.Message) error {
	bound, cancel := context.WithTimeoutCause(ctx, r.o.Timeout, errNoAnswer)
	defer cancel()
	err := r.o.Transport.Publish(bound, m)
	if err != nil && ctx.Err() == nil && bound.Err() != nil {
		return fmt.Errorf("%w within %v", errNoAnswer, r.o.Timeout)
	}
	return err
}
