package listener_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/listener"
	"github.com/mirrorbus/mirrorbus/listener/pace"
	"github.com/mirrorbus/mirrorbus/listener/rsync"
)

// A batch is made again and again because its index changes while it is captured. The directory that it brings as a whole was announced once, and is looked
// through for indexes once.
func TestADirectoryIsLookedThroughOnceForABatch(t *testing.T) {
	r := newReleaser(t, 20, "whole")
	looks, changes := 0, 5
	a := r.meddled(func(stage string, j rsync.Job) {
		if stage != "capture" {
			return
		}
		switch j.Way {
		case rsync.Survey:
			looks++
		case rsync.Aside:
			if changes > 0 {
				changes--
				r.announce(r.again())
			}
		}
	})
	r.send(a, r.announce(r.release()...))
	r.settle(a, r.serial)
	r.same(a, r.serial)
	if changes > 0 || looks != 1 {
		t.Errorf("looked through %d times, %d changes were not made", looks, changes)
	}
}

// One that is announced as a whole once more is looked through once more.
func TestADirectoryThatIsAnnouncedAgainIsLookedThroughAgain(t *testing.T) {
	r := newReleaser(t, 20, "whole")
	looks, changes := 0, 2
	a := r.meddled(func(stage string, j rsync.Job) {
		looks += map[bool]int{true: 1}[stage == "capture" && j.Way == rsync.Survey]
		if stage == "capture" && j.Way == rsync.Aside && changes > 0 {
			changes--
			r.announce(r.release()...)
		}
	})
	r.send(a, r.announce(r.release()...))
	r.settle(a, r.serial)
	r.same(a, r.serial)
	if changes > 0 || looks < 2 {
		t.Errorf("looked through %d times, %d changes were not made", looks, changes)
	}
}

// A directory that was looked through for indexes gets another one, announced by its name, before the batch is done: the index that names it is not put in
// place without it.
func TestAnIndexThatCameAfterTheLookIsPutInPlaceToo(t *testing.T) {
	r := newReleaser(t, 20, "")
	issued := 0
	issue := func() []event.Record {
		issued++
		list := fmt.Sprintf("repodata/%d-primary", issued)
		r.write(testenv.File(list, strings.Repeat("x", issued)), testenv.File("repodata/lists.xml", fmt.Sprintf("%s %d\n", list, issued)))
		return []event.Record{r.rec(event.Write, list), r.rec(event.Write, "repodata/lists.xml")}
	}
	whole := func() {
		text, err := os.ReadFile(filepath.Join(r.dest, "repodata/lists.xml"))
		if errors.Is(err, os.ErrNotExist) {
			return
		}
		r.must(err)
		list, _, _ := strings.Cut(string(text), " ")
		if _, err := os.Stat(filepath.Join(r.dest, list)); err != nil {
			t.Errorf("the index names what is not there: %v", err)
		}
	}
	changes := 3
	a := r.meddled(func(stage string, j rsync.Job) {
		whole()
		if stage == "capture" && j.Way == rsync.Aside && changes > 0 {
			changes--
			r.announce(issue()...)
		}
	})
	r.send(a, r.announce(append(issue(), r.rec(event.Tree, "repodata"))...))
	r.settle(a, r.serial)
	whole()
	r.same(a, r.serial)
	if changes > 0 {
		t.Errorf("%d changes were not made", changes)
	}
}

// A link becomes a directory with an index in it, which is captured while the mirror has the link still.
func TestAnIndexInADirectoryThatWasALink(t *testing.T) {
	for _, dir := range []string{"doc/ref", "doc/ref.db"} { // the second is an index as a whole
		t.Run(dir, func(t *testing.T) {
			w := newWorld(t)
			w.write(testenv.File("html/page", "x"), testenv.File("html/in.db", "another"), testenv.Symlink(dir, "../html"))
			w.must(w.adopted().Close())
			a := w.reopen(func(o *listener.Options) { o.Modules[0].Last = []string{"*.db"} })
			w.must(os.Remove(filepath.Join(w.up, dir)))
			w.write(testenv.Dir(dir, 0o755), testenv.File(dir+"/in.db", "names page"), testenv.File(dir+"/page", "y"))
			w.send(a, w.announce(w.rec(event.Write, dir), w.rec(event.Write, dir+"/in.db"), w.rec(event.Write, dir+"/page")))
			testenv.WaitFor(t, waitLong, func() error {
				w.must(a.SyncNow(t.Context(), pub))
				err := a.Reconcile(t.Context(), pub)
				if s := w.status(a); s.Applied < w.serial {
					return fmt.Errorf("at %d: %w", s.Applied, errors.Join(err, errors.New(s.Error)))
				}
				return nil
			})
			w.same(a, w.serial)
		})
	}
}

