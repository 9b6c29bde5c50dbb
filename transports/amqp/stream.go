package amqp

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/mirrorbus/mirrorbus/transports"
)

// A mark is a position in a stream: the last message that is safe with us. The zero mark is none.
type mark struct {
	Known  bool   `json:"known"`
	Offset int64  `json:"offset"` // of the message; -1: the stream was empty
	ID     string `json:"id"`     // of the message, by which a stream that was made anew is told
	At     int64  `json:"at"`     // when it was sent, Unix seconds; where to begin in a stream made anew
}

func markOf(offset int64, d amqp091.Delivery) mark {
	m := mark{Known: true, Offset: offset, ID: d.MessageId, At: d.Timestamp.Unix()}
	if d.Timestamp.IsZero() {
		m.At = time.Now().Unix()
	}
	return m
}

// bookmarks keeps marks in the process's store, or in memory where it has none.
type bookmarks struct {
	store transports.Bookmarks

	mu     sync.Mutex
	memory map[string]mark
}

const storeTimeout = 10 * time.Second

func (b *bookmarks) get(stream string) (m mark, err error) {
	if b.store == nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.memory[stream], nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	text, err := b.store.Bookmark(ctx, "amqp/"+stream)
	if err == nil && text != "" {
		err = json.Unmarshal([]byte(text), &m)
	}
	if err != nil {
		return mark{}, fmt.Errorf("position in %s: %w", stream, err)
	}
	return m, nil
}

func (b *bookmarks) put(stream string, m mark) error {
	if b.store == nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.memory == nil {
			b.memory = map[string]mark{}
		}
		b.memory[stream] = m
		return nil
	}
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	if err := b.store.SetBookmark(ctx, "amqp/"+stream, string(text)); err != nil {
		return fmt.Errorf("store the position in %s: %w", stream, err)
	}
	return nil
}

// Where to begin in a stream, besides an offset and a time.
const (
	fromFirst = "first"
	fromLast  = "last" // the last block that was written, which holds one message or more
)

const (
	proofTimeout = 5 * time.Second // for a message that must be there
	overlap      = time.Hour       // between clocks, when a stream is read by time
)

// openStream begins to read a stream after the message that was safe last.
//
// A broker that is asked for an offset beyond the end says nothing and sends nothing, so the message that is known is asked for, too: if it comes
// the stream is the one that we know. If another comes in its place, or none, the stream was made anew, and is read by time.
func (t *transport) openStream(ctx context.Context, l *link, name string) (*source, error) {
	known, err := t.marks.get(name)
	if err != nil {
		return nil, err
	}
	count, err := l.count(ctx, name)
	if err != nil {
		return nil, err
	}
	switch {
	case !known.Known && count > 0:
		// From now on, as far as a stream can be told so; what is in its last block may have been heard by another way.
		return t.firstOf(ctx, l, name, fromLast)
	case !known.Known || known.Offset < 0:
		s, err := l.open(ctx, name, t.broker.Prefetch, fromFirst)
		if err == nil {
			s.mark = mark{Known: true, Offset: -1}
			err = t.marks.put(name, s.mark)
			s.saved = s.mark
		}
		return s, err
	}
	s, err := t.firstOf(ctx, l, name, known.Offset)
	if err != nil {
		return nil, err
	}
	s.mark, s.saved = known, known
	if s.first == nil {
		return t.reopen(ctx, l, s, known)
	}
	switch got := s.first.Headers["x-stream-offset"]; {
	case got == known.Offset && s.first.MessageId == known.ID:
		s.unsaid, s.first = s.first.DeliveryTag, nil
	case got == known.Offset:
		return t.reopen(ctx, l, s, known)
	default: // what we have not heard was too old to be kept; serials tell what it was
		t.env.Log.Warn("the broker's log begins later than where this mirror was; the journal has the rest", "stream", name, "known", known.Offset, "begins", got)
		t.counts.gaps.Add(1)
	}
	return s, nil
}

// firstOf opens a stream that holds something at this offset and waits for the first message. A broker that has none leaves first nil.
func (t *transport) firstOf(ctx context.Context, l *link, name string, offset any) (*source, error) {
	s, err := l.open(ctx, name, t.broker.Prefetch, offset)
	if err != nil {
		return nil, err
	}
	late := time.NewTimer(proofTimeout)
	defer late.Stop()
	select {
	case d, open := <-s.in:
		if !open {
			return nil, l.whyEnded(s)
		}
		s.first = &d
	case <-late.C:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	return s, nil
}

// reopen gives up on s, which is not the stream that we know.
func (t *transport) reopen(ctx context.Context, l *link, s *source, known mark) (*source, error) {
	done := l.answers(ctx, "stop reading "+s.name)
	err := s.ch.Close()
	done()
	if err != nil {
		return nil, l.explain(err)
	}
	return t.startAgain(ctx, l, s.name, known)
}

// startAgain reads a stream that was made anew from about when the last message was sent that we know.
func (t *transport) startAgain(ctx context.Context, l *link, name string, known mark) (*source, error) {
	from := time.Unix(known.At, 0).Add(-overlap)
	t.env.Log.Warn("the broker's log was made anew, reading it by time", "stream", name, "from", from, "known", known.Offset)
	t.counts.remade.Add(1)
	s, err := l.open(ctx, name, t.broker.Prefetch, from)
	if err == nil {
		s.mark, s.saved = known, known
	}
	return s, err
}

// count is how many messages a queue or stream holds. Of a stream it lags behind, and may be 0 when there are some.
func (l *link) count(ctx context.Context, name string) (int, error) {
	defer l.answers(ctx, "is there a queue "+name)()
	ch, err := l.Channel()
	if err != nil {
		return 0, l.explain(err)
	}
	q, err := ch.QueueDeclarePassive(name, true, false, false, false, nil)
	if err != nil {
		return 0, l.explain(err)
	}
	if err := ch.Close(); err != nil {
		return 0, l.explain(err)
	}
	return q.Messages, nil
}

// checkVersion asks for the mark of the topology that this program knows.
func (l *link) checkVersion(ctx context.Context) error {
	defer l.answers(ctx, "is there a topology")()
	ch, err := l.Channel()
	if err != nil {
		return l.explain(err)
	}
	if err := ch.ExchangeDeclarePassive(versionMark, amqp091.ExchangeFanout, true, false, false, false, nil); err != nil {
		return l.explain(err)
	}
	if err := ch.Close(); err != nil {
		return l.explain(err)
	}
	return nil
}
