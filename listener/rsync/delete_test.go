package rsync

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
)

// bothWays runs a test with rsync's own deletion, where that works, and with ours.
func bothWays(t *testing.T, test func(*testing.T, *world)) {
	t.Run("rsync", func(t *testing.T) {
		w := newWorld(t)
		if !w.cfg.Features.DeleteMissingArgs {
			t.Skip("--delete-missing-args of this rsync is broken")
		}
		test(t, w)
	})
	t.Run("here", func(t *testing.T) {
		w := newWorld(t)
		w.cfg.Features.DeleteMissingArgs = false
		test(t, w)
	})
}

func TestDeleteOnlyWhatIsMissingUpstream(t *testing.T) {
	bothWays(t, func(t *testing.T, w *world) {
		past := time.Unix(1_600_000_000, 0)
		w.upstream(testenv.Dir("d", 0o755).At(past), testenv.File("d/back", "again"))
		w.mirror(testenv.File("d/gone", "x"), testenv.File("d/dir/sub/f", "x"), testenv.File("d/back", "old"), testenv.File("d/kept", "k"), testenv.File("top/x", "x"))
		res := w.run(Job{Mode: Delete, Paths: []string{"d/gone", "d/dir", "d/dir/sub", "d/dir/sub/f", "d/back", "d/never", "top"}, MaxDelete: 6})
		if res.Deleted != 6 || len(res.Items) < 6 {
			t.Errorf("deleted %d: %v", res.Deleted, res.Items)
		}
		if w.exists("d/gone") || w.exists("d/dir") || w.exists("top") || w.read("d/back") != "old" || !w.exists("d/kept") {
			t.Error("wrong things were deleted")
		}
		info, err := os.Stat(filepath.Join(w.dest, "d"))
		if err != nil || !info.ModTime().Equal(past) {
			t.Errorf("the parent's time is %v %v, want the upstream's", info.ModTime(), err)
		}
		if again := w.run(Job{Mode: Delete, Paths: []string{"d/gone", "d/dir", "top"}, MaxDelete: 1}); again.Deleted != 0 {
			t.Errorf("again: %+v", again)
		}
	})
}

// Whole seconds are not enough to see that the deletion itself gave the parent another time than the upstream's.
func TestDeleteSettlesTheParentWithinTheSameSecond(t *testing.T) {
	bothWays(t, func(t *testing.T, w *world) {
		at := time.Now().Truncate(time.Second).Add(time.Nanosecond)
		w.upstream(testenv.Dir("d", 0o755).At(at))
		w.mirror(testenv.File("d/gone", "x"))
		w.run(Job{Mode: Delete, Paths: []string{"d/gone"}, MaxDelete: 1})
		if info, err := os.Stat(filepath.Join(w.dest, "d")); err != nil || !info.ModTime().Equal(at) {
			t.Errorf("the parent's time is %v %v, want the upstream's, %v", info.ModTime(), err, at)
		}
	})
}

func TestDeleteNamesOfAnyBytes(t *testing.T) {
	bothWays(t, func(t *testing.T, w *world) {
		for _, n := range oddNames() {
			w.mirror(testenv.File(n, "x"), testenv.File("keep/"+n, "x"))
			w.upstream(testenv.File("keep/"+n, "x"))
		}
		w.upstream(testenv.Dir("d\ni", 0o755), testenv.Dir(`d\[ir`, 0o755))
		w.run(Job{Mode: Delete, Paths: oddNames(), MaxDelete: len(oddNames())})
		for _, n := range oddNames() {
			if w.exists(n) || !w.exists("keep/"+n) {
				t.Errorf("%q: exists %t, its namesake %t", n, w.exists(n), w.exists("keep/"+n))
			}
		}
	})
}

func TestDeleteStopsAtItsLimit(t *testing.T) {
	bothWays(t, func(t *testing.T, w *world) {
		w.mirror(testenv.File("a", "x"), testenv.File("b", "x"), testenv.File("c", "x"))
		w.upstream(testenv.File("keep", "x"))
		job := Job{Mode: Delete, Paths: []string{"a", "b", "c"}, MaxDelete: 2}
		res, err := w.runner().Run(t.Context(), job)
		if e := w.failure(err, MaxDelete); res.Deleted != 2 || e.Retry() != Human {
			t.Errorf("deleted %d: %v", res.Deleted, e)
		}
		job.MaxDelete = 0
		w.fails(job, MaxDelete)
		if left := len(testenv.Diff(t, w.up, w.dest, "keep")); left != 1 {
			t.Errorf("%d left, want 1", left)
		}
	})
}

func TestDeleteALinkNotWhatItLeadsTo(t *testing.T) {
	bothWays(t, func(t *testing.T, w *world) {
		outside := t.TempDir()
		testenv.WriteTree(t, outside, testenv.File("victim", "x"))
		w.mirror(testenv.Symlink("l", outside))
		w.upstream(testenv.File("keep", "x"))
		w.run(Job{Mode: Delete, Paths: []string{"l"}, MaxDelete: 1})
		if _, err := os.Stat(filepath.Join(outside, "victim")); err != nil || w.exists("l") {
			t.Errorf("%v, link exists: %t", err, w.exists("l"))
		}
		w.mirror(testenv.Symlink("l", outside))
		w.onePath(w.fails(Job{Mode: Delete, Paths: []string{"l/victim"}, MaxDelete: 1}, Partial), "l/victim", Loop, true)
		if _, err := os.Stat(filepath.Join(outside, "victim")); err != nil {
			t.Error(err)
		}
	})
}

func TestAnUpstreamThatIsAwayDeletesNothing(t *testing.T) {
	bothWays(t, func(t *testing.T, w *world) {
		w.mirror(testenv.File("f", "x"))
		if err := os.RemoveAll(w.up); err != nil {
			t.Fatal(err)
		}
		w.fails(Job{Mode: Delete, Paths: []string{"f"}, MaxDelete: 1}, Unavailable)
		w.daemon.Stop()
		w.fails(Job{Mode: Delete, Paths: []string{"f"}, MaxDelete: 1}, Busy)
		if !w.exists("f") {
			t.Error("deleted although nobody said so")
		}
	})
}
