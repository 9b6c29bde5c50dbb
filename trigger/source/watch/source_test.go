package watch

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/control"
	"github.com/mirrorbus/mirrorbus/trigger/source"
	"github.com/mirrorbus/mirrorbus/trigger/source/sourcetest"
)

// A mortal hands over to a hub until it is dead.
type mortal struct {
	to   Announcer
	dead atomic.Bool
}

// Announce implements Announcer.
func (a *mortal) Announce(ctx context.Context, names []Name) (event.Serial, error) {
	if a.dead.Load() {
		return 0, context.Canceled
	}
	return a.to.Announce(ctx, names)
}

// Scan implements Announcer.
func (a *mortal) Scan(ctx context.Context, dirs []string, why string) (event.Serial, error) {
	if a.dead.Load() {
		return 0, context.Canceled
	}
	return a.to.Scan(ctx, dirs, why)
}

// A running is a watcher at work.
type running struct {
	*Watcher
	to      *mortal
	tree    string
	stalled atomic.Bool
	end     func()
}

// Stop implements sourcetest.Running.
func (r *running) Stop() {
	r.to.dead.Store(true)
	r.end()
}

// What each source must do, with a hub and its manifest.
func TestSource(t *testing.T) {
	onEach(t, func(t *testing.T, backend string) {
		start := func(t *testing.T, m sourcetest.Master) sourcetest.Running {
			t.Helper()
			r := &running{to: &mortal{to: Through(source.Remote{Client: control.NewClient(m.Socket)}, sourcetest.Module)}, tree: m.Tree}
			r.Watcher = New(Options{Module: sourcetest.Module, Root: m.Tree, Backend: backend, Timing: Timing{Quiet: 50 * time.Millisecond, HotAfter: 1_000_000},
				Index:      func(path string) bool { return strings.HasPrefix(path, "repodata/") },
				smallQueue: true, stalled: r.stalled.Load}, r.to, slog.New(slog.NewTextHandler(t.Output(), nil)))
			ctx, cancel := context.WithCancel(context.Background())
			ended := make(chan error, 1)
			go func() { ended <- r.Run(ctx) }()
			stopped := false
			r.end = func() {
				cancel()
				if stopped {
					return
				}
				stopped = true
				if err := <-ended; err != nil {
					t.Error(err)
				}
			}
			t.Cleanup(r.end)
			return r
		}
		miss := func(t *testing.T, s sourcetest.Running, f func()) (passing []string) {
			t.Helper()
			r := s.(*running)
			r.stalled.Store(true)
			for i := range queueSize(t, backend) + 100 { // one event each at least
				passing = append(passing, fmt.Sprint("junk-", i))
				name := filepath.Join(r.tree, passing[i])
				if err := os.Symlink("x", name); err != nil {
					t.Fatal(err)
				}
				if err := os.Remove(name); err != nil {
					t.Fatal(err)
				}
			}
			f()
			r.stalled.Store(false)
			return passing
		}
		sourcetest.Run(t, sourcetest.Harness{LinksApart: true, Start: start, Miss: miss})
	})
}
