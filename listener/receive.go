package listener

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/envelope"
	"github.com/mirrorbus/mirrorbus/internal/failpoint"
	"github.com/mirrorbus/mirrorbus/listener/inbox"
	"github.com/mirrorbus/mirrorbus/transports"
)

// The names under which stored lines say that no transport brought them.
const (
	viaJournal  = "journal"
	viaUpstream = inbox.ViaUpstream
)

// Receiver takes what the transport named via delivers.
func (a *Agent) Receiver(via string) transports.Receiver { return &receiver{a: a, via: via} }

type receiver struct {
	a   *Agent
	via string
}

// Connected implements transports.Receiver: what was sent before may be lost, so every module looks at the head soon, and says where it stands.
func (r *receiver) Connected() {
	now := r.a.o.Now()
	for _, w := range r.a.workers {
		wait := time.Duration(0)
		if r.a.o.Spread > 0 {
			wait = rand.N(r.a.o.Spread)
		}
		w.wantLook(now.Add(wait))
		w.poke()
	}
	select {
	case r.a.haves <- r.via:
	default: // as many connects wait to be answered already; the next round of haves comes anyway
	}
}

// Receive implements transports.Receiver. It returns nil once m is stored, or is known already, a Refusal if it will never be worth storing, and another
// error only if the state could not be written.
func (r *receiver) Receive(ctx context.Context, m transports.Message) error {
	now := r.a.o.Now()
	line, set, err := envelope.Decode(m.Body)
	if err != nil {
		return r.a.refused.note(r.via, m, err)
	}
	sealed, err := r.a.o.Gate.Open(line, now)
	if err != nil {
		return r.a.refused.note(r.via, m, err)
	}
	w := r.a.workers[sealed.Module()]
	switch {
	case w == nil:
		return r.a.refused.note(r.via, m, fmt.Errorf("module %s: %w", sealed.Module(), inbox.ErrUnknownModule))
	case string(sealed.Module()) != m.Topic.Module:
		return r.a.refused.note(r.via, m, fmt.Errorf("a line of module %s on the topic of %s", sealed.Module(), m.Topic.Module))
	case sealed.Announcement != nil:
		return w.hear(ctx, sealed, set, now, r.via)
	case sealed.Head != nil:
		return w.hearHead(ctx, sealed, now, r.via)
	}
	return r.a.refused.note(r.via, m, fmt.Errorf("a %s, which mirrors do not take", sealed.Kind))
}

// hear stores an announcement.
func (w *worker) hear(ctx context.Context, s event.Sealed, set []byte, now time.Time, via string) error {
	a := *s.Announcement
	if set != nil {
		if _, err := envelope.PathSet(set, a.Set); err != nil {
			w.log.Warn("path set dropped, it will be fetched", "serial", a.Serial, "transport", via, "error", err)
			set = nil
		}
	}
	h := inbox.Heard{Announcement: a, Line: s.Line, Digest: s.Digest, Set: set, At: now, Via: via}
	r := event.Report{Module: a.Module, Epoch: a.Epoch, Serial: a.Serial, Outcome: event.Received, Heard: now.Sub(a.At), Via: via}
	failpoint.Here("receive.verified")
	v, err := w.a.inbox.Put(ctx, h, &r)
	if err != nil {
		return fmt.Errorf("store serial %d of module %s: %w", a.Serial, a.Module, err)
	}
	w.heard(v, s.Kind, a.Serial, now, via)
	if v == inbox.Stored {
		w.a.o.Reported()
	}
	failpoint.Here("receive.stored")
	return nil
}

// hearHead stores a head.
func (w *worker) hearHead(ctx context.Context, s event.Sealed, now time.Time, via string) error {
	v, err := w.a.inbox.PutHead(ctx, inbox.Head{Head: *s.Head, Line: s.Line, At: now, Via: via})
	if err != nil {
		return fmt.Errorf("store head %d of module %s: %w", s.Head.Serial, s.Head.Module, err)
	}
	if v == inbox.Stored {
		w.headDue.Store(true)
	}
	w.heard(v, s.Kind, s.Head.Serial, now, via)
	return nil
}

// heard acts on what became of a message.
func (w *worker) heard(v inbox.Verdict, kind event.Kind, n event.Serial, now time.Time, via string) {
	log := w.log.With("serial", n, "transport", via, "kind", kind)
	switch v {
	case inbox.Equivocation:
		log.Error("module quarantined: a serial was heard with two different contents; nothing runs until an operator has released it")
	case inbox.TooFar:
		log.Warn("serial is far above what is known, asking the upstream")
		w.wantLook(now)
	case inbox.Strange:
		log.Warn("announcement of another epoch, asking the upstream")
		w.wantLook(now)
	case inbox.Frozen:
		log.Warn("the head expired long ago and is not followed, asking the upstream")
		w.wantLook(now)
	case inbox.Stored:
		log.Info("heard")
	case inbox.Old, inbox.Repeated:
		log.Debug("ignored", "verdict", v)
	}
	w.poke()
}

// refusals count messages that were refused, and log each reason and peer at most once a minute: what anybody can send must not fill the log.
type refusals struct {
	log *slog.Logger
	now func() time.Time

	mu     sync.Mutex
	counts map[string]uint64 // by reason
	logged map[string]time.Time
}

func newRefusals(log *slog.Logger, now func() time.Time) *refusals {
	return &refusals{log: log, now: now, counts: map[string]uint64{}, logged: map[string]time.Time{}}
}

// maxLogged bounds the memory of what was logged.
const maxLogged = 1000

// note counts a refusal, and returns it: a message that is refused once is refused always, so it is never to be delivered again.
func (r *refusals) note(via string, m transports.Message, err error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	reason := reasonOf(err)
	r.counts[reason]++
	key, now := reason+" "+via+" "+m.From, r.now()
	if last, ok := r.logged[key]; ok && now.Sub(last) < time.Minute {
		return &transports.Refusal{Err: err}
	}
	if len(r.logged) >= maxLogged {
		clear(r.logged)
	}
	r.logged[key] = now
	r.log.Warn("message refused", "reason", reason, "error", err, "transport", via, "from", m.From, "topic", m.Topic.String())
	return &transports.Refusal{Err: err}
}

// snapshot returns the counts.
func (r *refusals) snapshot() map[string]uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make(map[string]uint64, len(r.counts))
	for k, v := range r.counts {
		all[k] = v
	}
	return all
}

func reasonOf(err error) string {
	switch {
	case errors.Is(err, event.ErrRefused):
		return "not trusted"
	case errors.Is(err, event.ErrFormat):
		return "malformed"
	case errors.Is(err, inbox.ErrUnknownModule):
		return "unknown module"
	}
	return "out of place"
}
