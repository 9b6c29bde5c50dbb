package transporttest

import (
	"context"
	"sync"

	"github.com/mirrorbus/mirrorbus/transports"
)

// watched is a transport whose every call is held against the rules that hold at all times.
type watched struct {
	transports.Transport
	w    *world
	name string
}

// Publish implements transports.Transport.
func (t watched) Publish(ctx context.Context, m transports.Message) error {
	return t.w.saw(t.Transport.Publish(ctx, m))
}

// Run implements transports.Transport.
func (t watched) Run(ctx context.Context, subs []transports.Subscription, r transports.Receiver) error {
	v := &watchedRun{Receiver: r, t: t, topics: make(map[transports.Topic]bool)}
	for _, s := range subs {
		v.topics[s.Topic] = true
	}
	err := t.Transport.Run(ctx, subs, v)
	if err == nil {
		t.w.breaks("%s: Run returned nil, its error is never nil", t.name)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.over = true
	if v.inside > 0 {
		t.w.breaks("%s: Run returned while Receive was under way", t.name)
	}
	return t.w.saw(err)
}

// watchedRun is the receiver of one Run.
type watchedRun struct {
	transports.Receiver
	t      watched
	topics map[transports.Topic]bool

	mu       sync.Mutex
	connects int
	inside   int // calls of Receive under way
	over     bool
}

// Connected implements transports.Receiver.
func (r *watchedRun) Connected() {
	r.mu.Lock()
	r.connects++
	if r.connects > 1 && !r.t.w.h.Called && !r.t.w.h.Wary {
		r.t.w.breaks("%s: Connected was called %d times in one Run", r.t.name, r.connects)
	}
	if r.over {
		r.t.w.breaks("%s: Connected was called after Run had returned", r.t.name)
	}
	r.mu.Unlock()
	r.Receiver.Connected()
}

// Receive implements transports.Receiver.
func (r *watchedRun) Receive(ctx context.Context, m transports.Message) error {
	r.enter(m)
	defer r.leave()
	return r.Receiver.Receive(ctx, m)
}

func (r *watchedRun) enter(m transports.Message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.inside++
	switch {
	case r.connects == 0:
		r.t.w.breaks("%s: Receive was called before Connected", r.t.name)
	case r.over:
		r.t.w.breaks("%s: Receive was called after Run had returned", r.t.name)
	case r.inside > 1:
		r.t.w.breaks("%s: Receive was called while an earlier call was under way", r.t.name)
	case !r.topics[m.Topic]:
		r.t.w.breaks("%s: received a message on %s, which it did not subscribe to", r.t.name, m.Topic)
	}
}

func (r *watchedRun) leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.inside--
}
