package replay_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/replay"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/listener"
	"github.com/mirrorbus/mirrorbus/listener/daemon"
	"github.com/mirrorbus/mirrorbus/trigger"
)

// liveDay is the one of the suite: each accident has happened before it is over.
var liveDay = day{lasts: 20 * time.Second, pause: 600 * time.Millisecond, kills: 3 * time.Second, bound: 5 * time.Minute, stuck: 5 * time.Minute}

// A tree that is changed at random under watch, while the program's watcher is killed, the kernel's queue overflows and the hub is killed, is the same on three
// mirrors in the end: one that is told through the hub, one that only looks at the master's Atom feed, and one behind the first that knows nothing but its
// upstream. On the way readers of every mirror find what its index names, and nothing changes that was not announced.
func TestWatchedTree(t *testing.T) {
	testenv.Need(t, "rsync")
	d, dir, tree := setUp(t, liveDay)
	looks := "" // as often as by default
	if os.Getenv(envTree) == "" {
		looks = `look_every = "3s"`
	} else {
		d.bound = 20 * time.Minute // the mirror behind looks every ten minutes if it has found no news
		d.stuck = liveDay.stuck    // announcements come seconds after the changes, so a mirror meets more that is gone than where each is published
	}
	w := newLive(t, dir, tree, looks)
	w.perform(d, func(ctx context.Context) error { return w.liveStages(ctx, d) })
}

// newLive enrols the three mirrors. looks is a setting of the last one.
func newLive(t *testing.T, dir, tree, looks string) *world {
	t.Helper()
	w, join := newMaster(t, dir, tree)
	w.bound.Store(uint64(event.MaxSerial)) // what is announced is for the watcher to say
	pushed := &mirror{name: "pushed", allLinks: true, hears: []string{"hub"}}
	feed := &mirror{name: "feed", allLinks: true, hears: []string{"poll"}}
	below := &mirror{name: "below", second: true, hears: []string{}} // it only looks at its upstream
	for _, m := range []*mirror{pushed, feed, below} {
		w.enrol(m, join)
		m.agent.argv = append(m.agent.argv, "-v") // says by which transport it has heard what it knew
	}
	web := fmt.Sprint("127.0.0.1:", testenv.FreePort(t))
	w.append(w.config(), fmt.Sprintf("[transport.poll]\nlisten = %q\n", web), true)
	w.append(feed.config(), fmt.Sprintf("[transport.poll]\nfeed = \"http://%s/{module}/feed.atom\"\nevery_min = \"1s\"\nevery_max = \"3s\"\n", web), false)
	w.set(feed, `look_every = "24h"`) // the feed is all that brings news
	w.behind(below, pushed)
	w.append(below.config(), "", false)
	w.set(below, looks)
	w.source = w.daemon("watch", "watch", w.config())
	return w
}

// set writes a setting of the whole mirror into its configuration.
func (w *world) set(m *mirror, line string) {
	w.t.Helper()
	text, err := os.ReadFile(m.config())
	if err != nil {
		w.t.Fatal(err)
	}
	w.writeFile(m.config(), line+"\n"+string(text))
}

func (w *world) liveStages(ctx context.Context, d day) error {
	start := time.Now()
	before, err := w.level(ctx, d.bound)
	if err != nil {
		return fmt.Errorf("first sync: %w", err)
	}
	if _, err := w.watchedBy(ctx, "", d.bound); err != nil {
		return err
	}
	w.t.Logf("first sync of all mirrors: %.1f s", time.Since(start).Seconds())
	watching, err := w.startWatcher()
	if err != nil {
		return err
	}
	err = w.shake(ctx, d)
	if err == nil {
		err = w.liveSettled(ctx, d, before.Epoch)
	}
	return errors.Join(err, w.endWatcher(watching))
}

// shake changes the tree while accidents happen.
func (w *world) shake(ctx context.Context, d day) error {
	made, err := replay.Begin(w.tree, d.seed)
	if err != nil {
		return err
	}
	made.Keeps = d.keeps
	if err := os.Mkdir(filepath.Join(w.tree, burstDir), 0o755); err != nil { // the day does not know it
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var accidents sync.WaitGroup
	var happened map[string]int
	var broken error
	over := make(chan struct{})
	accidents.Go(func() {
		defer close(over)
		happened, broken = w.accidents(ctx, d)
	})
	err = w.changeUntil(ctx, made, d, over)
	stop()
	accidents.Wait()
	w.t.Logf("seed %d: %d batches of changes; accidents %v", d.seed, len(w.said), happened)
	return errors.Join(err, broken)
}

// changeUntil changes the tree until over is closed.
func (w *world) changeUntil(ctx context.Context, made *replay.Day, d day, over <-chan struct{}) error {
	root, err := os.OpenRoot(w.tree)
	if err != nil {
		return err
	}
	defer root.Close() //nolint:errcheck // its files are closed
	rng := rand.New(rand.NewPCG(d.seed, 3))
	passing := passer{tree: root, rng: rand.New(rand.NewPCG(d.seed, 6))}
	for {
		if err := w.change(made, &passing); err != nil {
			return err
		}
		var pause time.Duration
		if rng.IntN(2) == 0 {
			pause = time.Duration(rng.Int64N(int64(d.pause)))
		}
		select {
		case <-over:
			passing.end()
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause):
		}
	}
}

