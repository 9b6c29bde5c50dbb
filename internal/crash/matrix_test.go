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

	"golang.org/x/sys/unix"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/listener"
)

// mountSmall mounts a file system in memory with the given options, as in size=20m.
func mountSmall(t testing.TB, dir, options string) {
	t.Helper()
	testenv.NeedRoot(t)
	must(t, os.MkdirAll(dir, 0o755))
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		testenv.Unable(t, "full disks, which need the right to mount: "+err.Error())
	}
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
}

func remount(t testing.TB, dir, options string) {
	t.Helper()
	must(t, unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT, options))
}

// fill uses up a disk, and returns what gives the room back.
func fill(t testing.TB, dir string) (free func()) {
	t.Helper()
	file := filepath.Join(dir, "filler")
	f, err := os.Create(file)
	must(t, err)
	for chunk := make([]byte, 1<<20); len(chunk) > 0; {
		if _, err = f.Write(chunk); err != nil {
			chunk = chunk[:len(chunk)/2]
		}
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	must(t, f.Close())
	return func() { must(t, os.Remove(file)) }
}

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

// halfDone counts the files that are neither in the tree nor state.
func (w *world) halfDone() (n int) {
	w.t.Helper()
	dirs, err := filepath.Glob(filepath.Join(w.mirror, ".mirrorbus-tmp*"))
	must(w.t, err)
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
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

// Row 21, content: the mirror says that its disk is full, shows no index of what is missing, and goes on by itself.
func TestFullDiskOfContent(t *testing.T) {
	t.Parallel()
	mirror := t.TempDir()
	mountSmall(t, mirror, "size=40m")
	w := newWorld(t, t.TempDir(), mirror)
	w.begin()
	free := fill(t, mirror)
	must(t, os.WriteFile(filepath.Join(w.tree(), "pool/big"), make([]byte, 12<<20), 0o644)) // more than the ballast that the state gives back
	w.fullDisk("pool/big", free)
}

// Row 21, inodes: likewise.
func TestFullDiskOfInodes(t *testing.T) {
	t.Parallel()
	mirror := t.TempDir()
	mountSmall(t, mirror, "size=40m,nr_inodes=150")
	w := newWorld(t, t.TempDir(), mirror)
	w.begin()
	for i := range 200 {
		w.write(fmt.Sprintf("many/%d", i), 1)
	}
	w.fullDisk("many", func() { remount(t, mirror, "size=40m,nr_inodes=2000") })
}

// fullDisk announces a path that there is no room for, and then makes room.
func (w *world) fullDisk(path string, free func()) {
	w.t.Helper()
	w.turns++
	a := w.announcement().file("dists/index", w.turns)
	a.names = append(a.names, a.names[0])
	a.names[1].Path = path
	must(w.t, a.publish())
	w.waitState(listener.Blocked, "")
	if s := stateOf(w.copy(), "dists/index"); s == fmt.Sprint("version ", w.turns) {
		w.t.Errorf("the index is there without its content")
	}
	for _, m := range w.history.missing(w.copy(), w.reported) {
		w.t.Error(m)
	}
	free()
	w.sync()
	w.current()
}

// Row 21, state: without room to write down what it hears the mirror says so, does not go on and does not end; with room it goes on by itself, and
// has everything.
func TestFullDiskOfTheMirrorsState(t *testing.T) {
	t.Parallel()
	mirror := t.TempDir()
	mountSmall(t, filepath.Join(mirror, "state"), "size=30m")
	w := newWorld(t, t.TempDir(), mirror)
	w.begin()
	fill(t, w.inbox())
	for range 8 { // until the ballast is used up, too
		w.turns++
		must(t, w.release(w.turns))
	}
	must(t, os.Rename(filepath.Join(w.inbox(), "filler"), filepath.Join(w.inbox(), "first")))
	full := fill(t, w.inbox())
	for range 8 {
		w.turns++
		must(t, w.release(w.turns))
	}
	testenv.WaitFor(t, bound, func() error {
		s, err := w.agentStatus()
		if err == nil && !strings.Contains(s.Error, "make room") && !strings.Contains(s.Error, "full") {
			err = fmt.Errorf("state %s: %q", s.State, s.Error)
		}
		return err
	})
	if w.agent.dead() {
		t.Fatal("the agent has ended")
	}
	must(t, w.watch())
	for _, m := range w.history.missing(w.copy(), w.reported) {
		t.Error(m)
	}
	full()
	must(t, os.Remove(filepath.Join(w.inbox(), "first")))
	w.current()
}

// Row 21, the master's state: publish fails and says why, nothing of it is announced, and what was is not lost.
func TestFullDiskOfTheMastersState(t *testing.T) {
	t.Parallel()
	master := t.TempDir()
	mountSmall(t, filepath.Join(master, "state"), "size=20m")
	w := newWorld(t, master, t.TempDir())
	w.begin()
	free := fill(t, filepath.Join(master, "state"))
	var err error
	for range 200 {
		w.turns++
		if err = w.release(w.turns); err != nil {
			break
		}
	}
	if err == nil || !strings.Contains(err.Error(), "full") {
		t.Fatalf("publish on a full disk: %v", err)
	}
	free()
	w.retry()
	w.current()
}

// Row 22, the mirror: its state is lost or an older backup. It finds out where it is, the tree is not set back, and the master hears of it.
func TestStateOfTheMirrorIsLostOrOld(t *testing.T) {
	for name, old := range map[string]bool{"lost": false, "old": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, t.TempDir(), t.TempDir())
			w.begin()
			must(t, w.agent.stop())
			backup := filepath.Join(w.dir, "backup")
			must(t, os.CopyFS(backup, os.DirFS(w.inbox())))
			must(t, w.agent.start())
			for range 3 {
				must(t, w.turn())
			}
			must(t, w.agent.kill())
			must(t, os.RemoveAll(w.inbox()))
			if old {
				must(t, os.Rename(backup, w.inbox()))
			}
			w.turns++
			must(t, w.release(w.turns))
			w.reported, w.forgetful = 0, true
			must(t, w.agent.start())
			w.current()
			must(t, w.turn())
			w.current()
		})
	}
}

