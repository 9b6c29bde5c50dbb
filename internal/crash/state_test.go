package crash_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
)

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
