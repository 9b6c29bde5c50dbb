package listener_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/listener"
	"github.com/mirrorbus/mirrorbus/listener/pace"
	"github.com/mirrorbus/mirrorbus/listener/rsync"
)

const indexFile = "repodata/repomd.xml"

// A releaser is a master that releases packages: each time a new one, an index that names the newest, and the removal of the oldest.
type releaser struct {
	*world
	keep int // packages that the index names
	n    int
	dir  string // a directory that is announced as a whole with each release, "" for none
	top  string // a directory that all of it lies in, and that alone is announced, as a whole; "" for none
	sums bool   // say what is in the index
}

func (r *releaser) pkg(n int) string {
	return filepath.Join(r.top, "pool", r.dir, fmt.Sprintf("pkg-%04d.rpm", n))
}

func (r *releaser) index() string { return filepath.Join(r.top, indexFile) }

// release changes the tree as a compose does, and returns the records that tell it.
func (r *releaser) release() []event.Record {
	r.t.Helper()
	r.n++
	r.write(testenv.File(r.pkg(r.n), strings.Repeat("x", r.n)))
	var text strings.Builder
	for i := max(1, r.n-r.keep+1); i <= r.n; i++ {
		fmt.Fprintf(&text, "%s %04d\n", r.pkg(i), i)
	}
	temp := filepath.Join(r.up, filepath.Dir(r.index()), ".new")
	r.must(os.MkdirAll(filepath.Dir(temp), 0o755))
	r.must(os.WriteFile(temp, []byte(text.String()), 0o644))
	r.must(os.Rename(temp, filepath.Join(r.up, r.index())))
	records := []event.Record{r.rec(event.Write, r.index())}
	if r.sums {
		records[0].Sum = event.Sum([]byte(text.String()))
	}
	if r.dir == "" {
		records = append(records, r.rec(event.Write, r.pkg(r.n)))
	} else {
		records = append(records, r.rec(event.Tree, filepath.Join("pool", r.dir)))
	}
	if old := r.n - r.keep; old > 0 {
		r.must(os.Remove(filepath.Join(r.up, r.pkg(old))))
		if r.dir == "" {
			records = append(records, event.Record{Op: event.Gone, Path: r.pkg(old)})
		}
	}
	if r.top != "" {
		return []event.Record{r.rec(event.Tree, r.top)}
	}
	return records
}

// whole checks that the mirror's index names only what is there, and returns the newest package that it names.
func (r *releaser) whole() int {
	r.t.Helper()
	text, err := os.ReadFile(filepath.Join(r.dest, r.index()))
	if errors.Is(err, os.ErrNotExist) {
		return 0
	}
	r.must(err)
	newest := 0
	for line := range strings.Lines(string(text)) {
		var name string
		if _, err := fmt.Sscanf(line, "%s %d", &name, &newest); err != nil {
			r.t.Fatalf("index line %q: %v", line, err)
		}
		if info, err := os.Stat(filepath.Join(r.dest, name)); err != nil || info.Size() != int64(newest) {
			r.t.Errorf("the index names %s of %d bytes: %v", name, newest, err)
		}
	}
	return newest
}

// A meddler is a Runner with a hook before each run and a look at the mirror after it.
type meddler struct {
	listener.Runner
	before func(stage string, j rsync.Job)
	after  func()
}

func (m meddler) Run(ctx context.Context, stage string, j rsync.Job) (rsync.Result, error) {
	m.before(stage, j)
	res, err := m.Runner.Run(ctx, stage, j)
	m.after()
	return res, err
}

// meddled opens the mirror's agent with hooks around each run.
func (r *releaser) meddled(before func(string, rsync.Job), options ...func(*listener.Options)) *listener.Agent {
	r.t.Helper()
	return r.reopen(append([]func(*listener.Options){func(o *listener.Options) {
		m := &o.Modules[0]
		m.MaxDeleteRatio = 1
		m.Runner, m.Last, m.Budgets = meddler{m.Runner, before, func() { r.whole() }}, []string{"repodata/"}, map[string]pace.Budget{}
	}}, options...)...)
}

// topAlone has a releaser announce one directory, with all that it releases, and nothing else.
const topAlone = "all"

func newReleaser(t *testing.T, keep int, dir string) *releaser {
	t.Helper()
	r := &releaser{world: newWorld(t), keep: keep, dir: dir}
	if dir == topAlone {
		r.dir, r.top = "", topAlone
	}
	r.announce(r.release()...)
	r.must(r.adopted(func(o *listener.Options) { o.Modules[0].Last = []string{"repodata/"} }).Close())
	return r
}

// settle reconciles until the mirror is at a serial.
func (r *releaser) settle(a *listener.Agent, serial event.Serial) {
	r.t.Helper()
	testenv.WaitFor(r.t, waitLong, func() error {
		r.must(a.SyncNow(r.t.Context(), pub))
		err := a.Reconcile(r.t.Context(), pub)
		if s := r.status(a); s.Applied < serial {
			return fmt.Errorf("at %d: %w", s.Applied, errors.Join(err, errors.New(s.Error)))
		}
		return nil
	})
}

