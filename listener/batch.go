package listener

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/envelope"
	"github.com/mirrorbus/mirrorbus/internal/failpoint"
	"github.com/mirrorbus/mirrorbus/listener/inbox"
	"github.com/mirrorbus/mirrorbus/listener/pace"
	"github.com/mirrorbus/mirrorbus/listener/plan"
	"github.com/mirrorbus/mirrorbus/listener/rsync"
)

// maxBatch is about how many bytes of compressed path sets one batch takes in.
const maxBatch = 64 << 20

// A batch is a snapshot of what is to be done, on its way to being applied. What arrives meanwhile waits for the next one.
type batch struct {
	w       *worker
	v       pace.View
	epoch   event.Epoch
	through event.Serial
	digest  event.Digest  // of the line of serial through
	waiting []inbox.Heard // flips up to through that wait for their time
	rows    []inbox.Heard
	pending []plan.Pending
	entries int64 // names in the module, where a manifest has told anew or they were counted

	confirmed   bool
	started     time.Time
	plan        plan.Plan
	nothingOurs bool
	worked      bool            // the pre hook has let it begin
	done        rsync.Result    // sums
	unsafe      map[string]bool // links that lead out of the module, which this mirror does not take
	superseded  speech          // what is left to newer announcements
	whole       bool            // made from the manifest, not from announcements in the inbox
	has         bool            // the upstream is known to have had all of it before the first run
	below       string          // of a push that did not say what has changed: what mirrors below may be told, in the words of runmirrors

	shown   []string   // indexes that are captured, to be put in place
	removed [][]string // for each survey of the delete stage, what it removes
	blind   bool       // the runner is another program's, which captures and surveys nothing
}

// expected are those of the records that the tree must agree with: without the links that this mirror does not take, and what is left to newer
// announcements.
func (b *batch) expected(of []event.Record) []event.Record {
	if len(b.unsafe) == 0 && b.superseded.paths == nil {
		return of
	}
	return slices.DeleteFunc(slices.Clone(of), func(r event.Record) bool {
		return b.unsafe[r.Path] && r.Mode&event.ModeType == event.ModeLink || b.superseded.speaksOf(r.Path)
	})
}

// live applies the announcements that are here.
func (w *worker) live(ctx context.Context, v pace.View, through event.Serial) error {
	counted := int64(0) // names that are here, if it had to be counted
	for {
		b, err := w.collect(ctx, v, through)
		if err != nil || b == nil {
			return err
		}
		b.entries = counted
		err = b.run(ctx)
		var cut *cutError
		var behind *behindError
		var failed *rsync.Error
		switch {
		case errors.As(err, &behind) && behind.at > v.Applied && behind.at < through: // where changes never cease it is always behind
			w.log.Info("batch cut to what the upstream has", "serial", behind.at, "heard", through)
			through = behind.at
		case errors.As(err, &cut) && cut.at < through:
			w.log.Info("batch cut to what the captured indexes belong to", "serial", cut.at, "heard", through)
			through = cut.at
		case errors.As(err, &failed) && failed.Class == rsync.MaxDelete && b.entries == 0:
			grown, countErr := b.recount()
			if countErr != nil || !grown {
				return errors.Join(err, countErr)
			}
			v.Entries, counted = b.v.Entries, b.entries
		default:
			return err
		}
	}
}

// collect reads the announcements up to a serial, without flips that wait for their time. It returns nil if there are none.
func (w *worker) collect(ctx context.Context, v pace.View, through event.Serial) (*batch, error) {
	rows, err := w.a.inbox.Batch(ctx, w.m.Name, through, maxBatch)
	if err != nil {
		return nil, err
	}
	b := &batch{w: w, v: v, epoch: v.Epoch, confirmed: v.Confirmed >= through}
	for _, h := range rows {
		if h.Kind == event.Flip && w.pace.Waits(v, h.Serial) {
			b.waiting = append(b.waiting, h)
			continue
		}
		set, err := envelope.PathSet(h.Set, h.Announcement.Set)
		if err != nil {
			return nil, fmt.Errorf("serial %d: %w", h.Serial, err)
		}
		set = without(set, h.Overtaken)
		b.rows = append(b.rows, h)
		b.pending = append(b.pending, plan.Pending{Serial: h.Serial, Kind: h.Kind, Set: set})
		b.through, b.digest = h.Serial, h.Digest
	}
	b.waiting = slices.DeleteFunc(b.waiting, func(h inbox.Heard) bool { return h.Serial > b.through })
	if len(b.rows) == 0 {
		return nil, nil
	}
	return b, nil
}

// except are the serials of the flips that wait.
func (b *batch) except() (serials []event.Serial) {
	for _, h := range b.waiting {
		serials = append(serials, h.Serial)
	}
	return serials
}

// run does the batch: plan, pre hook, stages, check, sync to disk, the transaction, export, post hook.
func (b *batch) run(ctx context.Context) error {
	b.started = b.w.a.o.Now()
	b.w.begin(b.through, b.started)
	defer b.w.end()
	if err := b.make(); err != nil {
		return err
	}
	failpoint.Here("plan.made")
	switch {
	case b.plan.Manifest:
		b.w.setLost("an announcement names no paths")
		return errAgain
	case b.plan.Held != "":
		return &heldError{b.plan.Held}
	}
	err := b.apply(ctx)
	if err == nil {
		b.w.stage("export")
		b.w.exportEntries(ctx, b.rows...)
	}
	if b.worked && len(b.w.m.Post) > 0 {
		b.after(ctx, err)
	}
	return err
}

