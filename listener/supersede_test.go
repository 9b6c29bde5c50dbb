package listener_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/listener"
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