// Whenever the upstream's index changes, announced at once or later, the mirror's never names what is not there.
func TestAnIndexNewerThanTheBatchIsNeverPutInPlace(t *testing.T) {
	for _, dir := range []string{"", "whole", topAlone} {
		for _, at := range []string{"capture", "content", "metadata", "delete"} {
			for i := range 4 {
				announced, sums := i%2 == 0, i > 1
				t.Run(fmt.Sprintf("%s %s announced=%t sums=%t", dir, at, announced, sums), func(t *testing.T) {
					t.Parallel()
					r := newReleaser(t, 1, dir)
					r.sums = sums
					left, late := 4, [][]event.Record{}
					a := r.meddled(func(stage string, _ rsync.Job) {
						if stage != at || left == 0 {
							return
						}
						left--
						records := r.release()
						if announced {
							r.announce(records...)
						} else {
							late = append(late, records)
						}
					})
					r.send(a, r.announce(r.release()...))
					r.must(errOrNil(a.Reconcile(t.Context(), pub)))
					if left == 4 {
						t.Fatalf("no run of stage %s", at)
					}
					left = 0
					for _, records := range late {
						r.announce(stated(r, records)...)
					}
					r.settle(a, r.serial)
					r.same(a, r.serial)
					if r.whole() != r.n {
						t.Errorf("the index names %d, not %d", r.whole(), r.n)
					}
				})
			}
		}
	}
}

// A batch that has to be made again, and may not be yet because it was made often, shows no index until then.
func TestABatchThatMayNotGrowYetShowsNoIndex(t *testing.T) {
	for _, above := range []bool{false, true} {
		t.Run(fmt.Sprintf("above=%t", above), func(t *testing.T) {
			r := newReleaser(t, 1, "whole")
			clock := time.Now()
			r.now = func() time.Time { return clock }
			left := 1
			a := r.meddled(func(stage string, _ rsync.Job) {
				if stage == "content" && left > 0 {
					left--
					records := r.release()
					if above {
						records[1] = r.rec(event.Tree, "pool")
					}
					r.announce(records...)
				}
			}, func(o *listener.Options) {
				o.Modules[0].Budgets = map[string]pace.Budget{pace.WorkLive: {Burst: 1, Every: time.Hour}}
			})
			r.send(a, r.announce(r.release()...))
			r.must(errOrNil(a.Reconcile(t.Context(), pub)))
			if left > 0 || r.whole() != 1 {
				t.Errorf("%d changes left, the index names %d", left, r.whole())
			}
			for range 5 {
				clock = clock.Add(2 * time.Hour)
				r.must(errOrNil(a.Reconcile(t.Context(), pub)))
			}
			r.same(a, r.serial)
		})
	}
}

// errOrNil lets a mirror wait or try again.
func errOrNil(err error) error {
	if err != nil && (strings.Contains(err.Error(), string(listener.Waiting)) || strings.Contains(err.Error(), string(listener.Retrying))) {
		return nil
	}
	return noLimit(err)
}

// stated says of the same paths what is true now.
// A directory is announced again as it is, with the index that is here already. While it is read for what is to go the master replaces the index, and removes what
// that named: it stays until the new one is here.
func TestWhatAnIndexHereNamesIsNotRemoved(t *testing.T) {
	for _, announced := range []bool{false, true} {
		t.Run(fmt.Sprint("announced=", announced), func(t *testing.T) {
			t.Parallel()
			r := newReleaser(t, 1, topAlone)
			var late [][]event.Record
			surveys := 0
			a := r.meddled(func(stage string, j rsync.Job) {
				if stage != "delete" || j.Way != rsync.Survey {
					return
				}
				if surveys++; surveys > 1 {
					return
				}
				if records := r.release(); announced {
					r.announce(records...)
				} else {
					late = append(late, records)
				}
			})
			r.send(a, r.announce(r.rec(event.Tree, topAlone)))
			r.must(errOrNil(a.Reconcile(t.Context(), pub)))
			if surveys == 0 {
				t.Fatal("nobody looked for what is to go")
			}
			for _, records := range late {
				r.announce(records...)
			}
			r.settle(a, r.serial)
			r.same(a, r.serial)
			if r.whole() != r.n {
				t.Errorf("the index names %d, not %d", r.whole(), r.n)
			}
		})
	}
}

// The master releases without a word whenever the mirror looks for what is to go: what the captured index names is not removed, though it is gone there.
func TestWhatACapturedIndexNamesIsNotRemoved(t *testing.T) {
	r := newReleaser(t, 1, topAlone)
	left := 0
	a := r.meddled(func(stage string, j rsync.Job) {
		if stage == "delete" && j.Way == rsync.Survey && left > 0 {
			left--
			r.release()
		}
	})
	r.send(a, r.announce(r.release()...))
	for range 4 {
		left = 1
		r.must(errOrNil(a.SyncNow(t.Context(), pub)))
		r.must(errOrNil(a.Reconcile(t.Context(), pub)))
		if left > 0 {
			break
		}
	}
	left = 0
	r.announce(r.rec(event.Tree, topAlone))
	r.settle(a, r.serial)
	r.same(a, r.serial)
	if r.whole() != r.n {
		t.Errorf("the index names %d, not %d", r.whole(), r.n)
	}
}

