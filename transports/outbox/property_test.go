package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/mirrorbus/mirrorbus/internal/sqlite"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/outbox"
)

// What can happen to an outbox.
const (
	putChange  = "put"
	putHead    = "put, replacing the last one of its topic"
	disconnect = "the transport loses its connection"
	refuse     = "the transport refuses the topic"
	pick       = "the transport refuses every other message"
	mumble     = "the transport takes messages and says that it did not"
	heal       = "the transport is well, and says so"
	wait       = "some time passes"
	restart    = "the process ends and starts again"
)

type step struct {
	what  string
	topic int
	wait  time.Duration
}

var topics = []transports.Topic{fedora, debian, {Kind: transports.Report, Module: "fedora"}}

// TestNothingIsLost: whatever happens, in the end each message has been sent, in the order of its topic, unless a newer one replaced it.
func TestNothingIsLost(t *testing.T) {
	steps := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) step {
		what := []string{putChange, putChange, putChange, putHead, putHead, disconnect, refuse, pick, mumble, heal, wait, wait, restart}
		return step{
			rapid.SampledFrom(what).Draw(t, "what"), rapid.IntRange(0, len(topics)-1).Draw(t, "topic"),
			time.Duration(rapid.IntRange(0, 100).Draw(t, "seconds")) * time.Second,
		}
	}), 1, 40)
	dir, n := t.TempDir(), 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		story := steps.Draw(rt, "steps")
		var err error
		synctest.Test(t, func(t *testing.T) { err = tell(t.Context(), filepath.Join(dir, strconv.Itoa(n)), story) })
		if err != nil {
			rt.Fatal(err)
		}
	})
}

// life is one outbox through all that happens to it.
type life struct {
	box    outbox.Options
	next   *next
	relay  *outbox.Relay
	stop   func() error
	serial int
	must   [][]int // by topic: what must arrive
	head   []int   // by topic: the last head, 0 if none
}

func tell(ctx context.Context, path string, story []step) (err error) {
	db, err := sqlite.Open(ctx, path, sqlite.Options{Durability: sqlite.Normal, Schema: []sqlite.Component{outbox.Schema()}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	l := &life{next: &next{}, must: make([][]int, len(topics)), head: make([]int, len(topics))}
	l.box = outbox.Options{DB: db, Name: "irc", Transport: l.next, Caps: transports.Capabilities{MaxBody: 1000}}
	l.start(ctx)
	for _, s := range append(story, step{what: heal}, step{what: wait, wait: 3 * time.Minute}) {
		if err := l.do(ctx, s); err != nil {
			return errors.Join(err, l.stop())
		}
	}
	if err := l.stop(); err != nil {
		return err
	}
	if all, err := outbox.Stats(ctx, db); err != nil || len(all) > 0 {
		return fmt.Errorf("in the end stats are %+v, %w", all, err)
	}
	return l.check()
}

func (l *life) start(ctx context.Context) {
	l.relay = outbox.NewRelay(l.box)
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- l.relay.Run(ctx) }()
	l.stop = func() error {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			return fmt.Errorf("run ended with %w", err)
		}
		return nil
	}
}

func (l *life) do(ctx context.Context, s step) error {
	switch s.what {
	case putChange, putHead:
		return l.put(ctx, s)
	case disconnect:
		l.next.set(failing(transports.ErrNotConnected))
	case refuse:
		l.next.set(func(m transports.Message) error {
			if m.Topic == topics[s.topic] {
				return errors.New("refused")
			}
			return nil
		})
	case pick:
		l.next.set(func(m transports.Message) error {
			if m.Body[len(m.Body)-1]%2 == 1 {
				return errors.New("picky")
			}
			return nil
		})
	case mumble:
		l.next.set(func(m transports.Message) error {
			l.next.got = append(l.next.got, m.Topic.String()+" "+string(m.Body)) // Publish holds the lock
			return errors.New("mumble")
		})
	case heal:
		l.next.set(nil)
		l.relay.Connected()
	case wait:
		time.Sleep(s.wait)
	case restart:
		if err := l.stop(); err != nil {
			return err
		}
		l.start(ctx)
	}
	return nil
}

func (l *life) put(ctx context.Context, s step) error {
	l.serial++
	e := entry(topics[s.topic], strconv.Itoa(l.serial))
	if s.what == putHead {
		e.Replaces = "head"
		l.head[s.topic] = l.serial
	} else {
		l.must[s.topic] = append(l.must[s.topic], l.serial)
	}
	tx, err := l.box.DB.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := outbox.Put(ctx, tx, e, []string{"irc"}); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	l.relay.Wake()
	return nil
}

// check looks at the first time that each message was sent.
func (l *life) check() error {
	for i, topic := range topics {
		var first []int
		for _, got := range l.next.received() {
			var name string
			var serial int
			if _, err := fmt.Sscan(got, &name, &serial); err != nil {
				return fmt.Errorf("sent %q: %w", got, err)
			}
			if name == topic.String() && !slices.Contains(first, serial) {
				first = append(first, serial)
			}
		}
		if !slices.IsSorted(first) {
			return fmt.Errorf("%s: sent in the order %v", topic, first)
		}
		must := l.must[i]
		if l.head[i] > 0 {
			must = append(must, l.head[i])
		}
		for _, serial := range must {
			if !slices.Contains(first, serial) {
				return fmt.Errorf("%s: %d was not sent, only %v", topic, serial, first)
			}
		}
	}
	return nil
}
