package listener

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/envelope"
	"github.com/mirrorbus/mirrorbus/internal/export"
	"github.com/mirrorbus/mirrorbus/internal/failpoint"
	"github.com/mirrorbus/mirrorbus/listener/inbox"
	"github.com/mirrorbus/mirrorbus/listener/pace"
)

// A CatchUp reads what the upstream exports in .mirrorbus/. Nothing that it returns is verified but what its methods say.
type CatchUp interface {
	// Head reads the upstream's head line, and brings along what the call after it will want. The error Is export.ErrNotExported if it has none.
	Head(ctx context.Context, along Along) (line []byte, err error)

	// Journal reads the entries of an epoch from one serial to another, in order, as far as the upstream has them without a gap, or as far as
	// they came with the head. None at all is no error: it has forgotten the first.
	Journal(ctx context.Context, e event.Epoch, from, to event.Serial) ([]export.Entry, error)

	// Compare tells what brings the tree to the manifest that a verified head names, whose digest it checks. For a mirror that has every
	// announcement up to a serial of the same epoch that is what was touched since, if the manifest reaches back so far; else (epoch "") it
	// compares the whole tree. The error Is export.ErrNotExported if the upstream does not have that manifest.
	Compare(ctx context.Context, h event.Head, e event.Epoch, applied event.Serial) (Difference, error)
}

// Along is what is brought in the same connection as the head. What the upstream does not have is left out.
type Along struct {
	Epoch    event.Epoch  // of the entries
	From, To event.Serial // entries for Journal; From 0 for none
	Manifest bool         // what is not here yet of the newest manifest, for Compare
}

// following are the entries after those that are here: what is known to be missing, and a few that may be news. One that the upstream does not have
// costs it one lstat(2).
func following(v pace.View, from event.Serial) Along {
	const few = 32
	if v.Epoch == "" {
		return Along{}
	}
	return Along{Epoch: v.Epoch, From: from, To: max(v.Top, from+few-1)}
}

// A Difference is what brings a tree to a manifest.
type Difference struct {
	Serial  event.Serial // that the manifest stands at
	Entries int64        // names in it
	Set     event.PathSet
}

var errNotExported = export.ErrNotExported

// upstreamHead asks the upstream for its head, and for what is brought along, verifies and stores it.
func (w *worker) upstreamHead(ctx context.Context, along Along) (*inbox.Head, error) {
	now := w.a.o.Now()
	w.mu.Lock()
	w.look, w.looked = time.Time{}, now
	w.mu.Unlock()
	if w.m.CatchUp == nil {
		return nil, fmt.Errorf("the upstream's head: %w", errNotExported)
	}
	failpoint.Here("look.asked")
	line, err := w.m.CatchUp.Head(ctx, along)
	if err != nil {
		return nil, fmt.Errorf("read the upstream's head: %w", err)
	}
	failpoint.Here("look.read")
	s, err := w.a.o.Gate.Open(line, now)
	if err != nil {
		return nil, fmt.Errorf("the upstream's head: %w", err)
	}
	if s.Head == nil || s.Head.Module != w.m.Name {
		return nil, fmt.Errorf("the upstream's head is a %s of module %s", s.Kind, s.Module())
	}
	h := &inbox.Head{Head: *s.Head, Line: s.Line, At: now, Via: viaUpstream}
	v, err := w.a.inbox.PutHead(ctx, *h)
	if err != nil {
		return nil, err
	}
	if v == inbox.Stored {
		w.headDue.Store(true)
	}
	if v == inbox.Equivocation {
		w.heard(v, h.Serial, now, viaUpstream)
		return nil, errAgain
	}
	w.upstream = h
	return h, nil
}

// lookUp asks the upstream for its head, and takes in the announcements that follow what is here.
func (w *worker) lookUp(ctx context.Context, v pace.View) error {
	h, err := w.upstreamHead(ctx, following(v, v.Through+1))
	if errors.Is(err, errNotExported) {
		return nil // an upstream without an export is no failure while nothing is missing
	}
	if err != nil || v.Epoch == "" || h.Epoch != v.Epoch || h.Serial <= v.Through {
		return err
	}
	_, err = w.takeIn(ctx, v.Epoch, v.Through+1, h.Serial)
	return err
}

// journal fetches what is missing between what is here and the upstream's head.
func (w *worker) journal(ctx context.Context, v pace.View) error {
	w.begin(v.Top, v.Now)
	defer w.end()
	w.stage("read the journal")
	from := w.pace.Missing(v)
	h, err := w.upstreamHead(ctx, following(v, from))
	if errors.Is(err, errNotExported) {
		w.setLost("the upstream has no journal")
		return errAgain
	}
	if err != nil {
		return err
	}
	if h.Epoch != v.Epoch {
		return errAgain
	}
	if h.Serial < from {
		return &behindError{at: h.Serial, want: v.Top}
	}
	n, err := w.takeIn(ctx, v.Epoch, from, h.Serial)
	if err != nil {
		return err
	}
	if n == 0 {
		w.setLost(fmt.Sprintf("the upstream's journal no longer has serial %d", from))
	}
	return errAgain
}

// takeIn reads entries of the upstream's journal into the inbox and tells how many of them were news.
func (w *worker) takeIn(ctx context.Context, e event.Epoch, from, to event.Serial) (news int, err error) {
	entries, err := w.m.CatchUp.Journal(ctx, e, from, to)
	if err != nil {
		return 0, fmt.Errorf("read the upstream's journal from serial %d on: %w", from, err)
	}
	failpoint.Here("journal.read")
	for _, x := range entries {
		h, err := w.verify(x, e)
		if err != nil {
			return news, err
		}
		v, err := w.a.inbox.Put(ctx, h, nil)
		if err != nil {
			return news, err
		}
		failpoint.Here("journal.stored")
		switch v {
		case inbox.Equivocation:
			w.heard(v, h.Serial, h.At, viaJournal)
			return news, errAgain
		case inbox.Stored, inbox.Repeated:
			if h.Set != nil || h.Announcement.Set.IsZero() {
				news++
			}
		}
	}
	return news, nil
}

// verify makes an announcement of a journal entry.
func (w *worker) verify(x export.Entry, e event.Epoch) (inbox.Heard, error) {
	now := w.a.o.Now()
	s, err := w.a.o.Gate.Open(x.Line, now)
	if err != nil {
		return inbox.Heard{}, fmt.Errorf("the upstream's journal: %w", err)
	}
	a := s.Announcement
	if a == nil || a.Module != w.m.Name || a.Epoch != e {
		return inbox.Heard{}, fmt.Errorf("the upstream's journal of module %s: an entry is a %s of module %s", w.m.Name, s.Kind, s.Module())
	}
	h := inbox.Heard{Announcement: *a, Line: s.Line, Digest: s.Digest, At: now, Via: viaJournal}
	if !a.Set.IsZero() && x.Set != nil {
		if _, err := envelope.PathSet(x.Set, a.Set); err != nil {
			return h, fmt.Errorf("the upstream's journal, serial %d: %w", a.Serial, err)
		}
		h.Set = x.Set
	}
	return h, nil
}
