package wire

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/mirrorbus/mirrorbus/transports"
)

// An Intake hands the messages of all peers to the receiver, one at a time.
type Intake struct {
	topics  []transports.Topic
	receive func(transports.Message) error // under the context of Run, so that a peer that goes away does not disturb it
	fail    context.CancelCauseFunc        // ends Run

	mu sync.Mutex
}

// NewIntake makes the intake of one Run. ctx is that of Run, and fail ends it.
func NewIntake(ctx context.Context, subs []transports.Subscription, r transports.Receiver, fail context.CancelCauseFunc) *Intake {
	in := &Intake{fail: fail, receive: func(m transports.Message) error { return r.Receive(ctx, m) }}
	for _, sub := range subs {
		in.topics = append(in.topics, sub.Topic)
	}
	return in
}

// Take returns nil when the receiver has m. ctx is the peer's and only looked at before.
func (in *Intake) Take(ctx context.Context, m transports.Message) error {
	if !slices.Contains(in.topics, m.Topic) {
		return fmt.Errorf("nobody here takes %s", m.Topic)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	err := in.receive(m)
	var refusal *transports.Refusal
	if errors.As(err, &refusal) {
		return refusal
	}
	if err != nil {
		in.fail(fmt.Errorf("receive from %s: %w", m.From, err))
		return errors.New("it could not be taken now, see the log there")
	}
	return nil
}
