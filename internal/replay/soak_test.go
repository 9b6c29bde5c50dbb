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
	"sync"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/replay"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
)

// The short soak belongs to the suite. These make it longer.
const (
	envTree    = "MIRRORBUS_SOAK_TREE"    // folders to mirror a copy of, separated by colons
	envMinutes = "MIRRORBUS_SOAK_MINUTES" // how long changes are made, 5 by default
	envSeed    = "MIRRORBUS_SOAK_SEED"    // 1 by default
	envBus     = "MIRRORBUS_SOAK_BUS"     // "hub", which is the default, another transport, or "all": their servers are killed all the time
	envDir     = "MIRRORBUS_SOAK_DIR"     // where everything lies, and stays afterwards; by default a temporary folder, which stays if the test fails
)

// A day is how long a soak takes and how hard it is.
type day struct {
	seed  uint64
	lasts time.Duration // changes are made for so long
	pause time.Duration // at most so long after every other change
	kills time.Duration // a daemon is killed about so often
	falls time.Duration // and each server beside them about so long after it has come up
	bound time.Duration // a mirror may take so long to have everything, first and last
	keeps int           // replay.Day.Keeps
	crowd int           // entries of the directory that is flipped for the measurement; 0: nothing is measured
	stuck time.Duration // a mirror that has something to do and nothing to show for it for longer is stuck, whatever changes and kills go on
}

// shortDay is the one of the suite.
var shortDay = day{lasts: 75 * time.Second, pause: 800 * time.Millisecond, kills: 4 * time.Second, falls: 5 * time.Second, bound: 4 * time.Minute, crowd: 500,
	stuck: 5 * time.Minute} // what an index names is gone at once, so a slow mirror may have nothing to show before the changes cease

// While the hub and the agents are killed at random moments, the readers of every mirror find what its index names, nothing changes that was not
// announced, and no mirror says that it has what it has not: a process of its own watches that all the time. After a day of releases every mirror is
// what a full rsync would make it.
func TestSoak(t *testing.T) {
	testenv.Need(t, "rsync")
	d, dir, tree := setUp(t, shortDay)
	w := newWorld(t, dir, tree, d.seed)
	switch bus := os.Getenv(envBus); bus {
	case "", "hub":
	case "all":
		w.over(buses...)
	default:
		w.over(bus)
	}
	w.play(d)
}

// setUp makes a folder, and a master's tree in it: a copy of what the environment names, for a day as long as that says, or a small one for the short day.
func setUp(t *testing.T, short day) (d day, dir, tree string) {
	t.Helper()
	d, dir = short, folder(t)
	d.seed = number(t, envSeed, 1)
	tree = filepath.Join(dir, "master", "tree")
	if err := os.MkdirAll(tree, 0o755); err != nil {
		t.Fatal(err)
	}
	from := os.Getenv(envTree)
	if from == "" {
		makeTree(t, tree, 2500)
		return d, dir, tree
	}
	d.lasts, d.bound, d.crowd = time.Duration(number(t, envMinutes, 5))*time.Minute, 10*time.Minute, 10_000
	d.stuck = 3 * time.Minute
	d.pause, d.kills = 3*time.Second, 15*time.Second // a run over such a tree takes seconds, and one that is always killed gets nowhere
	d.keeps = 20                                     // some minutes; a mirror that needs longer for a batch than what an index names is there for never gets a whole one
	w := &world{t: t}
	for one := range strings.SplitSeq(from, ":") {
		w.need("rsync", "-aH", "--no-devices", "--no-specials", one, tree+"/")
	}
	return d, dir, tree
}

