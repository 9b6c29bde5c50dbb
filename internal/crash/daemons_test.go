package crash_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/listener"
)

// waitState waits until the mirror is in a state, or for the error's text.
func (w *world) waitState(want listener.State, text string) {
	w.t.Helper()
	testenv.WaitFor(w.t, bound, func() error {
		s, err := w.agentStatus()
		if err == nil && (s.State != want || !strings.Contains(s.Error, text)) {
			err = fmt.Errorf("state %s: %s", s.State, s.Error)
		}
		return err
	})
}

// sync asks the mirror to try again at once.
func (w *world) sync() {
	w.t.Helper()
	must(w.t, w.ask("as", "POST", "/v1/sync/"+module, nil, nil))
}

// Row 4: the agent is killed in the middle of a transfer and started again at once. The rsync it left ends or keeps the new one out, what it had
// half done is swept away, and nothing else is touched.
func TestAgentKilledWhileRsyncRuns(t *testing.T) {
	t.Parallel()
	w := newWorld(t, t.TempDir(), t.TempDir(), `bwlimit = "2MB"`)
	w.begin()
	for range 3 {
		w.turns++
		big := fmt.Sprintf("pool/big-%d", w.turns)
		must(t, os.WriteFile(filepath.Join(w.tree(), big), make([]byte, 3<<20), 0o644))
		a := w.announcement().file("dists/index", w.turns)
		r := a.names
		a.names = append(r, r[0])
		a.names[1].Path = big
		must(t, a.publish())
		testenv.WaitFor(t, bound, func() error {
			if n := w.halfDone(); n == 0 {
				return errors.New("nothing is half done")
			}
			return nil
		})
		must(t, w.agent.kill())
		if s := stateOf(w.copy(), "dists/index"); s == fmt.Sprint("version ", w.turns) {
			t.Errorf("the index is there before its content")
		}
		must(t, w.agent.start())
		w.current()
	}
	if n := w.halfDone(); n > 0 {
		t.Errorf("%d files are left half done", n)
	}
}

// halfDone counts the files that are neither in the tree nor state, without those that wait for a run that goes on with them.
func (w *world) halfDone() (n int) {
	w.t.Helper()
	dirs, err := filepath.Glob(filepath.Join(w.mirror, ".mirrorbus-tmp*"))
	must(w.t, err)
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err == nil && d.IsDir() && d.Name() == "unfinished" {
				return fs.SkipDir
			}
			if err == nil && !d.IsDir() {
				n++
			}
			return err
		})
		must(w.t, err)
	}
	return n
}

// Row 28: both daemons are stopped for a while, as by a laptop that sleeps, one after the other. What was announced meanwhile is there soon after.
func TestDaemonsThatAreStopped(t *testing.T) {
	t.Parallel()
	w := newWorld(t, t.TempDir(), t.TempDir())
	w.begin()
	must(t, w.agent.signal(syscall.SIGSTOP))
	for range 3 {
		w.turns++
		must(t, w.release(w.turns))
	}
	w.agent.await(3e9)
	must(t, w.agent.signal(syscall.SIGCONT))
	w.current()
	must(t, w.hub.signal(syscall.SIGSTOP))
	w.hub.await(3e9)
	must(t, w.hub.signal(syscall.SIGCONT))
	must(t, w.turn())
	w.current()
}
