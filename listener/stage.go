package listener

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/dustin/go-humanize"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/failpoint"
	"github.com/mirrorbus/mirrorbus/listener/pace"
	"github.com/mirrorbus/mirrorbus/listener/plan"
	"github.com/mirrorbus/mirrorbus/listener/rsync"
)

// room looks, after the disk was full, whether there is now room for what is to come, so that probing costs nobody a transfer.
func (b *batch) room(t *tree) error {
	if b.v.Trouble.Kind != string(pace.Blocked) {
		return nil
	}
	var need int64
	for _, r := range b.plan.Expect {
		if r.Mode&event.ModeType != event.ModeFile || r.Op == event.Gone {
			continue
		}
		info, err := t.lstat(r.Path)
		if err != nil {
			return err
		}
		if what := judge(r, info, b.w.m.mask()); what != "" && what != otherMode {
			need += r.Size
		}
	}
	free, err := t.free()
	if err != nil || free >= need {
		return err
	}
	return fmt.Errorf("%s needed, %s free on %s: %w", humanize.IBytes(uint64(need)), humanize.IBytes(uint64(free)), b.w.m.Dir, syscall.ENOSPC)
}

// renames does what spares transfers. It may fail: the stages make sure.
func (b *batch) renames(t *tree) {
	for _, r := range b.plan.Renames {
		err := error(nil)
		if r.Keep {
			err = t.linkTree(r.From, r.To)
		} else if info, lookErr := t.lstat(r.From); lookErr == nil && info != nil && info.IsDir() {
			err = b.w.m.Runner.Rename(r.From, r.To)
		}
		if err != nil {
			b.w.log.Info("not renamed, transferred instead", "from", r.From, "to", r.To, "error", err)
		}
	}
}

// stages runs the stages after the capture: content; then, once that is complete, the captured indexes; then deletions.
func (b *batch) stages(ctx context.Context, t *tree) error {
	failpoint.Here("content.before")
	runs, err := b.lacking(t)
	if err != nil {
		return err
	}
	for _, r := range runs {
		if err := b.do(ctx, plan.Content, Job(r)); err != nil {
			return err
		}
	}
	failpoint.Here("content.after")
	if err := b.newest(ctx, t); err != nil {
		return err
	}
	if err := b.settled(ctx, t); err != nil {
		return err
	}
	failpoint.Here("metadata.before")
	for _, r := range b.metadata() {
		if err := b.do(ctx, plan.Metadata, Job(r)); err != nil {
			return err
		}
	}
	failpoint.Here("metadata.after")
	for i, r := range b.plan.Runs(plan.Delete) {
		for _, j := range b.deletes(i, r) {
			failpoint.Here("delete.before")
			if err := b.do(ctx, plan.Delete, j); err != nil {
				return err
			}
		}
	}
	failpoint.Here("delete.after")
	return b.putAway(ctx)
}

// newest makes sure of what is newer here than its record: written since on the upstream, or what the upstream had before the master put something older
// there. Only of an upstream that has the batch is that known, so it is asked, and the paths are brought again.
func (b *batch) newest(ctx context.Context, t *tree) error {
	runs, records := b.plan.Runs(plan.Content), b.plan.Content
	if b.has || len(runs) == 0 {
		return nil
	}
	if len(records) == 0 { // there are no indexes, which are compared when they are captured
		records = b.plan.Expect
	}
	newer, err := t.newer(b.expected(records))
	if err != nil || len(newer) == 0 {
		return err
	}
	if err := b.ready(ctx); errors.Is(err, errNotExported) {
		return nil // it cannot tell
	} else if err != nil {
		return err
	}
	b.has = true
	slices.Sort(newer)
	for list := range slices.Chunk(newer, plan.MaxNames) {
		if err := b.do(ctx, plan.Content, rsync.Job{Mode: rsync.Content, Paths: list, MaxDelete: runs[0].MaxDelete}); err != nil {
			return err
		}
	}
	return nil
}

// do runs a job; that it could not bring what newer announcements speak of is no error.
func (b *batch) do(ctx context.Context, name plan.StageName, j rsync.Job) error {
	if err := b.stage(ctx, name, j); err != nil {
		return b.excuse(ctx, err)
	}
	return nil
}

// stage does one run of a stage.
func (b *batch) stage(ctx context.Context, name plan.StageName, j rsync.Job) error {
	b.w.stage(string(name))
	j.Progress = b.w.progress
	_, err := b.rsync(ctx, name, j)
	return err
}

// rsync does one run, and adds it to what the batch has done.
func (b *batch) rsync(ctx context.Context, name plan.StageName, j rsync.Job) (rsync.Result, error) {
	res, err := b.w.m.Runner.Run(ctx, string(name), j)
	b.took(name, j, res)
	b.w.log.Debug("run", "stage", name, "mode", j.Mode, "way", j.Way, "paths", len(j.Paths), "first", slices.Concat(j.Paths, []string{""})[0], "files", res.Files,
		"deleted", res.Deleted, "changes", res.Changes, "error", err)
	return res, err
}

// took adds up what a run did. What is put in place was counted when it was captured.
func (b *batch) took(name plan.StageName, j rsync.Job, res rsync.Result) {
	if j.Way == rsync.Place {
		res.Files, res.Bytes, res.Changes = 0, 0, 0
	}
	b.done.Files, b.done.Bytes, b.done.Deleted = b.done.Files+res.Files, b.done.Bytes+res.Bytes, b.done.Deleted+res.Deleted
	b.done.Received += res.Received
	b.w.add(res)
	for _, link := range res.Unsafe {
		if b.unsafe == nil {
			b.unsafe = map[string]bool{}
		}
		b.unsafe[link] = true
	}
	for _, n := range res.Notices {
		b.w.log.Info("rsync says", "serial", b.through, "stage", name, "line", n)
	}
}

// Job is a run of a plan as rsync's runner takes it.
func Job(r plan.Run) rsync.Job {
	walks := r.Mode == plan.Level || r.Mode == plan.Recursive
	return rsync.Job{Mode: rsync.Mode(r.Mode), Way: rsync.Way(r.Way), Paths: r.Paths, Filters: r.Filter, MaxDelete: r.MaxDelete, Keep: walks && !r.Delete}
}
