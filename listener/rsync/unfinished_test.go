package rsync

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
)

// large is the size in bytes of files that are cut off.
const large = 4 << 20

// unfinished is where the mirror keeps the beginning of a file.
func (w *world) unfinished(name string) string {
	return filepath.Join(filepath.Dir(w.dest), TempPrefix+"-dest", "unfinished", name)
}

// begun puts what stands there into the mirror's folder of unfinished files.
func (w *world) begun(name, content string) {
	w.t.Helper()
	testenv.WriteTree(w.t, filepath.Dir(w.unfinished(name)), testenv.File(name, content))
}

// nothingBegun fails the test if something is left there.
func (w *world) nothingBegun() {
	w.t.Helper()
	if entries, err := os.ReadDir(filepath.Dir(w.unfinished("x"))); err != nil || len(entries) > 0 {
		w.t.Errorf("beginnings of files are left: %v %v", entries, err)
	}
}

// half waits until half of the large file has come.
func (w *world) half(name string) {
	w.t.Helper()
	testenv.WaitFor(w.t, 20*time.Second, func() error {
		found, err := filepath.Glob(filepath.Join(filepath.Dir(filepath.Dir(w.unfinished("x"))), "run", name+".*"))
		if err != nil || len(found) == 0 {
			return errors.Join(err, errors.New("no temporary file yet"))
		}
		info, err := os.Stat(found[0])
		if err == nil && info.Size() < large/2 {
			err = fmt.Errorf("%d bytes", info.Size())
		}
		return err
	})
}

// A file of which half has come is not sent from the beginning again, whatever cut it off.
func TestAFileThatIsCutOffGoesOn(t *testing.T) {
	for name, stop := range map[string]func(*world, func()){
		"the agent stops":    func(_ *world, cancel func()) { cancel() },
		"the server is gone": func(w *world, _ func()) { w.daemon.Kill() },
	} {
		for _, mode := range []Mode{Content, Level, Recursive} {
			t.Run(name+", "+string(mode), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				again := int64(large * 2 / 3)
				if !w.cfg.Features.Resumes {
					again = large
				}
				w.upstream(testenv.File("d/big", testenv.Noise(large)))
				w.cfg.Upstream.BWLimitKiB = 2000
				job := Job{Mode: mode, Paths: []string{"d"}}
				if mode == Content {
					job.Paths = []string{"d/big"}
				}
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				r := w.runner()
				go func() { _, err := r.Run(ctx, job); done <- err }()
				w.half("big")
				stop(w, cancel)
				w.failure(<-done, Interrupted)
				w.clean()
				if w.exists("d/big") {
					t.Error("an unfinished file is in place")
				}
				if !w.daemon.Running() {
					w.daemon.Start()
				}
				w.cfg.Upstream.BWLimitKiB = 0
				if res := w.run(job); res.Bytes > again || res.Files != 1 {
					t.Errorf("%d of %d bytes came again in %d files", res.Bytes, large, res.Files)
				}
				w.same()
				w.clean()
				w.nothingBegun()
			})
		}
	}
}

// Two files of one name would both go on from one beginning: that run goes on from none, and where it does not know the names it is made again.
func TestFilesOfOneNameDoNotShareABeginning(t *testing.T) {
	for mode, paths := range map[Mode][]string{Content: {"x/P", "y/P"}, Recursive: {"x", "y"}} {
		w := newWorld(t)
		both := testenv.Noise(2 * large)
		w.upstream(testenv.File("x/P", both[:large]), testenv.File("y/P", both[large:]))
		w.begun("P", both[large:large*3/2]) // of the one that comes second
		job := Job{Mode: mode, Paths: paths}
		res, err := w.runner().Run(t.Context(), job)
		if mode == Content && res.Runs != 1 {
			t.Errorf("rsync was started %d times", res.Runs)
		}
		if err != nil && (mode == Content || w.failure(err, Partial).Retry() != Soon) {
			t.Fatalf("%s: %v", mode, err)
		}
		if err != nil { // what rsync before 3.5.0 calls wrong content comes with the next run
			t.Log(err)
			w.run(job)
		}
		w.same()
		if w.cfg.Features.Resumes {
			w.nothingBegun()
		}
	}
}

// What the next run does not ask for waits, but not for ever.
func TestABeginningWaitsForTwoDays(t *testing.T) {
	w := newWorld(t)
	w.upstream(testenv.File("f", "x"))
	w.begun("new", "x")
	w.begun("old", "x")
	before := time.Now().Add(-unfinishedFor - time.Minute)
	if err := os.Chtimes(w.unfinished("old"), before, before); err != nil {
		t.Fatal(err)
	}
	w.run(Job{Mode: Content, Paths: []string{"f"}})
	if _, err := os.Stat(w.unfinished("new")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(w.unfinished("old")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the old one is there: %v", err)
	}
}

// What lies there, whoever made it, cannot become content.
func TestABeginningThatIsWrong(t *testing.T) {
	w := newWorld(t)
	content := testenv.Noise(large)
	w.upstream(testenv.File("f", content))
	w.begun("f", strings.Repeat("y", 2*large))
	w.run(Job{Mode: Content, Paths: []string{"f"}})
	w.same()
	if w.cfg.Features.Resumes {
		w.nothingBegun()
	}
}
