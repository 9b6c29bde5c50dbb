package mail

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/transports"
)

// transport is one process's end of the bus.
type transport struct {
	role  transports.Role
	post  Post
	env   transports.Env
	log   *slog.Logger
	out   sender
	rates *rate.Limiter

	digests *digests          // nil: there are none
	names   map[string]string // by address in small letters, the mirror that it is known to be of

	mu         sync.Mutex
	counts     map[string]uint64
	unfinished map[string]map[string]bool // see progress
	beaten     map[transports.Topic]time.Time
	heard      map[string]string    // by module, the Message-Id of the last announcement
	notes      map[string]note      // by recipient
	said       map[string]time.Time // when something was logged last
}

func newTransport(role transports.Role, conf config.Validator, post Post, env transports.Env) (*transport, error) {
	if err := conf.Validate(); err != nil {
		return nil, err
	}
	t := &transport{
		role: role, post: post, env: env, log: env.Log, rates: rate.NewLimiter(rate.Limit(float64(post.PerMinute)/60), post.PerMinute), counts: map[string]uint64{},
		unfinished: map[string]map[string]bool{}, beaten: map[transports.Topic]time.Time{}, heard: map[string]string{}, notes: map[string]note{},
		said: map[string]time.Time{}, names: map[string]string{},
	}
	t.out = sender{post: &t.post, one: make(chan struct{}, 1)}
	return t, nil
}

// Run implements transports.Transport. It takes mail until ctx is done or r fails; the mail server need not be there for it.
func (t *transport) Run(ctx context.Context, subs []transports.Subscription, r transports.Receiver) error {
	ctx, fail := context.WithCancelCause(ctx)
	in := &intake{t: t, r: r, fail: fail, ctx: ctx, topics: map[transports.Topic]bool{}, one: make(chan struct{}, 1), ready: make(chan struct{})}
	for _, s := range subs {
		in.topics[s.Topic] = true
	}
	var parts sync.WaitGroup
	defer parts.Wait()
	defer fail(nil) // before it is waited for what ends by it
	defer t.out.hangUp()
	if t.post.LMTP != "" {
		d, err := openDoor(t, in)
		if err != nil {
			return err
		}
		parts.Go(func() { fail(d.serve(ctx)) })
	}
	if t.post.IMAP != "" {
		m, err := openMailbox(ctx, t, in)
		if err != nil {
			return preferCause(ctx, err)
		}
		defer m.close()
		parts.Go(func() { fail(m.watch(ctx)) })
	}
	if t.digests != nil {
		parts.Go(func() { t.digests.run(ctx) })
	}
	r.Connected()
	close(in.ready)
	<-ctx.Done()
	return context.Cause(ctx)
}

// preferCause returns why ctx ended if it did, err otherwise.
func preferCause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// An intake hands what has come in to the receiver of one Run, one at a time.
type intake struct {
	t      *transport
	r      transports.Receiver
	ctx    context.Context // of the Run
	fail   context.CancelCauseFunc
	topics map[transports.Topic]bool
	one    chan struct{} // holds a token while the receiver has something
	ready  chan struct{} // closed once the receiver knows that it is connected
}

// errNotNow is the error of a mail that is to be brought again.
var errNotNow = errors.New("it cannot be taken now, bring it again later")

// take takes a mail: nil means that it is safe, or will never be anything, a Refusal that it will never be taken, and errNotNow to bring it again.
func (in *intake) take(raw []byte) error {
	select {
	case <-in.ready:
	case <-in.ctx.Done():
		return errNotNow
	}
	found := read(raw, in.t.self())
	in.t.count(found.kind)
	switch found.kind {
	case kindMessage:
	case kindBounce:
		in.t.bounced(found.bounces)
		return nil
	case kindMangled:
		in.t.say(kindMangled, "a mail was changed on the way, it is dropped: what it said is looked for elsewhere", "reason", oneLine(found.err.Error()), "mail", found.mailID)
		return nil
	default:
		return nil
	}
	m := found.message
	if !in.topics[m.Topic] {
		in.t.count("not_subscribed")
		return nil
	}
	err := in.hand(m)
	if err == nil && m.Topic.Kind == transports.Announce {
		in.t.hasHeard(m.Topic.Module, found.mailID)
	}
	if err == nil && found.answers != "" {
		in.t.answered(found.from, found.answers)
	}
	return err
}

// hand gives one message to the receiver.
func (in *intake) hand(m transports.Message) error {
	select {
	case in.one <- struct{}{}:
		defer func() { <-in.one }()
	case <-in.ctx.Done():
		return errNotNow
	}
	if in.ctx.Err() != nil {
		return errNotNow
	}
	err := in.r.Receive(in.ctx, m)
	var refusal *transports.Refusal
	switch {
	case err == nil:
		return nil
	case errors.As(err, &refusal):
		in.t.count("not_taken")
		return refusal
	}
	in.fail(fmt.Errorf("receive by mail: %w", err))
	return errNotNow
}

// say logs what anybody can make us say, at most once in a minute.
func (t *transport) say(kind, text string, args ...any) {
	t.mu.Lock()
	recent := time.Since(t.said[kind]) < time.Minute
	if !recent {
		t.said[kind] = time.Now()
	}
	t.mu.Unlock()
	if !recent {
		t.log.Warn(text, args...)
	}
}

// bounced notes the recipients of ours that a mail server somewhere says it could not reach. Anybody can send such a mail, so it is believed no further
// than that it is shown.
func (t *transport) bounced(all []bounce) {
	for _, b := range all {
		for _, to := range t.post.To {
			if strings.EqualFold(to, b.to) {
				t.note(to, comesBack, b.why)
			}
		}
	}
}

func (t *transport) hasHeard(module, mailID string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.heard[module] = mailID
}

func (t *transport) lastHeard(module string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.heard[module]
}

// TellsRefusals implements transports.Teller: who brings a mail of somebody known is told that it was not taken.
func (t *transport) TellsRefusals() {}

func (t *transport) count(what string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts[what]++
}

// Counters implements transports.Counter.
func (t *transport) Counters() map[string]uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := map[string]uint64{"sent": 0, "refused": 0, "later": 0, kindMessage: 0, kindBounce: 0, kindMangled: 0, kindStranger: 0}
	maps.Copy(all, t.counts)
	return all
}
