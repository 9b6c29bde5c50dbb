package hub_test

import (
	"context"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/hub"
)

// journal is what a master has announced. Position n is after the nth message.
type journal struct {
	mu   sync.Mutex
	all  []transports.Message
	read int // messages yielded
}

func (j *journal) append(m transports.Message) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.all = append(j.all, m)
}

// backlog looks at the journal again for each message, so it runs into what is published meanwhile.
func (j *journal) backlog(_ context.Context, t transports.Topic, have string) iter.Seq2[transports.Message, error] {
	return func(yield func(transports.Message, error) bool) {
		n, err := strconv.Atoi(have)
		if err != nil {
			yield(transports.Message{}, err)
			return
		}
		for ; ; n++ {
			j.mu.Lock()
			if n >= len(j.all) {
				j.mu.Unlock()
				return
			}
			m := j.all[n]
			j.read++
			j.mu.Unlock()
			if !yield(m, nil) {
				return
			}
		}
	}
}

// Whatever cuts the connection and however publishing lags behind the journal: a subscriber that says where it stands gets every message once
// and in order.
func TestResumeWithoutGapOrRepeat(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := newRig(t)
		var j journal
		r.backlog = j.backlog
		r.conf.AcceptRate, r.conf.AcceptBurst = 10_000, 10_000
		total := rapid.IntRange(1, 300).Draw(rt, "messages")
		lag := rapid.IntRange(0, 50).Draw(rt, "lag")
		seed := rapid.Uint64().Draw(rt, "seed")
		s := r.serve()
		c := r.client("mirror")
		ctx, cancel := context.WithCancel(context.Background())
		var parts sync.WaitGroup
		parts.Go(func() { announce(ctx, t, s, &j, total, lag) })
		parts.Go(func() { s.cutNowAndThen(ctx, rand.New(rand.NewPCG(seed, 1))) })
		have := func() string { return strconv.Itoa(len(c.ids())) }
		parts.Go(func() {
			options := transports.KeepOptions{Min: time.Millisecond, Max: 2 * time.Millisecond}
			transports.Keep(ctx, c, []transports.Subscription{{Topic: debian, Have: have}}, &c.inbox, options) //nolint:errcheck // it ends with ctx
		})
		await(t, "last message", func() bool { return len(c.ids()) >= total })
		cancel()
		parts.Wait()
		s.stop(t)
		want := make([]string, total)
		for i := range want {
			want[i] = numbered(i)
		}
		if got := c.ids(); !slices.Equal(got, want) {
			rt.Fatalf("%d messages, lag %d: got %v", total, lag, got)
		}
	})
}

// announce appends messages to the journal and publishes each when the journal is lag ahead.
func announce(ctx context.Context, t *testing.T, s *server, j *journal, total, lag int) {
	for i := range total + lag {
		if i < total {
			j.append(msg(debian, numbered(i), fmt.Sprint("body of ", i)))
		}
		if i >= lag {
			if err := s.Publish(ctx, msg(debian, numbered(i-lag), fmt.Sprint("body of ", i-lag))); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
		}
	}
}

// cutNowAndThen replaces the mirror's connection by another one with its name.
func (s *server) cutNowAndThen(ctx context.Context, random *rand.Rand) {
	for range random.IntN(5) {
		cutter := s.rig.client("mirror")
		short, cancel := context.WithTimeout(ctx, time.Duration(random.IntN(20))*time.Millisecond)
		cutter.Run(short, []transports.Subscription{{Topic: debian}}, &cutter.inbox) //nolint:errcheck // it is cut, or cuts
		cancel()
	}
}

func TestSlowSubscriberResumes(t *testing.T) {
	r := newRig(t)
	var j journal
	r.backlog = j.backlog
	r.conf.QueueSize = 1 << 20
	s := r.serve()
	c := r.client("mirror")
	hold := make(chan struct{})
	c.on = func(_ context.Context, m transports.Message) error {
		if m.ID == numbered(0) {
			<-hold
		}
		return nil
	}
	have := func() string { return strconv.Itoa(len(c.ids())) }
	ctx, cancel := context.WithCancel(t.Context())
	var parts sync.WaitGroup
	parts.Go(func() {
		options := transports.KeepOptions{Min: time.Millisecond, Max: 2 * time.Millisecond}
		transports.Keep(ctx, c, []transports.Subscription{{Topic: debian, Have: have}}, &c.inbox, options) //nolint:errcheck // it ends with ctx
	})
	c.awaitConnected(t)
	first := s.Peers()[0].Since
	const total = 40
	body := make([]byte, 256<<10)
	for i := range total { // 10 MiB: the window of 2 MiB, the queue of 1 MiB, and then some
		m := transports.Message{Topic: debian, ID: numbered(i), Body: body}
		j.append(m)
		s.publish(t, m)
	}
	await(t, "end of the slow one", func() bool { // by now it may be back
		return !slices.ContainsFunc(s.Peers(), func(p hub.Peer) bool { return p.Since.Equal(first) })
	})
	close(hold)
	c.awaitID(t, numbered(total-1))
	cancel()
	parts.Wait()
	if got := c.ids(); len(got) != total || !slices.IsSorted(got) {
		t.Errorf("got %v", got)
	}
	if !strings.Contains(r.log.String(), "slow: more waits") { // it is told so too, as far as it takes anything
		t.Errorf("the hub did not say slow: %s", r.log.String())
	}
}

func TestBacklogThatCannotBeRead(t *testing.T) {
	r := newRig(t)
	var j journal
	r.backlog = j.backlog
	r.serve()
	c := r.client("mirror").connect(t, transports.Subscription{Topic: debian, Have: func() string { return "not a number / of this kind" }})
	err := c.ended(t)
	if transports.IsPermanent(err) || err.Error() != transports.ErrClosed.Error()+": mirrorbus hub: the hub cannot read what was missed on announce/debian, see its log" {
		t.Errorf("error is %v", err)
	}
	await(t, "line in the log", func() bool { return strings.Contains(r.log.String(), "not a number / of this kind") })
}

func TestPositionIsNotAskedForWithoutOne(t *testing.T) {
	r := newRig(t)
	var j journal
	r.backlog = j.backlog
	s := r.serve()
	j.append(msg(debian, numbered(0), "old"))
	c := r.client("mirror").connect(t, transports.Subscription{Topic: debian, Have: func() string { return "" }})
	s.publish(t, msg(debian, numbered(1), "new"))
	c.awaitID(t, numbered(1))
	if got := c.ids(); len(got) != 1 || j.read != 0 {
		t.Errorf("got %v, the journal was read %d times", got, j.read)
	}
}