// Row 22, the mirror: a page of its database is overwritten. The agent does not go on with it, names the file and what to do, and that helps.
func TestStateOfTheMirrorIsDamaged(t *testing.T) {
	t.Parallel()
	w := newWorld(t, t.TempDir(), t.TempDir())
	w.begin()
	must(t, w.agent.kill())
	w.rested() // what was written is in the database, no longer in its log
	must(t, damage(filepath.Join(w.inbox(), "state.db")))
	must(t, w.agent.start())
	w.endsSaying(w.agent, "is damaged", "hint: ")
	must(t, os.Rename(w.inbox(), w.inbox()+".damaged"))
	w.reported, w.forgetful = 0, true
	must(t, w.agent.start())
	w.current()
	must(t, w.turn())
	w.current()
}

// damage overwrites the pages after the first, and the log, as a failing disk does.
func damage(file string) error {
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	b := []byte(strings.Repeat("garbage ", int(info.Size()-4096)/8))
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, 4096)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err = os.Truncate(file+"-wal", 0); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// endsSaying waits until a daemon has ended with an error that says all that.
func (w *world) endsSaying(p *process, texts ...string) {
	w.t.Helper()
	p.await(bound)
	said := p.tail(1000)
	for _, text := range texts {
		if !p.dead() || p.err == nil || !strings.Contains(said, text) {
			w.t.Fatalf("ended %t, %v, without %q: %s", p.dead(), p.err, text, said)
		}
	}
}

// Row 22, the master: its state is lost, damaged or an older backup. With a backup it refuses to give out serials again, and so it does not go on with
// what is damaged; with the state moved aside, as it is told to, a new history begins, and mirrors compare what they have.
func TestStateOfTheMasterIsLostDamagedOrOld(t *testing.T) {
	for _, name := range []string{"lost", "damaged", "old"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, t.TempDir(), t.TempDir())
			w.begin()
			state := filepath.Join(w.master, "state")
			must(t, w.hub.stop())
			backup := filepath.Join(w.dir, "backup")
			must(t, os.CopyFS(backup, os.DirFS(state)))
			must(t, w.hub.start())
			testenv.WaitFor(t, bound, w.settled)
			must(t, w.turn())
			must(t, w.hub.kill())
			db := filepath.Join(state, "journal.db")
			switch name {
			case "damaged":
				must(t, damage(db))
				must(t, w.hub.start())
				w.endsSaying(w.hub, "damaged", "hint: ")
			case "old":
				must(t, os.RemoveAll(state))
				must(t, os.Rename(backup, state))
				must(t, w.hub.start())
				w.endsSaying(w.hub, "older than what it has exported", "hint: ", "move journal.db")
			}
			for _, suffix := range []string{"", "-wal", "-shm"} {
				if err := os.Rename(db+suffix, filepath.Join(w.dir, "journal"+suffix)); err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Fatal(err)
				}
			}
			w.anew()
			if err := os.Remove(filepath.Join(state, "manifest-"+module+".db")); err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
			must(t, w.hub.start())
			testenv.WaitFor(t, bound, func() error { // what is being written must not get into the manifest
				s, err := w.hubStatus()
				if err == nil && (s.Entries == 0 || s.Building != "") {
					err = errors.New("no manifest yet")
				}
				return err
			})
			w.turns++
			must(t, w.release(w.turns))
			testenv.WaitFor(t, bound, w.settled)
			must(t, w.turn())
			w.forgetful = false
			w.current()
		})
	}
}

// anew begins a new history: what was announced in the old one counts no more.
func (w *world) anew() {
	w.acked, w.seen, w.reported, w.forgetful = map[event.Serial]string{}, map[event.Serial]event.Digest{}, 0, true
	w.history = history{}
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
