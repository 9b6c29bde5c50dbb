package listener

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/envelope"
	"github.com/mirrorbus/mirrorbus/internal/export"
	"github.com/mirrorbus/mirrorbus/listener/inbox"
	"github.com/mirrorbus/mirrorbus/listener/plan"
	"github.com/mirrorbus/mirrorbus/listener/rsync"
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
func following(v view, from event.Serial) Along {
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
	line, err := w.m.CatchUp.Head(ctx, along)
	if err != nil {
		return nil, fmt.Errorf("read the upstream's head: %w", err)
	}
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
	return h, nil
}

// lookUp asks the upstream for its head, and takes in the announcements that follow what is here.
func (w *worker) lookUp(ctx context.Context, v view) error {
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
func (w *worker) journal(ctx context.Context, v view) error {
	w.begin(v.Top, v.now)
	defer w.end()
	w.stage("read the journal")
	from := v.Through + 1
	if first := w.pace.first(v); first != nil {
		from = first.Serial
	}
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
	for _, x := range entries {
		h, err := w.verify(x, e)
		if err != nil {
			return news, err
		}
		v, err := w.a.inbox.Put(ctx, h, nil)
		if err != nil {
			return news, err
		}
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

// manifestPause is how long a new module waits before it looks again whether the upstream has a manifest.
const manifestPause = 5 * time.Second

// compare brings the tree to the upstream's head whatever it is now: by comparison with the manifest, else by an rsync of everything.
func (w *worker) compare(ctx context.Context, v view) error {
	w.begin(v.Top, v.now)
	defer w.end()
	w.stage("compare with the manifest")
	h, err := w.upstreamHead(ctx, Along{Manifest: true})
	switch {
	case errors.Is(err, errNotExported) && v.Head != nil:
		return w.full(ctx, v, v.Head.Head)
	case errors.Is(err, errNotExported):
		return fmt.Errorf("the upstream exports nothing and no head was heard yet, so it is not known where it stands: %w", err)
	case err != nil:
		return err
	case h.Epoch == v.Epoch && h.Serial < v.Top:
		return &behindError{at: h.Serial, want: v.Top}
	case h.Manifest.IsZero() && v.Epoch == "" && v.now.Sub(v.Created) < w.a.o.Patience:
		return &laterError{manifestPause, "the upstream has no manifest yet; a master builds it when it is new"}
	case h.Manifest.IsZero():
		return w.full(ctx, v, h.Head)
	}
	if err := w.pay(ctx, v, workManifest); err != nil {
		return err
	}
	d, err := w.m.CatchUp.Compare(ctx, h.Head, v.Epoch, v.Applied)
	if errors.Is(err, errNotExported) {
		return w.full(ctx, v, h.Head)
	}
	if err != nil {
		return fmt.Errorf("compare with the manifest: %w", err)
	}
	return w.bring(ctx, v, h.Head, d)
}

// bring applies a difference and what was announced after its manifest.
func (w *worker) bring(ctx context.Context, v view, h event.Head, d Difference) (err error) {
	b := w.wholeBatch(v, h)
	b.entries = d.Entries
	sets := []event.PathSet{d.Set}
	if d.Serial < h.Serial {
		if sets, err = w.since(ctx, h, d, b); err != nil {
			return err
		}
	}
	b.pending = []plan.Pending{{Serial: max(h.Serial, 1), Kind: event.Change, Set: event.Merge(sets...)}}
	if err := b.run(ctx); err != nil {
		return err
	}
	w.setLost("")
	return nil
}

// pay takes from a budget what the next piece of such work costs.
func (w *worker) pay(ctx context.Context, v view, kind string) error {
	left, wait := w.m.Budgets[kind].take(v.Budgets[kind], v.now)
	if wait > 0 {
		return &laterError{wait, "work of the kind " + kind + " is needed, and its rate is limited"}
	}
	return w.a.inbox.Spend(ctx, w.m.Name, kind, left)
}

// wholeBatch is a batch that brings the module to a head from anywhere.
func (w *worker) wholeBatch(v view, h event.Head) *batch {
	return &batch{w: w, v: v, epoch: h.Epoch, through: h.Serial, digest: h.Last, confirmed: v.Confirmed > v.Applied}
}

// since adds what was announced after the manifest to the batch. The journal is read in as many parts as it takes.
func (w *worker) since(ctx context.Context, h event.Head, d Difference, b *batch) ([]event.PathSet, error) {
	sets := []event.PathSet{d.Set}
	for at := d.Serial; at < h.Serial; {
		entries, err := w.m.CatchUp.Journal(ctx, h.Epoch, at+1, h.Serial)
		if err != nil {
			return nil, fmt.Errorf("read the upstream's journal after the manifest: %w", err)
		}
		before := at
		for _, x := range entries {
			a, err := w.verify(x, h.Epoch)
			if err != nil {
				return nil, err
			}
			if a.Serial != at+1 || a.Set == nil {
				break
			}
			set, err := w.sinceOne(ctx, a, b)
			if err != nil {
				return nil, err
			}
			sets, at = append(sets, set), a.Serial
		}
		if at == before {
			return nil, &behindError{at: at, want: h.Serial}
		}
	}
	return sets, nil
}

// sinceOne takes one announcement into the batch. Its path set is empty if it is a flip that waits for its time.
func (w *worker) sinceOne(ctx context.Context, a inbox.Heard, b *batch) (event.PathSet, error) {
	b.rows = append(b.rows, a)
	set, err := envelope.PathSet(a.Set, a.Announcement.Set)
	if err != nil {
		return nil, err
	}
	if a.Kind == event.Flip {
		if what, _ := flipVerdict(a.Announcement, w.a.o.Now(), false); what != flipNow {
			b.except, set = append(b.except, a.Serial), nil
		}
	}
	if len(b.except) > 0 {
		_, err = w.a.inbox.Put(ctx, a, nil)
	}
	return set, err
}

// full fetches everything: the last resort, where the upstream exports no manifest. The head must have been read before.
func (w *worker) full(ctx context.Context, v view, h event.Head) error {
	if err := w.pay(ctx, v, workFull); err != nil {
		return err
	}
	w.log.Warn("fetching everything: the upstream has no manifest", "serial", h.Serial)
	b := w.wholeBatch(v, h)
	b.started = v.now
	j := rsync.Job{Mode: rsync.Full, MaxDelete: w.m.MaxDelete, Filters: fullFilters(w.m)}
	if b.confirmed {
		j.MaxDelete = rsync.Unlimited
	}
	w.stage("full")
	j.Progress = w.progress
	res, err := w.m.Runner.Run(ctx, "full", j)
	b.done = res
	w.add(res)
	if err != nil {
		return err
	}
	t, err := openTree(w.m.Dir, w.m.Links)
	if err != nil {
		return err
	}
	if err := errors.Join(t.sync(), t.close()); err != nil {
		return err
	}
	if err := b.finish(ctx); err != nil {
		return err
	}
	w.setLost("")
	return nil
}
