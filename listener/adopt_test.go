package listener_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/listener"
)

// A tree that plain rsync has filled, and that never saw any of this, is taken over as it is: no content is transferred again, however the one who filled it
// treated times, permissions and hard links.
func TestATreeThatIsThereIsAdoptedWithoutATransfer(t *testing.T) {
	for name, c := range map[string]struct {
		options []string
		after   func(w *world)
		ignore  string // what may differ in the end
		read    bool   // rsync reads content on both sides, as it cannot know better, and writes it anew
	}{
		"as it is":             {},
		"whole seconds":        {after: (*world).wholeSeconds, ignore: ": time "},
		"other permissions":    {options: []string{"--chmod=D0750,F0640"}, ignore: ": time "},
		"both":                 {options: []string{"--chmod=D0750,F0640"}, after: (*world).wholeSeconds, ignore: ": time ", read: true},
		"copies of hard links": {options: []string{"--no-hard-links"}, ignore: ": hard link of "},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			for i := range 20 {
				w.write(testenv.File(fmt.Sprintf("pool/%02d/package", i), strings.Repeat(fmt.Sprint("content ", i), 500)))
			}
			w.write(testenv.HardLink("pool/other", "pool/07/package"), testenv.Symlink("latest", "pool/19"), testenv.File("empty", ""), testenv.Dir("void", 0o755))
			w.announce(w.rec(event.Write, "empty"))
			w.publishManifest()
			argv := append(append([]string{"-aH", "--exclude=/.mirrorbus/"}, c.options...), w.up+"/", w.dest+"/")
			if out, err := exec.Command("rsync", argv...).CombinedOutput(); err != nil {
				t.Fatalf("%v %s", err, out)
			}
			if c.after != nil {
				c.after(w)
			}
			before := w.inode("pool/03/package")
			a := w.agent()
			w.must(a.Reconcile(t.Context(), pub))
			all := w.reports(a)
			if r := all[len(all)-1]; r.Outcome != event.Applied && r.Outcome != event.Skipped || r.Bytes != 0 || r.Deleted != 0 {
				t.Errorf("%+v", r)
			}
			if s := w.status(a); s.State != listener.Current || s.Applied != 1 {
				t.Errorf("%+v", s)
			}
			if now := w.inode("pool/03/package"); now != before && !c.read {
				t.Error("a file that was there was replaced")
			}
			d := slices.DeleteFunc(testenv.Diff(t, w.up, w.dest, event.ExportDir), func(line string) bool {
				return w.dirTime(line) || strings.HasPrefix(line, `"latest": time `) || c.ignore != "" && strings.Contains(line, c.ignore)
			})
			if len(d) > 0 {
				t.Errorf("the mirror differs: %q", d)
			}
		})
	}
}

// wholeSeconds cuts the times of the mirror's files, as an old rsync or file system did.
func (w *world) wholeSeconds() {
	w.must(filepath.WalkDir(w.dest, func(p string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		at := info.ModTime().Truncate(time.Second)
		return os.Chtimes(p, at, at)
	}))
}

func (w *world) inode(path string) uint64 {
	w.t.Helper()
	info, err := os.Lstat(filepath.Join(w.dest, path))
	w.must(err)
	return info.Sys().(*syscall.Stat_t).Ino
}

// Files that the master does not have are deletions as any others: more of them than may go by themselves wait for an operator's word, also while nothing
// has been announced yet.
func TestAdoptionThatWouldDeleteMuchIsHeld(t *testing.T) {
	for _, serial := range []event.Serial{0, 1} {
		t.Run(fmt.Sprint("serial ", serial), func(t *testing.T) {
			w := newWorld(t)
			w.write(testenv.File("kept", "x"))
			if serial > 0 {
				w.announce(w.rec(event.Write, "kept"))
			}
			w.publishManifest()
			var extra []testenv.Node
			for i := range 30 {
				extra = append(extra, testenv.File(fmt.Sprintf("mine/%02d", i), "mine"))
			}
			testenv.WriteTree(t, w.dest, extra...)
			unchanged := w.snapshot(w.dest)
			a := w.agent(func(o *listener.Options) { o.Modules[0].MaxDelete = 20 })
			err := a.Reconcile(t.Context(), pub)
			if s := w.status(a); err == nil || s.State != listener.Held || !strings.Contains(s.Error, "names would be deleted") {
				t.Errorf("%v %+v", err, s)
			}
			unchanged()
			w.must(a.Confirm(t.Context(), pub))
			w.must(a.Reconcile(t.Context(), pub))
			w.same(a, serial)
			if s := w.status(a); s.State != listener.Current {
				t.Errorf("%+v", s)
			}

			// That word was for these. What comes later waits for another.
			extra = nil
			for i := range 30 {
				extra = append(extra, testenv.File(fmt.Sprintf("pool/%02d", i), "x"))
			}
			w.write(extra...)
			w.send(a, w.announce(w.rec(event.Tree, "pool")))
			w.must(a.Reconcile(t.Context(), pub))
			w.must(os.RemoveAll(filepath.Join(w.up, "pool")))
			w.send(a, w.announce(event.Record{Op: event.Gone, Path: "pool"}))
			if err := a.Reconcile(t.Context(), pub); err == nil || w.status(a).State != listener.Held {
				t.Errorf("%v %+v", err, w.status(a))
			}
		})
	}
}
