package crash_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/failpoint"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/trigger"
)

// envRounds makes the tests of this package long: each point and each power cut is tried so often.
const envRounds = "MIRRORBUS_CRASH_ROUNDS"

// rounds is how often each thing is tried, and whether somebody has asked for it.
func rounds(t testing.TB) (n int, long bool) {
	t.Helper()
	s := os.Getenv(envRounds)
	if s == "" {
		return 1, false
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		t.Fatalf("%s=%s: must be a number from 1", envRounds, s)
	}
	return n, true
}

// lanes is how many worlds there are side by side: a round is mostly waiting.
const lanes = 5

// A death is a point at which a daemon is to die, and at which passing of it.
type death struct {
	point  string
	daemon failpoint.Daemon
	n      int
}

func (d death) String() string {
	return fmt.Sprintf("%s of the %s, passing %d", d.point, d.daemon, d.n)
}

// deaths are all points, each so often.
func deaths(times int) []death {
	rng := rand.New(rand.NewPCG(uint64(times), 0))
	var all []death
	for i := range times {
		for _, p := range failpoint.Points() {
			n := 1
			if i > 0 && p.Name != "compare.read" { // it is passed once in the life of a mirror
				n += rng.IntN(4)
			}
			if p.Daemon != failpoint.Agent {
				all = append(all, death{p.Name, failpoint.Hub, n})
			}
			if p.Daemon != failpoint.Hub {
				all = append(all, death{p.Name, failpoint.Agent, n})
			}
		}
	}
	return all
}

// Wherever a daemon dies, after its restart: what publish acknowledged is on the mirror, the trees are identical, no serial was used for two lines,
// what the mirror reported was on its disk when it was reported, and what it reports in the end is that it has everything. A point that is not
// reached is a failure.
func TestKilledAtEveryPoint(t *testing.T) {
	times, _ := rounds(t)
	queue := make(chan death)
	var wait sync.WaitGroup
	var mu sync.Mutex
	kills, began := map[failpoint.Daemon]int{}, time.Now()
	for lane := range lanes {
		wait.Go(func() {
			t.Run(fmt.Sprint(lane), func(t *testing.T) {
				var w *world
				for d := range queue {
					ok := t.Run(d.String(), func(sub *testing.T) {
						if w == nil {
							w = newWorld(t, t.TempDir(), t.TempDir())
							w.begin()
						}
						w.t = sub
						defer func() {
							if sub.Failed() {
								w.explain()
							}
						}()
						w.dies(d)
					})
					mu.Lock()
					kills[d.daemon]++
					mu.Unlock()
					if !ok {
						w = nil // nothing is known of it; the next gets a new one
					}
				}
				if w != nil {
					w.t = t
				}
			})
		})
	}
	for _, d := range deaths(times) {
		queue <- d
	}
	close(queue)
	wait.Wait()
	t.Logf("%d points, %d kills of the hub and %d of the agent, %s", len(failpoint.Points()), kills[failpoint.Hub], kills[failpoint.Agent],
		time.Since(began).Round(time.Second))
}

// dies is one round: the daemon is started to die at the point, lives until then, and is started again.
func (w *world) dies(d death) {
	p := map[failpoint.Daemon]*process{failpoint.Hub: w.hub, failpoint.Agent: w.agent}[d.daemon]
	must(w.t, errors.Join(w.agent.stop(), w.hub.stop())) // both, so that none waits long for the other because of earlier rounds
	w.rested()
	if d.point == "compare.read" {
		w.forgetEverything()
	}
	armed := fmt.Sprintf("%s=%s:%d", failpoint.Env, d.point, d.n)
	for _, q := range []*process{w.hub, w.agent} {
		if q == p {
			must(w.t, q.start(armed))
		} else {
			must(w.t, q.start())
		}
	}
	deadline := time.Now().Add(bound)
	var err error
	for !p.dead() {
		if time.Now().After(deadline) {
			w.t.Fatalf("the point is not reached: %v", err)
		}
		if err = w.work(d); err != nil && !p.dead() {
			p.await(time.Second) // a daemon that starts, or dies, does not answer
		}
	}
	if !p.diedAt(d.point) {
		w.t.Fatalf("it died of something else: %v", p.err)
	}
	if d.daemon == failpoint.Agent && !w.hub.dead() {
		testenv.WaitFor(w.t, bound, w.watch)
	}
	for _, m := range w.history.missing(w.copy(), w.reported) {
		w.t.Errorf("reported is serial %d: %s", w.reported, m)
	}
	for _, p := range []*process{w.hub, w.agent} {
		if p.dead() {
			must(w.t, p.start())
		}
	}
	w.retry()
	w.current()
	w.forgetful = false
}

// retry publishes what was not acknowledged as soon as the hub answers.
func (w *world) retry() {
	w.t.Helper()
	deadline := time.Now().Add(bound)
	for err := w.again(); err != nil; err = w.again() {
		if time.Now().After(deadline) || w.hub.dead() {
			w.t.Fatal(err)
		}
		w.hub.await(short)
	}
}

// await waits until the process has ended, for so long.
func (p *process) await(at time.Duration) {
	select {
	case <-p.done:
	case <-time.After(at):
	}
}

// work does what leads past the point.
func (w *world) work(d death) error {
	if err := w.again(); err != nil {
		return err
	}
	switch d.point {
	case "backlog.send":
		return w.missed()
	case "journal.read", "journal.stored":
		return w.behindTheBack()
	case "have.send":
		return w.reconnected()
	case "manifest.walked", "export.shard", "export.index", "export.now", "export.manifest":
		w.turns++
		return errors.Join(w.release(w.turns), w.rebuild(w.turns))
	}
	return w.turn()
}

// missed lets the mirror miss some announcements, of which the hub tells it when it comes back.
func (w *world) missed() error {
	must(w.t, w.agent.stop())
	for range 5 {
		w.turns++
		if err := w.announcement().file(fmt.Sprintf("pool/new-%d", w.turns), w.turns).publish(); err != nil {
			return err
		}
	}
	must(w.t, w.agent.start())
	return w.taken()
}

// reconnected lets the mirror lose the hub and find it again.
func (w *world) reconnected() error {
	must(w.t, w.hub.stop())
	must(w.t, w.hub.start())
	return w.turn()
}

// behindTheBack announces while no hub runs: the mirror finds it in the upstream's journal, since it looks by itself.
func (w *world) behindTheBack() error {
	must(w.t, w.hub.stop())
	for range 5 {
		w.turns++
		w.announceAlone(fmt.Sprintf("pool/new-%d", w.turns), w.turns)
	}
	for range 5 {
		if err := w.ask("as", "POST", "/v1/sync/"+module, nil, nil); err != nil {
			return err
		}
		w.agent.await(300 * time.Millisecond)
	}
	if w.agent.dead() {
		return errDead
	}
	must(w.t, w.hub.start())
	return w.taken()
}

// announceAlone announces a file without a hub.
func (w *world) announceAlone(path string, version int) {
	w.t.Helper()
	w.write(path, version)
	w.history.says(map[string]string{path: fmt.Sprint("version ", version)})
	conf := w.hub.argv[len(w.hub.argv)-1]
	out, err := exec.Command(w.hub.argv[0], "publish", "-c", conf, "--json", module, path).Output()
	must(w.t, err)
	var p trigger.Published
	must(w.t, json.Unmarshal(out, &p))
	w.answered(p)
}

// forgetEverything takes from the mirror what it knows, and leaves it its tree.
func (w *world) forgetEverything() {
	w.t.Helper()
	must(w.t, os.RemoveAll(w.inbox()))
	w.reported, w.forgetful = 0, true
}