// A directory of indexes becomes a link while a batch that has captured them is under way. What lay in it is not asked for any more, though the link leads to a
// name that looks like it.
func TestALinkInThePlaceOfADirectoryOfIndexes(t *testing.T) {
	r := newReleaser(t, 20, "")
	a := r.reopen(func(o *listener.Options) {
		m := &o.Modules[0]
		m.Last, m.MaxDeleteRatio, m.Budgets = []string{"*.db"}, 1, map[string]pace.Budget{}
		changed := false
		before := func(stage string, _ rsync.Job) {
			if stage != "content" || changed {
				return
			}
			changed = true
			r.must(os.RemoveAll(filepath.Join(r.up, "t.db/d")))
			r.must(os.Remove(filepath.Join(r.up, "plain")))
			r.write(testenv.Symlink("t.db/d", "."))
			r.announce(r.rec(event.Write, "t.db/d"), event.Record{Op: event.Gone, Path: "plain"})
		}
		m.Runner = meddler{m.Runner, before, func() {}}
	})
	r.write(testenv.File("t.db/d/d/in", "an index"), testenv.File("t.db/d/in", "another"), testenv.File("plain", "x"))
	r.send(a, r.announce(r.rec(event.Tree, "t.db"), r.rec(event.Write, "t.db/d"), r.rec(event.Write, "t.db/d/d"), r.rec(event.Write, "t.db/d/d/in"), r.rec(event.Write, "plain")))
	r.settle(a, r.serial)
	r.same(a, r.serial)
}

// again writes the index as it is, as a compose does that has nothing new, and returns the record that tells it.
func (r *releaser) again() event.Record {
	r.t.Helper()
	path := filepath.Join(r.up, indexFile)
	text, err := os.ReadFile(path)
	r.must(err)
	r.must(os.WriteFile(path+".new", text, 0o644))
	r.must(os.Rename(path+".new", path))
	return r.rec(event.Write, indexFile)
}

// Every index changes between any two runs of rsync, each by an announcement of its own that says what is in it. A capture needs one run then, and what it
// brought belongs together: the mirror advances.
func TestIndexesWhoseContentIsAnnouncedNeedNotHoldStill(t *testing.T) {
	const indexes, most = 4, 150
	r := newReleaser(t, 20, "")
	name := func(i int) string { return filepath.Join("repodata", string(rune('a'+i))) }
	version, runs, advanced := 0, 0, 0
	change := func() {
		for i := range indexes {
			version++
			text := make([]byte, version)
			path := filepath.Join(r.up, name(i))
			r.must(os.WriteFile(path+".new", text, 0o644))
			r.must(os.Rename(path+".new", path))
			rec := r.rec(event.Write, name(i))
			rec.Sum = event.Sum(text)
			r.announce(rec)
		}
	}
	var a *listener.Agent
	last := event.Serial(0)
	a = r.meddled(func(string, rsync.Job) {
		if s := r.status(a).Applied; s > last {
			last, advanced = s, advanced+1
		}
		if runs++; runs < most && advanced < 3 {
			change()
		}
	})
	last = r.status(a).Applied
	change()
	r.send(a, r.announce(r.release()...))
	for range 10 {
		r.must(a.SyncNow(t.Context(), pub))
		r.must(errOrNil(a.Reconcile(t.Context(), pub)))
	}
	if advanced < 3 {
		t.Errorf("advanced %d times in %d runs: %+v", advanced, runs, r.status(a))
	}
	t.Logf("advanced %d times in %d runs", advanced, runs)
	r.settle(a, r.serial)
	r.same(a, r.serial)
}
