package listener

import (
	"context"
	"errors"
	"fmt"
	"slices"

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

// following are the entries after those that are here: what is known to be missing, or the first part of it where that is much, and a few that may be news. One
// that the upstream does not have costs it one lstat(2).
func following(v pace.View, from event.Serial) Along {
	const few = 32
	if v.Epoch == "" {
		return Along{}
	}
	return Along{Epoch: v.Epoch, From: from, To: max(min(v.Top, from+trial-1), from+few-1)}
}

// A Difference is what brings a tree to a manifest.
type Difference struct {
	Serial  event.Serial // that the manifest stands at
	Entries int64        // names in it
	Set     event.PathSet
}

var errNotExported = export.ErrNotExported

// lookUp asks the upstream for its head, and takes in the announcements that follow what is here.
func (w *worker) lookUp(ctx context.Context, v pace.View) error {
	h, err := w.lead(ctx, v, following(v, v.Through+1))
	if errors.Is(err, errNotExported) {
		return nil // an upstream without an export is no failure while nothing is missing
	}
	if err != nil {
		return err
	}
	w.rhythm(v, h)
	if v.Epoch == "" || h.Epoch != v.Epoch || h.Serial <= v.Through {
		return nil
	}
	_, err = w.takeAll(ctx, v, h, v.Through+1)
	return err
}

// journal fetches what is missing between what is here and the upstream's head.
func (w *worker) journal(ctx context.Context, v pace.View) error {
	w.begin(v.Top, v.Now)
	defer w.end()
	w.stage("read the journal")
	from := w.pace.Missing(v)
	h, err := w.lead(ctx, v, following(v, from))
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
		return &behindError{at: h.Serial, want: v.Top, stale: w.staleness(h.Head)}
	}
	n, err := w.takeAll(ctx, v, h, from)
	if err != nil {
		return err
	}
	if n == 0 {
		why := fmt.Sprintf("the upstream's journal no longer has serial %d", from)
		w.forgotten(why, why)
	}
	return errAgain
}

// A taking is what was read of the journal.
type taking struct {
	entries int // read
	news    int // of these
	bytes   int // of lines and path sets
}

// takeIn reads entries of the upstream's journal into the inbox. What comes before one that cannot be read is taken in.
func (w *worker) takeIn(ctx context.Context, e event.Epoch, from, to event.Serial) (got taking, err error) {
	entries, readErr := w.m.CatchUp.Journal(ctx, e, from, to)
	if readErr != nil {
		readErr = fmt.Errorf("read the upstream's journal from serial %d on: %w", from, readErr)
	}
	failpoint.Here("journal.read")
	var good []inbox.Heard
	for _, x := range entries {
		h, err := w.verify(x, e)
		if err != nil {
			readErr = err
			break
		}
		good = append(good, h)
	}
	for part := range slices.Chunk(good, storedAtOnce) {
		if err := w.store(ctx, part, &got); err != nil {
			return got, err
		}
		failpoint.Here("journal.stored")
	}
	return got, readErr
}

// storedAtOnce is how many announcements are one transaction: to bring each to disk by itself would take longer than all the rest.
const storedAtOnce = 128

// store puts announcements into the inbox.
func (w *worker) store(ctx context.Context, all []inbox.Heard, got *taking) error {
	verdicts, err := w.a.inbox.PutAll(ctx, all)
	for i, v := range verdicts {
		h := all[i]
		if v == inbox.Equivocation {
			w.heard(v, h.Announcement.Kind, h.Serial, h.At, viaJournal)
			return errAgain
		}
		got.entries, got.bytes = got.entries+1, got.bytes+len(h.Line)+len(h.Set)
		if (v == inbox.Stored || v == inbox.Repeated) && (h.Set != nil || h.Announcement.Set.IsZero()) {
			got.news++
		}
	}
	return err
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
