package wire

import (
	"context"
	"fmt"
	"io"
	"iter"
	"sync"
	"time"

	"github.com/mirrorbus/mirrorbus/transports"
)

// A Feed hands what is published to the queues of those who have subscribed.
type Feed struct {
	mu     sync.Mutex
	topics map[transports.Topic]map[*Queue]bool
}

// Put adds a message to the queue of each subscriber. It does not wait for any.
func (f *Feed) Put(m transports.Message) {
	one := frame{key: key{m.Topic, m.ID}, data: Encode(m)}
	f.mu.Lock()
	defer f.mu.Unlock()
	for q := range f.topics[m.Topic] {
		q.put(one)
	}
}

// Join lets a queue have what is put from now on.
func (f *Feed) Join(q *Queue, wants []Want) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.topics == nil {
		f.topics = make(map[transports.Topic]map[*Queue]bool)
	}
	for _, w := range wants {
		if f.topics[w.Topic] == nil {
			f.topics[w.Topic] = make(map[*Queue]bool)
		}
		f.topics[w.Topic][q] = true
	}
}

// Leave ends what Join began.
func (f *Feed) Leave(q *Queue, wants []Want) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, w := range wants {
		delete(f.topics[w.Topic], q)
		if len(f.topics[w.Topic]) == 0 {
			delete(f.topics, w.Topic)
		}
	}
}

// A Serving sends a subscriber what it has missed and then what its queue gets.
type Serving struct {
	Queue   *Queue // has joined the feed already, so that nothing falls between the backlog and what is published
	Wants   []Want
	Backlog func(ctx context.Context, t transports.Topic, have string) iter.Seq2[transports.Message, error] // nil: there is none
	Beat    time.Duration                                                                                   // a line is written at least this often
}

// To writes to a subscriber until ctx is done or writing fails: a line that says that the subscription stands, what came after each position, what is
// published, and a line now and then when there is nothing. Each line, and each message, is one call of out.Write.
func (s Serving) To(ctx context.Context, out io.Writer) error {
	if _, err := fmt.Fprintf(out, "ready %d\n", s.Beat.Milliseconds()); err != nil {
		return err
	}
	var sent recent
	for _, w := range s.Wants {
		if err := s.replay(ctx, out, w, &sent); err != nil {
			return err
		}
	}
	return s.follow(ctx, out, sent.set)
}

// A BacklogError is a journal that could not be read, or that holds what cannot be sent.
type BacklogError struct {
	Topic transports.Topic
	Err   error
}

func (e *BacklogError) Error() string {
	return fmt.Sprintf("replay what was missed on %s: %v", e.Topic, e.Err)
}
func (e *BacklogError) Unwrap() error { return e.Err }

// replay sends what came after the position of w.
func (s Serving) replay(ctx context.Context, out io.Writer, w Want, sent *recent) error {
	if s.Backlog == nil || w.Have == "" {
		return nil
	}
	for m, err := range s.Backlog(ctx, w.Topic, w.Have) {
		if err == nil {
			m.Topic = w.Topic
			err = transports.Capabilities{MaxBody: MaxBody}.Check(m)
		}
		if err != nil {
			return &BacklogError{w.Topic, err}
		}
		if _, err := out.Write(Encode(m)); err != nil {
			return err
		}
		sent.add(key{w.Topic, m.ID})
	}
	return nil
}

// follow sends what is put into the queue, but for what was sent already, and a line now and then when there is nothing.
func (s Serving) follow(ctx context.Context, out io.Writer, sent map[key]bool) error {
	beat := time.NewTimer(s.Beat)
	defer beat.Stop()
	q := s.Queue
	for {
		for f, ok := q.take(); ok; f, ok = q.take() {
			if sent[f.key] {
				delete(sent, f.key)
			} else if _, err := out.Write(f.data); err != nil {
				return err
			}
			q.written(f)
		}
		beat.Reset(s.Beat)
		select {
		case <-q.wake:
		case <-beat.C:
			if _, err := io.WriteString(out, "beat\n"); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
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
