package wire

import (
	"sync"

	"github.com/mirrorbus/mirrorbus/transports"
)

// A frame is an encoded message. All queues share its bytes.
type frame struct {
	key  key
	data []byte
}

// A key names a message.
type key struct {
	topic transports.Topic
	id    string
}

// A Queue is what waits for one subscriber.
type Queue struct {
	most     int    // bytes that may wait
	overflow func() // called when more does; must not block
	wake     chan struct{}

	mu    sync.Mutex
	queue []frame
	bytes int
	over  bool
}

// NewQueue makes one that holds most bytes. overflow is called when more has to wait, and must not block; from then on nothing is kept.
func NewQueue(most int, overflow func()) *Queue {
	return &Queue{most: most, overflow: overflow, wake: make(chan struct{}, 1)}
}

// put adds f to the queue. It never blocks. A single frame always fits, however large it is.
func (q *Queue) put(f frame) {
	q.mu.Lock()
	defer q.mu.Unlock()
	size := len(f.data) + frameOverhead
	switch {
	case q.over:
		return
	case q.bytes > 0 && q.bytes+size > q.most:
		q.over, q.queue = true, nil
		q.overflow()
		return
	}
	q.queue = append(q.queue, f)
	q.bytes += size
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// frameOverhead is what a waiting frame costs beside its bytes.
const frameOverhead = 96

// take returns the oldest frame. It counts as waiting until written is called.
func (q *Queue) take() (f frame, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.queue) == 0 {
		q.queue = nil // so that what a burst has grown is given back
		return f, false
	}
	f, q.queue[0] = q.queue[0], frame{}
	q.queue = q.queue[1:]
	return f, true
}

func (q *Queue) written(f frame) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.bytes -= len(f.data) + frameOverhead
}

// Queued is how many bytes wait.
func (q *Queue) Queued() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.bytes
}
