package rsync

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
)

// Each test here shows how one of rsync's traps is kept from the mirror, or how far it is not. deploy/FAULTS.md lists them.

// receiver is the rsync process that writes into the mirror: the child of the one that the Runner started.
func (w *world) receiver() int {
	w.t.Helper()
	parents := map[string]string{}
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		w.t.Fatal(err)
	}
	for _, dir := range dirs {
		stat, err := os.ReadFile(filepath.Join(dir, "stat"))
		if err == nil && comm(filepath.Base(dir)) == "rsync" {
			fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
			parents[filepath.Base(dir)] = fields[1]
		}
	}
	for pid, parent := range parents {
		if parents[parent] == strconv.Itoa(os.Getpid()) && parent != strconv.Itoa(w.daemon.PID()) {
			n, err := strconv.Atoi(pid)
			if err != nil {
				w.t.Fatal(err)
			}
			return n
		}
	}
	w.t.Fatal("no receiver was found")
	return 0
}

// A receiver that is killed leaves its temporary file for ever: rsync's own, with a name that nobody knows.
func TestWhatAKilledReceiverLeavesIsSwept(t *testing.T) {
	w, job := slow(t)
	done := make(chan error, 1)
	r := w.runner()
	go func() { _, err := r.Run(t.Context(), job); done <- err }()
	w.started()
	if err := syscall.Kill(w.receiver(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	w.failure(<-done, Interrupted)
	w.clean()
	if entries, err := os.ReadDir(w.dest); err != nil || len(entries) > 0 {
		t.Errorf("left in the tree: %v %v", entries, err)
	}
	w.cfg.Upstream.BWLimitKiB = 0
	w.run(job)
	w.same()
}

// An administrator's own rsync --delete takes away what an Index run has put aside. That run fails, the next one mends it.
func TestAnAdministratorsFullSyncBesideAnIndexRun(t *testing.T) {
	w := newWorld(t)
	w.upstream(testenv.File("d/a", "first"), testenv.File("d/big", strings.Repeat("0123456789abcdef", 1<<16)), testenv.File("d/c", "last"))
	w.cfg.Upstream.BWLimitKiB = 250
	job := Job{Mode: Index, Paths: []string{"d/a", "d/big", "d/c"}}
	done := make(chan error, 1)
	r := w.runner()
	go func() { _, err := r.Run(t.Context(), job); done <- err }()
	w.started()
	testenv.WaitFor(t, 10*time.Second, func() error {
		_, err := os.Stat(filepath.Join(w.dest, "d", delayedDir, "a"))
		return err
	})
	if out, err := exec.Command("rsync", "-a", "--delete", "--exclude=big", w.up+"/", w.dest+"/").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if w.exists("d/" + delayedDir + "/a") {
		t.Fatal("nothing was taken away, this test proves nothing")
	}
	if e := w.failure(<-done, Partial); e.Retry() != Soon || len(e.Paths) == 0 {
		t.Errorf("%+v", e)
	}
	w.cfg.Upstream.BWLimitKiB = 0
	w.run(job)
	w.same()
	w.clean()
}

func TestNothingIsReportedBeforeItHasArrived(t *testing.T) {
	w, job := slow(t)
	w.upstream(testenv.File("a", "x"))
	job.Paths = append(job.Paths, "a")
	ctx, cancel := context.WithCancel(t.Context())
	seen := make(chan Item, 10)
	job.Item = func(it Item) { seen <- it }
	r := w.runner()
	var res Result
	done := make(chan error, 1)
	go func() {
		var err error
		res, err = r.Run(ctx, job)
		done <- err
	}()
	w.started()
	if it := <-seen; it.Path != "a" {
		t.Errorf("%+v is reported first", it)
	}
	cancel()
	w.failure(<-done, Interrupted)
	if got := paths(res.Items); !slices.Equal(got, []string{"a"}) {
		t.Errorf("%q are reported, a has arrived", got)
	}
}

// A slash after the name would make rsync read the directory, on both sides.
func TestAFlipCostsTheSameHoweverMuchIsInTheDirectory(t *testing.T) {
	w := newWorld(t)
	for i := range 3000 {
		w.upstream(testenv.File(fmt.Sprintf("d/a-rather-long-name-%04d", i), ""))
	}
	w.upstream(testenv.Dir("d", 0o755))
	w.mirror(testenv.Dir("d", 0o700))
	res := w.run(Job{Mode: Flip, Paths: []string{"d"}})
	if w.perm("d").Perm() != 0o755 || res.Received > 1000 {
		t.Errorf("d is %v, %d bytes were received", w.perm("d"), res.Received)
	}
	entries, err := os.ReadDir(filepath.Join(w.dest, "d"))
	if err != nil || len(entries) > 0 {
		t.Errorf("%d entries were brought, %v", len(entries), err)
	}
}

// A name of a file with several is brought by itself; then it is a file by itself. No other name changes before it is announced.
func TestOneNameOfAFileWithSeveral(t *testing.T) {
	w := newWorld(t)
	w.upstream(testenv.File("a", "new"), testenv.HardLink("b", "a"))
	w.mirror(testenv.File("a", "old content"), testenv.HardLink("b", "a"))
	w.run(Job{Mode: Content, Paths: []string{"a"}})
	if w.read("a") != "new" || w.read("b") != "old content" {
		t.Errorf("a is %q, b is %q", w.read("a"), w.read("b"))
	}
	w.run(Job{Mode: Content, Paths: []string{"a", "b"}})
	w.same() // and they are one file again
}

// What the upstream excludes in its rsyncd.conf looks as if it were missing.
func TestWhatTheUpstreamExcludesIsNotDeletedUnlessAnnounced(t *testing.T) {
	bothWays(t, func(t *testing.T, w *world) {
		up := testenv.StartRsyncd(t, testenv.RsyncdOptions{}, testenv.Module{Name: "pub", Path: w.up, Exclude: "secret"})
		w.cfg.Upstream.URL = up.URL("pub", "")
		w.upstream(testenv.File("secret", "x"), testenv.File("f", "x"))
		w.mirror(testenv.File("secret", "mirrored before"))
		w.onePath(w.fails(Job{Mode: Content, Paths: []string{"f", "secret"}}, Partial), "secret", NotFound, false)
		if !w.exists("f") || w.read("secret") != "mirrored before" {
			t.Error("a path that the upstream excludes was touched")
		}
		w.run(Job{Mode: Delete, Paths: []string{"secret"}, MaxDelete: 1})
		if w.exists("secret") {
			t.Error("not deleted although announced as gone and missing upstream")
		}
	})
}

// --safe-links creates no link that leads out, and leaves one alone that is here. It is named in the result every time.
func TestALinkThatLeadsOutAndIsHereStaysAndIsNamed(t *testing.T) {
	w := newWorld(t)
	w.upstream(testenv.Symlink("l", "../../elsewhere"), testenv.File("f", "x"))
	w.mirror(testenv.Symlink("l", "/etc/passwd"))
	res := w.run(Job{Mode: Content, Paths: []string{"l", "f"}})
	if !slices.Equal(res.Unsafe, []string{"l"}) || !w.exists("f") {
		t.Errorf("left out: %q", res.Unsafe)
	}
	if to, err := os.Readlink(filepath.Join(w.dest, "l")); err != nil || to != "/etc/passwd" {
		t.Errorf("the link leads to %q, %v", to, err)
	}
	if res = w.run(Job{Mode: Full, MaxDelete: 1}); !slices.Equal(res.Unsafe, []string{"l"}) || !w.exists("l") {
		t.Errorf("full: left out: %q", res.Unsafe)
	}
}

// rsync ends with 23 where paths failed and with 24 where some had vanished, even if it also stopped deleting. The limit is what an operator must
// hear of: the next attempt would delete as many again.
func TestALimitOfDeletionsIsToldBesideWhatElseFailed(t *testing.T) {
	testenv.NeedRoot(t) // the daemon changes to another user
	bothWays(t, func(t *testing.T, w *world) {
		up := testenv.StartRsyncd(t, testenv.RsyncdOptions{}, testenv.Module{Name: "pub", Path: w.up, Extra: []string{"uid = nobody", "gid = nogroup"}})
		w.cfg.Upstream.URL = up.URL("pub", "")
		w.upstream(testenv.File("keep", "x"), testenv.Dir("closed", 0o700))
		for _, beside := range []string{"closed/f", "p/a"} { // one that nobody may look at, one whose parent is gone too
			w.mirror(testenv.File("a", "x"), testenv.File("b", "x"), testenv.File("c", "x"), testenv.File("closed/f", "x"), testenv.File("p/a", "x"))
			res, err := w.runner().Run(t.Context(), Job{Mode: Delete, Paths: []string{"a", "b", "c", beside}, MaxDelete: 2})
			e := w.failure(err, MaxDelete)
			if res.Deleted != 2 || e.Retry() != Human || !w.exists("closed/f") {
				t.Errorf("beside %s: deleted %d: %v", beside, res.Deleted, e)
			}
			if told := slices.ContainsFunc(e.Paths, func(p PathError) bool { return p.Path == "closed/f" && p.Kind == Permission }); told != (beside == "closed/f") {
				t.Errorf("beside %s: %v", beside, e.Paths)
			}
		}
	})
}

// Snapshots made of hard links share the inode, and with it the permissions. Content is written to a new file, which spares them.
func TestAFlipReachesSnapshotsOfHardLinksAndContentDoesNot(t *testing.T) {
	w := newWorld(t)
	at := time.Unix(1_700_000_000, 0)
	w.upstream(testenv.File("f", "same").Perm(0o644).At(at), testenv.File("g", "new"))
	w.mirror(testenv.File("f", "same").Perm(0o600).At(at), testenv.File("g", "old"))
	snapshot := filepath.Join(filepath.Dir(w.dest), "snapshot")
	if out, err := exec.Command("cp", "-al", w.dest, snapshot).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	w.run(Job{Mode: Flip, Paths: []string{"f"}})
	w.run(Job{Mode: Content, Paths: []string{"g"}})
	info, err := os.Stat(filepath.Join(snapshot, "f"))
	if err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("f of the snapshot is %v, %v", info.Mode(), err)
	}
	if b, err := os.ReadFile(filepath.Join(snapshot, "g")); err != nil || string(b) != "old" {
		t.Errorf("g of the snapshot is %q, %v", b, err)
	}
}

// rrsync -ro, which many upstreams force, knows no deletions: they are asked about and done here.
func TestBehindRrsync(t *testing.T) {
	rrsync := testenv.Need(t, "rrsync", "python3")
	w := newWorld(t)
	s := testenv.StartSSHD(t, rrsync+" -ro "+w.up)
	w.cfg.Upstream = Upstream{URL: "127.0.0.1:/", Shell: s.Shell()}
	w.upstream(testenv.File("d/f", "x"), testenv.File("e/g", "x"))
	w.mirror(testenv.File("d/gone", "x"), testenv.File("e/extra", "x"), testenv.File("old/dir/f", "x"))
	w.run(Job{Mode: Content, Paths: []string{"d/f"}})
	if res := w.run(Job{Mode: Delete, Paths: []string{"d/gone", "old"}, MaxDelete: 4}); res.Deleted != 4 {
		t.Errorf("deleted %d", res.Deleted)
	}
	w.run(Job{Mode: Recursive, Paths: []string{"e"}, MaxDelete: 1})
	w.same()
}

// A file that is overwritten while it is sent may arrive as a mixture, with success. Its time says that it is to be fetched again.
func TestAFileOverwrittenInPlaceWhileItIsSent(t *testing.T) {
	w, job := slow(t)
	w.cfg.Upstream.BWLimitKiB = 2000
	r := w.runner()
	done := make(chan error, 1)
	go func() { _, err := r.Run(t.Context(), job); done <- err }()
	w.started()
	f, err := os.OpenFile(filepath.Join(w.up, "big"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int64{0, 4<<20 - 100} {
		if _, err := f.WriteAt([]byte("written while it was read"), at); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		w.failure(err, Partial)
	}
	w.cfg.Upstream.BWLimitKiB = 0
	w.run(job)
	w.same()
}
