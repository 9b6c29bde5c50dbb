package listener_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/listener"
	"github.com/mirrorbus/mirrorbus/listener/pace"
	"github.com/mirrorbus/mirrorbus/listener/rsync"
)

// A restless runner changes the upstream before each run.
type restless struct {
	listener.Runner
	before func()
	runs   *int
}

func (r restless) Run(ctx context.Context, stage string, j rsync.Job) (rsync.Result, error) {
	*r.runs++
	r.before()
	return r.Runner.Run(ctx, stage, j)
}

// Where the upstream removes what a batch wants faster than the batch ends, the batch still ends: what is gone is left to the announcements
// that say so.
func TestChangesFasterThanTheMirrorDoNotStarveIt(t *testing.T) {
	const files = 12
	w := newWorld(t)
	w.must(w.adopted().Close())
	var nodes []testenv.Node
	for i := range files {
		nodes = append(nodes, testenv.File(fmt.Sprintf("f%02d", i), "x"))
	}
	w.write(nodes...)
	next, runs := 0, 0
	remove := func() {
		if next == files {
			return
		}
		name := fmt.Sprintf("f%02d", next)
		next++
		w.must(os.Remove(filepath.Join(w.up, name)))
		w.announce(event.Record{Op: event.Gone, Path: name})
	}
	a := w.reopen(func(o *listener.Options) {
		o.Modules[0].Runner = restless{o.Modules[0].Runner, remove, &runs}
	})
	var records []event.Record
	for i := range files {
		records = append(records, w.rec(event.Write, fmt.Sprintf("f%02d", i)))
	}
	w.send(a, w.announce(records...))
	for range 2 * files {
		w.must(a.Reconcile(t.Context(), pub))
		if w.status(a).Applied >= 2 {
			break
		}
	}
	if got := w.status(a); got.Applied < 2 || next == files {
		t.Fatalf("serial %d after %d runs, %d files removed: the batch did not end while changes went on", got.Applied, runs, next)
	}
	next = files
	w.must(a.SyncNow(t.Context(), pub))
	w.must(a.Reconcile(t.Context(), pub))
	w.same(a, w.serial)
}

// Directories that are read for what is to be removed go away one after the other while that is done, announced each time. In the end the batch goes on
// without them, and removes from the others what the master does not have.
func TestDirectoriesGoAwayWhileTheyAreReadForDeletions(t *testing.T) {
	const dirs = 6
	w := newWorld(t)
	name := func(i int) string { return fmt.Sprint("dir", i) }
	for i := range dirs {
		w.write(testenv.File(name(i)+"/old", "x"), testenv.File(name(i)+"/kept", "x"))
	}
	w.must(w.adopted().Close())
	gone := 0
	a := w.reopen(func(o *listener.Options) {
		m := &o.Modules[0]
		m.Budgets, m.MaxDeleteRatio = map[string]pace.Budget{}, 1
		m.Runner = meddler{m.Runner, func(stage string, j rsync.Job) {
			if stage == "delete" && j.Way == rsync.Survey && gone < dirs-1 {
				w.must(os.RemoveAll(filepath.Join(w.up, name(gone))))
				w.announce(event.Record{Op: event.Gone, Path: name(gone)})
				gone++
			}
		}, func() {}}
	})
	var records []event.Record
	for i := range dirs {
		w.must(os.Remove(filepath.Join(w.up, name(i), "old")))
		records = append(records, w.rec(event.Tree, name(i)))
	}
	w.send(a, w.announce(records...))
	testenv.WaitFor(t, waitLong, func() error {
		w.must(a.SyncNow(t.Context(), pub))
		err := a.Reconcile(t.Context(), pub)
		if s := w.status(a); s.Applied < w.serial {
			return fmt.Errorf("at %d: %w", s.Applied, errors.Join(err, errors.New(s.Error)))
		}
		return nil
	})
	w.same(a, w.serial)
	if gone < 4 {
		t.Errorf("only %d directories went away", gone)
	}
}
