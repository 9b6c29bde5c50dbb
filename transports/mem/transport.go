package mem

import (
	"context"
	"fmt"
	"slices"

	"github.com/mirrorbus/mirrorbus/transports"
)

// peer is what the bus keeps of one name. Its fields are guarded by Bus.mu.
type peer struct {
	topics map[transports.Topic]bool // of the present Run or the last one
	queue  []transports.Message      // waiting, the oldest first
	news   chan struct{}             // holds one token if something was put since it was last looked at
	hangUp context.CancelCauseFunc   // ends the present Run; nil while there is none
}

func (p *peer) put(m transports.Message) {
	p.queue = append(p.queue, m)
	select {
	case p.news <- struct{}{}:
	default:
	}
}

// transport is one process's end of the bus.
type transport struct {
	bus  *Bus
	name string
}

// Publish implements transports.Transport.
func (t *transport) Publish(ctx context.Context, m transports.Message) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return t.bus.publish(t.name, m)
}

// Run implements transports.Transport. It starts no goroutine.
func (t *transport) Run(ctx context.Context, subs []transports.Subscription, r transports.Receiver) error {
	ctx, hangUp := context.WithCancelCause(ctx)
	defer hangUp(nil)
	p, err := t.bus.connect(t.name, subs, hangUp)
	if err != nil {
		return err
	}
	var refused []transports.Message
	defer func() { t.bus.disconnect(p, refused) }()
	if err := t.bus.resume(ctx, p, subs); err != nil {
		return err
	}
	r.Connected()
	for ctx.Err() == nil {
		m, ok := t.bus.take(p)
		if !ok {
			select {
			case <-p.news:
			case <-ctx.Done():
			}
			continue
		}
		if err := r.Receive(ctx, m); err != nil {
			refused = append(refused, m)
			return fmt.Errorf("receive on %s: %w", m.Topic, err)
		}
	}
	return context.Cause(ctx)
}

// connect subscribes the name. Messages wait for it from here on.
func (b *Bus) connect(name string, subs []transports.Subscription, hangUp context.CancelCauseFunc) (*peer, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.down {
		return nil, ErrDown
	}
	p := b.peers[name]
	if p == nil {
		p = &peer{topics: make(map[transports.Topic]bool), news: make(chan struct{}, 1)}
		b.peers[name] = p
		b.names = append(b.names, name)
	}
	if p.hangUp != nil {
		return nil, fmt.Errorf("%q is connected already", name)
	}
	p.hangUp = hangUp
	clear(p.topics)
	for _, s := range subs {
		p.topics[s.Topic] = true
	}
	p.queue = slices.DeleteFunc(p.queue, func(m transports.Message) bool { return !p.topics[m.Topic] })
	return p, nil
}

// disconnect ends a Run. refused is the message, if any, that was taken from the queue and not received.
func (b *Bus) disconnect(p *peer, refused []transports.Message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p.hangUp = nil
	if !b.o.Capabilities.Durable {
		p.queue = nil
	}
	if b.o.Capabilities.Redelivers {
		p.queue = slices.Concat(refused, p.queue)
	}
}

// resume puts what the subscriber has missed before what waits for it.
func (b *Bus) resume(ctx context.Context, p *peer, subs []transports.Subscription) error {
	if !b.o.Capabilities.Resumes || b.o.Backlog == nil {
		return nil
	}
	var missed []transports.Message
	for _, s := range subs {
		if s.Have == nil {
			continue
		}
		have := s.Have()
		if have == "" {
			continue
		}
		for m, err := range b.o.Backlog(ctx, s.Topic, have) {
			if err != nil {
				return fmt.Errorf("backlog of %s: %w", s.Topic, err)
			}
			missed = append(missed, m)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	twice := func(m transports.Message) bool {
		return slices.ContainsFunc(missed, func(o transports.Message) bool { return o.ID == m.ID && o.Topic == m.Topic })
	}
	p.queue = append(missed, slices.DeleteFunc(p.queue, twice)...)
	return nil
}

// take removes the next message from the queue.
func (b *Bus) take(p *peer) (m transports.Message, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(p.queue) == 0 {
		return m, false
	}
	i := 0
	if !b.o.Capabilities.Ordered {
		i = b.rand.IntN(len(p.queue))
	}
	m = p.queue[i]
	if i == 0 {
		p.queue = p.queue[1:]
	} else {
		p.queue = slices.Delete(p.queue, i, i+1)
	}
	return m, true
}