// after runs the post hook. It may push a mirror below, which then must find a head that speaks of what was applied: so that is carried on first, if it can be
// already.
func (b *batch) after(ctx context.Context, outcome error) {
	if outcome == nil && b.w.exports() {
		b.w.exportHead(ctx)
		b.w.headDue.Store(true) // it may not have been possible yet
	}
	if err := b.hook(ctx, b.w.m.Post, "post", outcome); err != nil {
		b.w.log.Warn("hook after a batch failed", "serial", b.through, "error", err)
	}
}

// apply does what the plan says, after the pre hook, and notes it.
func (b *batch) apply(ctx context.Context) error {
	if b.nothingOurs = len(b.plan.Stages) == 0 && len(b.plan.Expect) == 0; b.nothingOurs {
		return b.finish(ctx)
	}
	b.has = b.whole || b.knownReady()
	if b.plan.NeedsHead {
		if err := b.ready(ctx); err != nil {
			return err
		}
		b.has = true
	}
	failpoint.Here("capture.before")
	if err := b.capture(ctx); err != nil {
		return err
	}
	failpoint.Here("capture.after")
	if err := b.hook(ctx, b.w.m.Pre, "pre", nil); err != nil {
		return err
	}
	b.worked = true
	err := b.work(ctx)
	if err == nil {
		err = b.finish(ctx)
	}
	return err
}

// work runs the stages and makes sure that the tree is as announced, on disk.
func (b *batch) work(ctx context.Context) error {
	t, err := openTree(b.w.m.Dir, b.w.m.Links)
	if err != nil {
		return err
	}
	defer t.close() //nolint:errcheck // what was written is synced
	if err := b.room(t); err != nil {
		return err
	}
	b.renames(t)
	failpoint.Here("rename.after")
	b.w.expect(len(b.plan.Expect))
	if err := b.stages(ctx, t); err != nil {
		return err
	}
	b.w.stage("check")
	if err := b.checked(ctx, t); err != nil {
		return err
	}
	b.w.stage("sync")
	failpoint.Here("sync.before")
	if err := t.sync(); err != nil {
		return err
	}
	failpoint.Here("sync.after")
	return nil
}

// fresh is how long an upstream that has said what it has is not asked again whether it has that. It may be one of several behind one name.
const fresh = time.Minute

// knownReady tells whether the upstream has said so lately.
func (b *batch) knownReady() bool {
	h := b.w.upstream
	return h != nil && h.Epoch == b.epoch && h.Serial >= b.through && b.w.a.o.Now().Sub(h.At) < fresh
}

// ready makes sure that the upstream has what the batch is about, where the result alone would not prove it.
func (b *batch) ready(ctx context.Context) error {
	if b.knownReady() {
		return nil
	}
	b.w.stage("ask the upstream")
	h, err := b.w.upstreamHead(ctx, Along{})
	switch {
	case err != nil:
		return err
	case h.Epoch != b.epoch:
		return errAgain // the next decision sees the other epoch
	case h.Serial < b.through:
		return &behindError{at: h.Serial, want: b.through, stale: b.w.staleness(h.Head)}
	case b.heldBack(ctx):
		return errAgain
	}
	return nil
}

// explain finds out why the tree is not as announced, or why paths could not be brought: the upstream is behind, or ahead (then its newer
// announcements are taken in and all is planned again), or neither.
func (b *batch) explain(ctx context.Context, cause error) error {
	var failed *rsync.Error
	if errors.As(cause, &failed) && failed.Class != rsync.Partial && failed.Class != rsync.Vanished || b.w.m.CatchUp == nil || ctx.Err() != nil {
		return cause
	}
	b.w.stage("ask the upstream")
	h, err := b.w.lead(ctx, b.v, following(b.v, b.v.Through+1))
	switch {
	case errors.Is(err, errNotExported):
		return cause
	case err != nil:
		return errors.Join(cause, err)
	case h.Epoch != b.epoch:
		return errAgain
	case h.Serial < b.through:
		return &behindError{at: h.Serial, want: b.through, path: pathOf(cause), stale: b.w.staleness(h.Head)}
	case b.heldBack(ctx): // what is half made there explains it
		return errAgain
	case h.Serial > b.v.Through:
		if got, err := b.w.takeIn(ctx, b.epoch, b.v.Through+1, h.Serial); err != nil {
			return errors.Join(cause, err)
		} else if got.news > 0 {
			b.w.log.Info("newer announcements are taken in", "serial", b.through, "head", h.Serial, "because", cause)
			return errNewer
		}
	}
	return cause
}

// finish notes the batch as applied.
func (b *batch) finish(ctx context.Context) error {
	now := b.w.a.o.Now()
	r := b.applied(now)
	over, err := b.overtaken(ctx)
	if err != nil {
		return err
	}
	more, err := b.w.a.inbox.Finish(ctx, inbox.Done{
		Module: b.w.m.Name, Epoch: b.epoch, Through: b.through, Digest: b.digest, Except: b.except(), Entries: b.entries, At: now, Reports: []event.Report{r},
		Overtaken: over,
	})
	if err != nil {
		return err
	}
	failpoint.Here("applied.after")
	b.w.log.Info("applied", "serial", b.through, "outcome", r.Outcome, "files", r.Files, "bytes", r.Bytes, "deleted", r.Deleted, "took", r.Took.Round(time.Millisecond), "more", more)
	if len(b.unsafe) > 0 {
		b.w.log.Info("links left out, they lead out of the module", "serial", b.through, "links", len(b.unsafe))
	}
	b.trace("mirrorbus", now)
	b.w.a.o.Reported()
	token(b.w.wakeFlips)
	return nil
}