// change makes the next changes, and notes them for whoever wants to know how it came to a difference.
func (w *world) change(made *replay.Day, passing *passer) error {
	b, err := made.Next()
	if err != nil {
		return err
	}
	var names []string
	for _, p := range b.Paths() {
		names = append(names, "./"+p)
	}
	w.said = append(w.said, announced{event.Serial(len(w.said)), time.Now().Format("15:04:05.000 ") + b.Kind, names})
	if os.Getenv(envPassing) == "1" {
		passing.next(b.Paths())
	}
	return nil
}

// liveSettled waits until everything is announced, and every mirror has it, and compares. The journal is to be that of the beginning.
func (w *world) liveSettled(ctx context.Context, d day, epoch event.Epoch) error {
	start := time.Now()
	if _, err := w.watchedBy(ctx, "", patience); err != nil {
		return err
	}
	said, err := w.run(ctx, "", w.program, "watch", "-c", w.config(), "--sync", module, "--timeout", d.bound.String())
	if err != nil {
		return err
	}
	w.t.Logf("everything announced %.1f s after the last change: %s", time.Since(start).Seconds(), strings.TrimSpace(said))
	after, err := w.level(ctx, d.bound)
	if err != nil {
		return fmt.Errorf("after the last change: %w", err)
	}
	w.t.Logf("everything applied %.1f s after the last change, at serial %d", time.Since(start).Seconds(), after.Serial)
	if after.Epoch != epoch {
		w.t.Errorf("the hub has lost its journal: epoch %s, then %s", epoch, after.Epoch)
	}
	for _, m := range w.mirrors {
		if err := w.compareLive(ctx, m); err != nil {
			return err
		}
	}
	return w.nothingMissed(ctx)
}

// nothingMissed makes sure that a scan finds no name that is not announced, and none announced that is gone.
func (w *world) nothingMissed(ctx context.Context) error {
	out, err := w.run(ctx, "", w.program, "scan", "-c", w.config(), "--dry-run", "--json", module)
	if err != nil {
		return err
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	var s trigger.Scanned
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &s); err != nil {
		return err
	}
	w.t.Logf("a scan of %d names finds: %+v", s.Entries, s.Found)
	if s.Found.Added != 0 || s.Found.Removed != 0 || s.Found.Renamed != 0 {
		w.t.Errorf("what is announced is not what is there: %+v: %s", s.Found, lines[len(lines)-1])
	}
	return nil
}

// compareLive reports where a mirror differs from the master. Of the times of directories nothing is promised where a watcher announces: a file that comes and
// goes unseen changes them. Names of one inode of which some came with their directories are files of their own, see deploy/README.md; their content, modes
// and times are compared like those of all others.
func (w *world) compareLive(ctx context.Context, m *mirror) error {
	w.t.Helper()
	lines, err := w.wouldChange(ctx, m, "-a")
	if err != nil {
		return err
	}
	linked, err := w.wouldChange(ctx, m, "-aH")
	if err != nil {
		return err
	}
	alone := 0
	for _, line := range linked {
		if strings.HasPrefix(line, "hf") {
			alone++
		}
	}
	w.differs(m, notTimesOfDirectories(lines))
	w.t.Logf("%s: %d names of files with several are files of their own", m.name, alone)
	return nil
}

func notTimesOfDirectories(lines []string) (kept []string) {
	for _, line := range lines {
		if !strings.HasPrefix(line, timeOfDirectory) {
			kept = append(kept, line)
		}
	}
	return kept
}

// level waits until every mirror has what the hub's journal ends with.
func (w *world) level(ctx context.Context, bound time.Duration) (master trigger.ModuleStatus, err error) {
	err = until(ctx, bound, func() error {
		var hub trigger.Status
		if !ask(ctx, w.socket(), &hub) || len(hub.Modules) != 1 || hub.Modules[0].Entries == 0 {
			return errors.New("the hub is not ready")
		}
		master = hub.Modules[0]
		for _, m := range w.mirrors {
			var s daemon.Status
			if !ask(ctx, m.socket(), &s) || len(s.Modules) != 1 {
				return fmt.Errorf("%s does not answer", m.name)
			}
			if is := s.Modules[0]; is.State != listener.Current || is.Epoch != master.Epoch || is.Applied != master.Serial {
				return fmt.Errorf("%s is %s at serial %d of %d: %s", m.name, is.State, is.Applied, master.Serial, is.Error)
			}
		}
		return nil
	})
	return master, err
}

// until calls f again and again until it returns nil, or returns its error after bound.
func until(ctx context.Context, bound time.Duration, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not within %s: %w", bound, err)
		case <-tick.C:
		}
	}
}
