package hub

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/mirrorbus/mirrorbus/transports"
)

// A frame is an encoded message. All subscribers share its bytes.
type frame struct {
	key  key
	data []byte
}

// A key names a message.
type key struct {
	topic transports.Topic
	id    string
}

// A subscriber is what waits for one subscription.
type subscriber struct {
	most     int    // bytes that may wait
	overflow func() // called when more does; must not block
	wake     chan struct{}

	mu    sync.Mutex
	queue []frame
	bytes int
	over  bool
}

func newSubscriber(most int, overflow func()) *subscriber {
	return &subscriber{most: most, overflow: overflow, wake: make(chan struct{}, 1)}
}

// put adds f to the queue. It never blocks. A single frame always fits, however large it is.
func (s *subscriber) put(f frame) {
	s.mu.Lock()
	defer s.mu.Unlock()
	size := len(f.data) + frameOverhead
	switch {
	case s.over:
		return
	case s.bytes > 0 && s.bytes+size > s.most:
		s.over, s.queue = true, nil
		s.overflow()
		return
	}
	s.queue = append(s.queue, f)
	s.bytes += size
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// frameOverhead is what a waiting frame costs beside its bytes.
const frameOverhead = 96

// take returns the oldest frame. It counts as waiting until written is called.
func (s *subscriber) take() (f frame, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 {
		s.queue = nil // so that what a burst has grown is given back
		return f, false
	}
	f, s.queue[0] = s.queue[0], frame{}
	s.queue = s.queue[1:]
	return f, true
}

func (s *subscriber) written(f frame) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bytes -= len(f.data) + frameOverhead
}

func (s *subscriber) queued() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes
}

// recent remembers the last messages that were put into it.
type recent struct {
	set  map[key]bool
	ring []key
	next int
}

// maxRecent is how many messages of the backlog are remembered, so that they are not sent again when they are published late. The journal is
// ahead of what is published by a few at most, and at a start of the hub by what had waited; more are sent twice, which the receivers bear.
const maxRecent = 1024

func (r *recent) add(k key) {
	if r.set == nil {
		r.set = make(map[key]bool)
	}
	if len(r.ring) < maxRecent {
		r.ring = append(r.ring, k)
	} else {
		delete(r.set, r.ring[r.next])
		r.ring[r.next] = k
		r.next = (r.next + 1) % maxRecent
	}
	r.set[k] = true
}

// subscribe sends the peer what it has missed and then what is published, until ctx is done.
func (p *peer) subscribe(ctx context.Context, out io.Writer, wants []want) error {
	for _, w := range wants {
		if err := p.allowed(w.topic, true); err != nil {
			return &exit{exitNoTry, err}
		}
	}
	sub := newSubscriber(int(p.s.conf.QueueSize), func() { p.end(errSlow) })
	if err := p.s.join(p, sub, wants); err != nil { // before the backlog is read, so that nothing falls between
		return &exit{exitUsage, err}
	}
	defer p.s.leave(p, sub, wants)
	if _, err := fmt.Fprintf(out, "ready %d\n", p.s.conf.Keepalive.Milliseconds()); err != nil {
		return err
	}
	var sent recent
	for _, w := range wants {
		if err := p.replay(ctx, out, w, &sent); err != nil {
			return err
		}
	}
	return p.follow(ctx, out, sub, sent.set)
}

// replay sends what came after the position of w.
func (p *peer) replay(ctx context.Context, out io.Writer, w want, sent *recent) error {
	if p.s.env.Backlog == nil || w.have == "" {
		return nil
	}
	for m, err := range p.s.env.Backlog(ctx, w.topic, w.have) {
		if err == nil {
			m.Topic = w.topic
			err = capabilities(transports.Master).Check(m)
		}
		if err != nil {
			p.s.log.Error("cannot replay what a peer has missed", "peer", p.name, "topic", w.topic.String(), "error", err)
			return fmt.Errorf("the hub cannot read what was missed on %s, see its log", w.topic)
		}
		if _, err := out.Write(encode(m)); err != nil {
			return err
		}
		sent.add(key{w.topic, m.ID})
	}
	return nil
}

// follow sends what is put into sub, but for what was sent already, and a line now and then when there is nothing.
func (p *peer) follow(ctx context.Context, out io.Writer, sub *subscriber, sent map[key]bool) error {
	beat := time.NewTimer(p.s.conf.Keepalive.Duration)
	defer beat.Stop()
	for {
		for f, ok := sub.take(); ok; f, ok = sub.take() {
			if sent[f.key] {
				delete(sent, f.key)
			} else if _, err := out.Write(f.data); err != nil {
				return err
			}
			sub.written(f)
		}
		beat.Reset(p.s.conf.Keepalive.Duration)
		select {
		case <-sub.wake:
		case <-beat.C:
			if _, err := io.WriteString(out, "beat\n"); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
