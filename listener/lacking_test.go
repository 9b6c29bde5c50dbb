package listener_test

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/listener"
	"github.com/mirrorbus/mirrorbus/listener/rsync"
)

// An asker notes the names of content that rsync is asked for.
type asker struct {
	listener.Runner
	names []string
}

func (a *asker) Run(ctx context.Context, stage string, j rsync.Job) (rsync.Result, error) {
	if stage == "content" {
		a.names = append(a.names, j.Paths...)
	}
	return a.Runner.Run(ctx, stage, j)
}

// A batch was cut short when most of its content was here. rsync is asked for the rest, for one name of each directory, whose time may not have been
// set, and for what is not as announced though it looks so at a glance.
func TestWhatIsHereIsNotAskedForAgain(t *testing.T) {
	w := newWorld(t)
	ask := &asker{}
	a := w.adopted(func(o *listener.Options) { ask.Runner = o.Modules[0].Runner; o.Modules[0].Runner = ask })
	var records []event.Record
	name := func(i int) string { return fmt.Sprintf("d%d/f%02d", i/20, i%20) }
	for i := range 40 {
		w.write(testenv.File(name(i), "x"))
		records = append(records, w.rec(event.Write, name(i)))
	}
	first := w.announce(records...)
	ask.names = nil
	here := func(i int, mode fs.FileMode, at time.Time) {
		path := filepath.Join(w.dest, name(i))
		w.must(os.MkdirAll(filepath.Dir(path), 0o755))
		w.must(os.WriteFile(path, []byte("x"), 0o644))
		w.must(os.Chmod(path, mode))
		w.must(os.Chtimes(path, at, at))
	}
	for i := range 37 {
		info, err := os.Stat(filepath.Join(w.up, name(i)))
		w.must(err)
		mode, at := fs.FileMode(0o644), info.ModTime()
		switch i {
		case 7:
			mode = 0o600
		case 8:
			at = at.Add(-time.Second)
		case 9:
			at = at.Add(time.Second) // newer than announced: by whom is not known
		}
		here(i, mode, at)
	}
	w.send(a, first)
	w.must(a.Reconcile(t.Context(), pub))
	w.same(a, 2)
	want := []string{name(0), name(7), name(8), name(9), name(20), name(37), name(38), name(39)}
	if !slices.Equal(ask.names, want) {
		t.Errorf("asked for %q, want %q", ask.names, want)
	}
}
