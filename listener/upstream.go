package listener

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/failpoint"
	"github.com/mirrorbus/mirrorbus/listener/inbox"
	"github.com/mirrorbus/mirrorbus/listener/pace"
)

// An Answer is what a look at the upstream's head said.
type Answer string

// The answers.
const (
	News       Answer = "news"        // a head that it had not said before
	NoNews     Answer = "no news"     // it is where it was
	OldNews    Answer = "out of date" // its head has expired, or is of an older history
	CannotTell Answer = "cannot tell" // there was no head to be read
)

// upstreamHead asks the upstream for its head, and for what is brought along, verifies and stores it. An older one than is known is returned too, since it says
// where the upstream stands, unless it is of another history. So is one that is frozen: see lead.
func (w *worker) upstreamHead(ctx context.Context, along Along) (*inbox.Head, error) {
	before := w.upstream
	h, v, err := w.ask(ctx, along)
	if ctx.Err() == nil && !errors.Is(err, errAgain) {
		w.answered(before, h, v, err)
	}
	return h, err
}

// lead is upstreamHead for who takes in what it leads to. One that expired long ago leads no further than what is known otherwise: announcements that were heard,
// and heads that were heard in time.
func (w *worker) lead(ctx context.Context, v pace.View, along Along) (*inbox.Head, error) {
	h, err := w.upstreamHead(ctx, along)
	if err != nil || w.notFrozen(v, h.Head) == nil {
		return h, err
	}
	known := *h
	known.Serial, known.Manifest = v.Top, event.Digest{}
	return &known, nil
}

// notFrozen is an error if a head that expired long ago says more than is known, or nothing is known here yet: the tree may be newer than that.
func (w *worker) notFrozen(v pace.View, h event.Head) error {
	switch {
	case !w.isFrozen(h):
		return nil
	case v.Epoch == "":
		return &staleError{h, "has expired long ago: a mirror that has no other does not begin with it"}
	case h.Epoch == v.Epoch && h.Serial > v.Top:
		return &staleError{h, "has expired long ago: it is not followed"}
	}
	return nil
}

func (w *worker) isFrozen(h event.Head) bool { return h.Expired(w.a.o.Now(), inbox.FrozenAfter) }

func (w *worker) ask(ctx context.Context, along Along) (_ *inbox.Head, v inbox.Verdict, _ error) {
	now := w.a.o.Now()
	w.mu.Lock()
	w.look, w.looked = time.Time{}, now
	w.mu.Unlock()
	if w.m.CatchUp == nil {
		return nil, "", fmt.Errorf("the upstream's head: %w", errNotExported)
	}
	failpoint.Here("look.asked")
	line, err := w.m.CatchUp.Head(ctx, along)
	if err != nil {
		return nil, "", fmt.Errorf("read the upstream's head: %w", err)
	}
	failpoint.Here("look.read")
	s, err := w.a.o.Gate.Open(line, now)
	if err != nil {
		return nil, "", fmt.Errorf("the upstream's head: %w", err)
	}
	if s.Head == nil || s.Head.Module != w.m.Name {
		return nil, "", fmt.Errorf("the upstream's head is a %s of module %s", s.Kind, s.Module())
	}
	h := &inbox.Head{Head: *s.Head, Line: s.Line, At: now, Via: viaUpstream}
	switch v, err = w.a.inbox.PutHead(ctx, *h); {
	case err != nil:
		return nil, "", err
	case v == inbox.Stored:
		w.headDue.Store(true)
	case v == inbox.Equivocation:
		w.heard(v, event.HeadIs, h.Serial, now, viaUpstream)
		return nil, v, errAgain
	case v == inbox.Old, v == inbox.Frozen:
		if err := w.sameHistory(ctx, h.Head, v); err != nil {
			return nil, v, err
		}
	}
	w.upstream = h
	return h, v, nil
}

// sameHistory is an error if a head is of an epoch that has been replaced: neither this mirror's nor that of the newest head. Where it leads nobody is to go.
// Nor does a mirror go into another epoch by one that expired long ago.
func (w *worker) sameHistory(ctx context.Context, h event.Head, v inbox.Verdict) error {
	s, err := w.a.inbox.Look(ctx, w.m.Name)
	switch {
	case err != nil || h.Epoch == s.Epoch:
		return err
	case v == inbox.Frozen && s.Epoch != "":
		return &staleError{h, fmt.Sprintf("has expired long ago: it is of epoch %s, and not followed there", h.Epoch)}
	case v == inbox.Frozen || s.Head == nil || h.Epoch == s.Head.Epoch: // who begins asks notFrozen
		return nil
	}
	return &staleError{h, fmt.Sprintf("is of epoch %s, which epoch %s has replaced", h.Epoch, s.Head.Epoch)}
}

// staleness says that a head has expired, "" if it has not.
func (w *worker) staleness(h event.Head) string {
	if !h.Expired(w.a.o.Now(), w.pace.Skew) {
		return ""
	}
	return fmt.Sprintf("its head was signed at %s and has expired", h.At.Format(time.RFC3339))
}

// answered notes what a look said, and says loudly if that is out of date.
func (w *worker) answered(before, h *inbox.Head, v inbox.Verdict, err error) {
	answer, text := NoNews, ""
	var old *staleError
	switch {
	case errors.As(err, &old):
		answer, text = OldNews, err.Error()
	case err != nil:
		answer, text = CannotTell, err.Error()
	case v == inbox.Frozen:
		answer, text = OldNews, fmt.Sprintf("its head was signed at %s and has expired long ago; serial %d, which it tells of, is not fetched", h.Head.At.Format(time.RFC3339), h.Serial)
	case w.staleness(h.Head) != "":
		answer, text = OldNews, w.staleness(h.Head)
	case before == nil || before.Epoch != h.Epoch || before.Serial != h.Serial:
		answer = News
	}
	w.mu.Lock()
	turned := answer == OldNews && w.answer != OldNews
	w.answer, w.answerText = answer, text
	w.mu.Unlock()
	if turned {
		w.log.Warn("the upstream is out of date: it is frozen or was set back, or the master signs no heads", "error", text)
	}
}

// rhythm decides when to look again after a look.
func (w *worker) rhythm(v pace.View, h *inbox.Head) {
	news := h.Serial > v.Top && h.Epoch == v.Epoch || h.Epoch != v.Epoch
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lookIn = pace.Rhythm{Least: w.a.o.LookLeast, Most: w.a.o.LookEvery}.Next(w.lookIn, news, rand.Float64())
}