func stated(r *releaser, records []event.Record) (now []event.Record) {
	for _, x := range records {
		if _, err := os.Lstat(filepath.Join(r.up, x.Path)); err != nil {
			x = event.Record{Op: event.Gone, Path: x.Path}
		} else {
			x = r.rec(x.Op, x.Path)
		}
		now = append(now, x)
	}
	return now
}

// The index changes with every third step that the mirror takes, each change is announced, and the mirror advances all the same, with every index that it
// shows complete. Packages live for twenty steps: less time than a batch takes could not be served by any order of steps.
func TestAnIndexThatChangesAllTheTimeDoesNotStarveTheMirror(t *testing.T) {
	for _, dir := range []string{"", "whole"} {
		t.Run(dir, func(t *testing.T) {
			t.Parallel()
			r := newReleaser(t, 20, dir)
			var seen []int
			runs := 0
			on := func() bool { return len(seen) < 5 && r.n < 300 }
			a := r.meddled(func(string, rsync.Job) {
				if n := r.whole(); len(seen) == 0 || n != seen[len(seen)-1] {
					seen = append(seen, n)
				}
				// to be read an index must hold still for two runs, and one of a directory that is read as a whole for some more
				if runs++; on() && runs%map[string]int{"": 3, "whole": 5}[dir] == 0 {
					r.announce(r.release()...)
				}
			})
			from := r.n
			r.send(a, r.announce(r.release()...))
			for range 10 {
				r.must(a.SyncNow(t.Context(), pub))
				r.must(errOrNil(a.Reconcile(t.Context(), pub)))
			}
			if len(seen) < 5 {
				t.Errorf("of %d releases the mirror's index saw %v: %+v", r.n-from, seen, r.status(a))
			}
			r.settle(a, r.serial)
			r.same(a, r.serial)
		})
	}
}

// A batch is cut where the announcements are past what was captured.
func TestABatchIsCutToWhatWasCaptured(t *testing.T) {
	r := newReleaser(t, 5, "")
	var more []announcement
	a := r.meddled(func(_ string, j rsync.Job) {
		if j.Way == rsync.Aside && more == nil {
			more = []announcement{}
		}
	})
	first := r.announce(r.release()...)
	r.send(a, first)
	r.must(a.Reconcile(t.Context(), pub))
	r.same(a, first.Serial)
}

// What an agent that was killed had captured is gone before the next one captures, and was never to be seen.
func TestKilledBetweenCaptureAndInstall(t *testing.T) {
	r := newReleaser(t, 3, "")
	two := r.announce(r.release()...)
	r.must(os.WriteFile(filepath.Join(r.state, "two"), two.body, 0o600))
	r.must(os.WriteFile(filepath.Join(r.state, "three"), two.body, 0o600))
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilledAnywhereResumes$", "-test.v")
	cmd.Env = append(os.Environ(), killAt+"=before metadata", "LISTENER_LAST=repodata/", "W_DEST="+r.dest, "W_STATE="+r.state, "W_URL="+r.daemon.URL("pub", ""))
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Fatalf("%v\n%s", err, out)
	}
	left := filepath.Join(filepath.Dir(r.dest), rsync.TempPrefix+"-dest", "aside", "tree", indexFile)
	if _, err := os.Stat(left); err != nil {
		t.Fatalf("nothing was captured when it was killed: %v", err)
	}
	if r.whole() != 1 {
		t.Errorf("the index names %d", r.whole())
	}
	swept := false
	a := r.meddled(func(string, rsync.Job) {
		_, err := os.Stat(left)
		swept = swept || os.IsNotExist(err)
	})
	testenv.WaitFor(t, 5*time.Second, func() error {
		r.must(a.SyncNow(t.Context(), pub))
		return a.Reconcile(t.Context(), pub)
	})
	r.send(a, two)
	r.settle(a, two.Serial)
	if !swept || r.whole() != 2 {
		t.Errorf("swept %t, the index names %d", swept, r.whole())
	}
	if _, err := os.Stat(left); !os.IsNotExist(err) {
		t.Errorf("still aside after it was put in place: %v", err)
	}
}

// An index may come in the place of a directory, within what may be deleted.
func TestAnIndexInThePlaceOfADirectory(t *testing.T) {
	r := newReleaser(t, 3, "")
	r.write(testenv.File("repodata/x/below", "y"))
	a := r.meddled(func(string, rsync.Job) {})
	r.send(a, r.announce(r.rec(event.Tree, "repodata/x")))
	r.settle(a, r.serial)
	r.must(os.RemoveAll(filepath.Join(r.up, "repodata/x")))
	r.write(testenv.File("repodata/x", "an index"))
	r.send(a, r.announce(r.rec(event.Write, "repodata/x")))
	r.settle(a, r.serial)
	r.same(a, r.serial)
}
