package transporttest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/mirrorbus/mirrorbus/transports"
)

// errLeave is the cause with which the suite ends a Run.
var errLeave = errors.New("the check ends this run")

// peer is a process on the bus and what it has received.
type peer struct {
	watched

	// on, if set, decides about each message before it counts as received. have, if set, is Subscription.Have. Set before connecting.
	on   func(context.Context, transports.Message) error
	have func() string

	cancel context.CancelCauseFunc
	done   chan error // of the present Run or Keep; nil while there is none

	mu       sync.Mutex
	changed  chan struct{} // closed and made anew with each change below
	got      []transports.Message
	connects int
}

// Connected implements transports.Receiver.
func (p *peer) Connected() { p.change(func() { p.connects++ }) }

// Receive implements transports.Receiver.
func (p *peer) Receive(ctx context.Context, m transports.Message) error {
	if p.on != nil {
		if err := p.on(ctx, m); err != nil {
			return err
		}
	}
	p.change(func() { p.got = append(p.got, m) })
	return nil
}

func (p *peer) change(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
	close(p.changed)
	p.changed = make(chan struct{})
}

// start begins run in the background; leave or ended waits for it.
func (p *peer) start(ctx context.Context, topics []transports.Topic, run func(context.Context, []transports.Subscription) error) {
	// Not bound by the check's own limit, so that Run ends because of leave.
	ctx, p.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	var subs []transports.Subscription
	for _, t := range topics {
		subs = append(subs, transports.Subscription{Topic: t, Have: p.have})
	}
	done := make(chan error, 1)
	p.done = done
	go func() { done <- run(ctx, subs) }()
}

// connect runs p until it is connected.
func (p *peer) connect(ctx context.Context, topics ...transports.Topic) error {
	before := p.connections()
	p.start(ctx, topics, func(ctx context.Context, subs []transports.Subscription) error { return p.Run(ctx, subs, p) })
	for {
		p.mu.Lock()
		changed, connected := p.changed, p.connects > before
		p.mu.Unlock()
		if connected {
			return nil
		}
		select {
		case <-changed:
		case err := <-p.done:
			p.done = nil
			return fmt.Errorf("%s ended before it was connected: %w", p.name, err)
		case <-ctx.Done():
			return fmt.Errorf("%s: waiting for Connected: %w", p.name, context.Cause(ctx))
		}
	}
}

// leave ends what runs and waits for it.
func (p *peer) leave(ctx context.Context) error {
	p.cancel(errLeave)
	err, ended := p.ended(ctx)
	if ended != nil {
		return ended
	}
	if !errors.Is(err, errLeave) {
		return fmt.Errorf("%s: run ended by its context with %v returned %w, which is not that cause", p.name, errLeave, asError(err))
	}
	return nil
}

// ended waits until what runs has ended and returns its error first.
func (p *peer) ended(ctx context.Context) (result, err error) {
	select {
	case result = <-p.done:
		p.done = nil
		return result, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("%s: waiting for run to end: %w", p.name, context.Cause(ctx))
	}
}

func asError(err error) error {
	if err == nil {
		return errors.New("nil")
	}
	return err
}

func (p *peer) connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.connects
}

// messages returns what was received, in order.
func (p *peer) messages() []transports.Message {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.got)
}

// bodies returns what was received, in order.
func (p *peer) bodies() []string {
	var all []string
	for _, m := range p.messages() {
		all = append(all, string(m.Body))
	}
	return all
}

// await waits until ok, which is asked after each change.
func (p *peer) await(ctx context.Context, what string, ok func() bool) error {
	for {
		p.mu.Lock()
		changed := p.changed
		p.mu.Unlock()
		if ok() {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%s: waiting for %s: %w, %d messages were received", p.name, what, context.Cause(ctx), len(p.bodies()))
		}
	}
}

// awaitBody waits for one body.
func (p *peer) awaitBody(ctx context.Context, body string) error {
	return p.await(ctx, fmt.Sprintf("the body %.40q", body), func() bool { return slices.Contains(p.bodies(), body) })
}

// awaitCount waits for so many messages.
func (p *peer) awaitCount(ctx context.Context, n int) error {
	return p.await(ctx, fmt.Sprintf("%d messages", n), func() bool { return len(p.bodies()) >= n })
}

// publish sends bodies on a topic, one after the other.
func (p *peer) publish(ctx context.Context, t transports.Topic, bodies ...string) error {
	for _, body := range bodies {
		if err := p.Publish(ctx, message(t, body)); err != nil {
			return fmt.Errorf("%s: publish %d bytes on %s: %w", p.name, len(body), t, err)
		}
	}
	return nil
}

// marker is sent last, to know that what was sent before has had its time.
const marker = "end of check"

// sendsExactly publishes bodies and a marker on t and checks that each of the receivers gets each of them once, in any order.
func (p *peer) sendsExactly(ctx context.Context, t transports.Topic, bodies []string, to ...*peer) error {
	if err := p.publish(ctx, t, bodies...); err != nil {
		return err
	}
	return p.marksExactly(ctx, t, bodies, to...)
}

// marksExactly waits for bodies, sends a marker and checks that each of the receivers has nothing but them.
func (p *peer) marksExactly(ctx context.Context, t transports.Topic, bodies []string, to ...*peer) error {
	for _, r := range to {
		if err := r.awaitCount(ctx, len(bodies)); err != nil {
			return err
		}
	}
	if err := p.publish(ctx, t, marker); err != nil {
		return err
	}
	want := slices.Sorted(slices.Values(append(slices.Clone(bodies), marker)))
	for _, r := range to {
		if err := r.awaitBody(ctx, marker); err != nil {
			return err
		}
		if got := slices.Sorted(slices.Values(r.bodies())); !slices.Equal(got, want) {
			return fmt.Errorf("%s: %s", r.name, difference(got, want))
		}
	}
	return nil
}

// difference describes the first difference of two sorted lists.
func difference(got, want []string) string {
	for i := range max(len(got), len(want)) {
		switch {
		case i == len(got) || i < len(want) && got[i] > want[i]:
			return fmt.Sprintf("lost or changed: %.60q (%d received, %d sent)", want[i], len(got), len(want))
		case i == len(want) || got[i] < want[i]:
			return fmt.Sprintf("repeated or never sent: %.60q (%d received, %d sent)", got[i], len(got), len(want))
		}
	}
	return "no difference"
}
