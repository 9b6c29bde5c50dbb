package replay_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/mirrorbus/mirrorbus/trigger/source/watch"
)

// An accident happens to a master whose tree is watched.
type accident struct {
	what string
	do   func(ctx context.Context, rng *rand.Rand) error
}

// accidents happen one after the other for as long as the day lasts, each kind once at least. The last is an overflow: the scan at the start of a watcher would
// make up for what another one has lost.
func (w *world) accidents(ctx context.Context, d day) (map[string]int, error) {
	rng := rand.New(rand.NewPCG(d.seed, 5))
	kinds := []accident{{"watcher killed", w.killWatch}, {"hub killed", w.killHub}, {"queue overflowed", w.overflow}}
	happened := map[string]int{}
	for end := time.Now().Add(d.lasts); time.Now().Before(end); {
		for _, i := range rng.Perm(len(kinds)) {
			select {
			case <-ctx.Done():
				return happened, nil
			case <-time.After(time.Duration(rng.Int64N(2 * int64(d.kills)))):
			}
			if err := kinds[i].do(ctx, rng); err != nil {
				return happened, fmt.Errorf("%s: %w", kinds[i].what, err)
			}
			happened[kinds[i].what]++
		}
	}
	happened["queue overflowed at last"]++
	return happened, w.overflow(ctx, rng)
}

// away is how long what was killed stays away.
func away(rng *rand.Rand) time.Duration { return time.Duration(rng.IntN(1500)) * time.Millisecond }

func (w *world) killHub(_ context.Context, rng *rand.Rand) error { return w.hub.kill(away(rng)) }

// killWatch kills the watcher; the next one may watch by something else.
func (w *world) killWatch(_ context.Context, rng *rand.Rand) error {
	w.source.become(w.watchArgs([]string{watch.Auto, watch.Inotify}[rng.IntN(2)]))
	return w.source.kill(away(rng))
}

func (w *world) watchArgs(backend string) []string {
	return []string{w.program, "watch", "-c", w.config(), "--backend", backend}
}

// watchSocket is where the watcher answers.
func (w *world) watchSocket() string { return w.socket() + "-watch.sock" }

// patience bounds how long a watcher takes to start, and to scan.
const patience = 2 * time.Minute

// watchedBy waits until the tree is watched by a backend, "" for any, and no scan is under way.
func (w *world) watchedBy(ctx context.Context, backend string, bound time.Duration) (watch.Status, error) {
	var is watch.Status
	err := until(ctx, bound, func() error {
		var all []watch.Status
		if !ask(ctx, w.watchSocket(), &all) || len(all) != 1 {
			return errors.New("no watcher answers")
		}
		if is = all[0]; is.State != watch.Watching || is.Scanning || is.Scanned.IsZero() || backend != "" && is.Backend != backend {
			return fmt.Errorf("the tree is %s by %q, not yet watched by %q and scanned: %s", is.State, is.Backend, backend, is.Trouble)
		}
		return nil
	})
	return is, err
}

// overflow lets more happen than the kernel's queue holds while the watcher does not read. By fanotify it would hold everything, so the tree is watched by
// inotify then.
func (w *world) overflow(ctx context.Context, _ *rand.Rand) error {
	before, err := w.watchedBy(ctx, "", patience)
	if err == nil && before.Backend != watch.Inotify {
		w.source.become(w.watchArgs(watch.Inotify))
		if err = w.source.kill(0); err == nil {
			before, err = w.watchedBy(ctx, watch.Inotify, patience)
		}
	}
	if err != nil {
		return err
	}
	if err := w.source.halt(ctx); err != nil {
		return err
	}
	if err := errors.Join(w.burst(), w.source.signal(syscall.SIGCONT)); err != nil {
		return err
	}
	return until(ctx, patience, func() error {
		is, err := w.watchedBy(ctx, watch.Inotify, patience)
		if err == nil && is.Lost <= before.Lost {
			err = fmt.Errorf("the watcher has lost events %d times, as before", is.Lost)
		}
		return err
	})
}

// burstDir is where bursts happen.
const burstDir = "burst"

// burst makes more events than a queue of inotify holds, and then changes that nobody is told of.
func (w *world) burst() error {
	text, err := os.ReadFile("/proc/sys/fs/inotify/max_queued_events")
	if err != nil {
		return err
	}
	most, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return err
	}
	in := func(name string) string { return filepath.Join(w.tree, burstDir, name) }
	for i := range most/2 + 1000 { // two events each
		passing := in(fmt.Sprint("passing-", i))
		if err := errors.Join(os.Symlink("nowhere", passing), os.Remove(passing)); err != nil {
			return err
		}
	}
	w.bursts++
	old, now := in(fmt.Sprint(w.bursts-1)), in(fmt.Sprint(w.bursts))
	err = errors.Join(os.RemoveAll(old), os.MkdirAll(now+"/below/it", 0o755))
	for i := range 100 {
		err = errors.Join(err, os.WriteFile(filepath.Join(now, "below", fmt.Sprint(i)), fmt.Append(nil, "burst ", w.bursts, i), 0o644))
	}
	return errors.Join(err, os.WriteFile(in("always"), fmt.Append(nil, "as in burst ", w.bursts), os.FileMode([]int{0o644, 0o600}[w.bursts%2])))
}