// folder is where everything lies. It stays if the environment names it, or the test fails.
func folder(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv(envDir); dir != "" {
		return dir
	}
	dir, err := os.MkdirTemp("", "mirrorbus-soak-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("everything is left in %s", dir)
		} else if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func number(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// play runs the day, compares, measures, compares again, and ends everything.
func (w *world) play(d day) {
	w.perform(d, func(ctx context.Context) error { return w.stages(ctx, d) })
}

// perform keeps the daemons running and looks at what they say of themselves while stages lasts.
func (w *world) perform(d day, stages func(context.Context) error) {
	ctx, stop := context.WithCancel(w.t.Context())
	var daemons sync.WaitGroup
	for _, s := range w.daemons() {
		daemons.Go(func() { s.run(ctx) })
	}
	daemons.Go(func() { w.watch(ctx) })
	if err := stages(ctx); err != nil {
		w.t.Error(err)
	}
	stop()
	daemons.Wait()
	left, err := leftovers(w.mark)
	if err != nil || len(left) > 0 {
		w.t.Errorf("left behind: %v %v", left, err)
	}
	for _, m := range w.mirrors {
		w.t.Logf("%s: longest time without progress %.1f s (%s)", m.name, m.stuck.Seconds(), m.why)
		if m.stuck > d.stuck {
			w.t.Errorf("%s: over %s without progress", m.name, d.stuck)
		}
	}
	w.checkLogs()
	for _, n := range w.notes {
		w.t.Error(n)
	}
	if w.t.Failed() {
		w.explain(d)
	}
}

// daemons are all that run, the hub first.
func (w *world) daemons() []*supervised {
	all := []*supervised{w.hub}
	if w.source != nil {
		all = append(all, w.source)
	}
	for _, m := range w.mirrors {
		all = append(all, m.agent)
	}
	return all
}

func (w *world) stages(ctx context.Context, d day) error {
	start := time.Now()
	if err := w.current(ctx, d.bound); err != nil {
		return fmt.Errorf("first sync: %w", err)
	}
	w.t.Logf("first sync of all mirrors: %.1f s", time.Since(start).Seconds())
	if err := w.connected(ctx, d.bound); err != nil {
		return err
	}
	watching, err := w.startWatcher()
	if err != nil {
		return err
	}
	err = w.changes(ctx, d)
	if err == nil {
		err = w.settled(ctx, d)
	}
	return errors.Join(err, w.endWatcher(watching))
}

// settled waits until every transport works again and every mirror has everything, compares and measures.
func (w *world) settled(ctx context.Context, d day) error {
	if err := w.everyWay(ctx); err != nil {
		return err
	}
	start := time.Now()
	if _, err := w.wait(ctx, d.bound); err != nil {
		return err
	}
	w.t.Logf("everything applied %.1f s after the last change", time.Since(start).Seconds())
	if err := w.current(ctx, time.Minute); err != nil {
		return err
	}
	w.compare(ctx)
	if d.crowd == 0 {
		return nil
	}
	if err := w.measure(ctx, d.crowd); err != nil {
		return fmt.Errorf("measure: %w", err)
	}
	w.compare(ctx)
	return nil
}

// changes makes and announces changes while daemons are killed.
func (w *world) changes(ctx context.Context, d day) error {
	made, err := replay.Begin(w.tree, d.seed)
	if err != nil {
		return err
	}
	made.Keeps = d.keeps
	killing, stop := context.WithTimeout(ctx, d.lasts)
	defer stop()
	var killer sync.WaitGroup
	var kills map[string]int
	killer.Go(func() { kills = w.killing(killing, d.seed, d.kills) })
	falls := make([]int, len(w.servers))
	for i, s := range w.servers {
		killer.Go(func() { falls[i] = s.breaking(killing, d.seed+uint64(i), d.falls) })
	}
	rng := rand.New(rand.NewPCG(d.seed, 3))
	batches := 0
	for ; killing.Err() == nil && err == nil; batches++ {
		err = w.one(ctx, made, rng, d.pause)
	}
	stop()
	killer.Wait()
	for _, b := range made.Held() {
		if err == nil {
			err = w.tell(ctx, made, b)
		}
	}
	names := 0
	for _, a := range w.said {
		names += len(a.names)
	}
	for i, s := range w.servers {
		kills["server of "+s.bus] = falls[i]
	}
	w.t.Logf("seed %d: %d batches, %d announcements of %d names, kills %v", d.seed, batches, len(w.said), names, kills)
	return err
}

// one makes one batch, and announces it now or later.
func (w *world) one(ctx context.Context, made *replay.Day, rng *rand.Rand, pause time.Duration) error {
	b, err := made.Next()
	if err != nil {
		return err
	}
	if !b.Flip && !b.Prompt && rng.IntN(10) == 0 {
		made.Hold(b)
		return nil
	}
	if err := w.tell(ctx, made, b); err != nil {
		return err
	}
	if rng.IntN(8) == 0 {
		for _, late := range made.Held() {
			if err := w.tell(ctx, made, late); err != nil {
				return err
			}
		}
	}
	if rng.IntN(2) == 0 {
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(rng.Int64N(int64(pause)))):
		}
	}
	return nil
}

func (w *world) tell(ctx context.Context, made *replay.Day, b replay.Batch) error {
	names, err := made.Names(b)
	if err != nil || len(names) == 0 {
		return err
	}
	var options []string
	if b.Flip {
		options = append(options, "--flip")
		if len(w.said)%4 == 0 {
			options = append(options, "--not-before", time.Now().Add(2*time.Second).UTC().Format(time.RFC3339))
		}
	}
	return w.announce(ctx, b.Kind, names, options...)
}

// explain prints what helps to understand a failure.
func (w *world) explain(d day) {
	w.t.Logf("again: %s=%d %s=%q %s=%q %s=%s", envSeed, d.seed, envTree, os.Getenv(envTree), envMinutes, os.Getenv(envMinutes), envBus, strings.Join(w.buses, "+"))
	for _, s := range w.daemons() {
		w.t.Logf("--- end of the log of %s ---\n%s", s.name, tail(s.log, 5000))
	}
	w.t.Logf("--- end of the log of rsyncd ---\n%s", end(w.rsyncd.Log(), 1000))
}
