package rsync

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
)

func TestAMissingPathIsNamedAndTheRestComes(t *testing.T) {
	w := newWorld(t)
	w.upstream(testenv.File("d/f", "x"))
	e := w.fails(Job{Mode: Content, Paths: []string{"d/f", "d/n\"o\"ne\n"}}, Partial)
	w.onePath(e, "d/n\"o\"ne\n", NotFound, false)
	if e.Code != 23 || e.Retry() != Soon || !w.exists("d/f") {
		t.Errorf("%+v", e)
	}
	w.onePath(w.fails(Job{Mode: Content, Paths: []string{"only/this"}}, Partial), "only/this", NotFound, false)
	w.onePath(w.fails(Job{Mode: Content, Paths: []string{"d/f/x"}}, Partial), "d/f/x", NotDir, false)
}

func TestAnEmbargoedPathIsDeniedNotMissing(t *testing.T) {
	testenv.NeedRoot(t) // the daemon changes to another user
	w := newWorld(t, func(m *testenv.Module) { m.Extra = []string{"uid = nobody", "gid = nogroup"} })
	w.upstream(testenv.Dir("embargo", 0o700), testenv.File("embargo/f", "x"), testenv.File("closed", "x").Perm(0o600))
	e := w.fails(Job{Mode: Content, Paths: []string{"closed"}}, Partial)
	w.onePath(e, "closed", Permission, false)
	w.mirror(testenv.File("embargo/f", "kept"))
	e = w.fails(Job{Mode: Delete, Paths: []string{"embargo/f"}, MaxDelete: 1}, Partial)
	w.onePath(e, "embargo/f", Permission, false)
	if !w.exists("embargo/f") {
		t.Error("deleted what the upstream only hides")
	}
}

func TestMaxConnectionsIsBusy(t *testing.T) {
	w := newWorld(t, func(m *testenv.Module) { m.MaxConnections = 1 })
	w.upstream(testenv.File("f", "x"))
	held := hold(t, w.daemon.Port, "pub")
	defer held.Close()
	e := w.fails(Job{Mode: Content, Paths: []string{"f"}}, Busy)
	if e.Code != 5 || e.Retry() != Backoff {
		t.Errorf("%+v", e)
	}
}

// hold takes one connection to a module.
func hold(t *testing.T, port int, module string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", port))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(c, "@RSYNCD: 31.0 sha512 md5\n%s\n", module); err != nil {
		t.Fatal(err)
	}
	said := ""
	for buf := make([]byte, 512); !strings.Contains(said, "@RSYNCD: OK"); {
		n, err := c.Read(buf)
		if err != nil {
			t.Fatalf("%v after %q", err, said)
		}
		said += string(buf[:n])
	}
	return c
}

func TestRefusalsThatNeedAHuman(t *testing.T) {
	w := newWorld(t, func(m *testenv.Module) { m.Secrets = map[string]string{"mirror": "hunter2"} })
	w.upstream(testenv.File("f", "x"))
	job := Job{Mode: Content, Paths: []string{"f"}}
	secret := filepath.Join(t.TempDir(), "secret")
	write := func(password string) {
		if err := os.WriteFile(secret, []byte(password+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w.fails(job, Auth)
	write("wrong-hunter")
	w.cfg.Upstream.URL = strings.Replace(w.cfg.Upstream.URL, "//", "//mirror@", 1)
	w.cfg.Upstream.PasswordFile = secret
	if e := w.fails(job, Auth); e.Retry() != Human || strings.Contains(fmt.Sprintf("%+v", e), "hunter") {
		t.Errorf("%+v", e)
	}
	write("hunter2")
	w.run(job)
	w.cfg.Upstream.URL = strings.Replace(w.cfg.Upstream.URL, "/pub/", "/none/", 1)
	w.fails(job, Auth)
}

func TestUnreachableUpstreams(t *testing.T) {
	w := newWorld(t)
	w.upstream(testenv.File("f", "x"))
	job := Job{Mode: Content, Paths: []string{"f"}}
	w.daemon.Stop()
	if e := w.fails(job, Busy); e.Code != 10 || e.Retry() != Backoff {
		t.Errorf("%+v", e)
	}
	w.cfg.Upstream.URL = "rsync://no-such-host.invalid/pub/"
	if e := w.fails(job, Unavailable); e.Retry() != Backoff {
		t.Errorf("%+v", e)
	}
	w.daemon.Start()
	w.cfg.Upstream.URL = w.daemon.URL("pub", "")
	if err := os.RemoveAll(w.up); err != nil {
		t.Fatal(err)
	}
	w.fails(job, Unavailable) // the module's folder is not there: not mounted
}

func TestAServerThatRefusesAnOptionNeedsAHuman(t *testing.T) {
	w := newWorld(t, func(m *testenv.Module) { m.Extra = []string{"refuse options = recursive"} })
	w.upstream(testenv.File("d/f", "x"))
	w.run(Job{Mode: Level, Paths: []string{"d"}})
	w.fails(Job{Mode: Recursive, Paths: []string{"d"}}, Permanent)
}

func TestDiskFullIsBlockedAndLeavesNothing(t *testing.T) {
	w := newWorld(t)
	mountTmpfs(t, filepath.Dir(w.dest), "size=256k")
	w.mirror(testenv.Dir(".", 0o755))
	w.upstream(testenv.File("big", strings.Repeat("x", 1<<20)), testenv.File("small", "x"))
	e := w.fails(Job{Mode: Content, Paths: []string{"big"}}, DiskFull)
	if e.Retry() != Blocked {
		t.Errorf("%+v", e)
	}
	w.nothingBegun() // it would fill the disk for ever
	w.run(Job{Mode: Content, Paths: []string{"small"}})
	w.same("big")
	w.clean()
}

func TestNoInodesIsDiskFullToo(t *testing.T) {
	w := newWorld(t)
	mountTmpfs(t, filepath.Dir(w.dest), "nr_inodes=12")
	w.mirror(testenv.Dir(".", 0o755))
	var names []string
	for i := range 20 {
		names = append(names, fmt.Sprint("f", i))
		w.upstream(testenv.File(names[i], "x"))
	}
	w.fails(Job{Mode: Content, Paths: names}, DiskFull)
}

func TestAReadOnlyMirrorIsNamedPerPath(t *testing.T) {
	w := newWorld(t)
	w.upstream(testenv.File("f", "x"))
	r := w.runner()
	testenv.NeedRoot(t)
	ro := filepath.Join(w.dest, "ro")
	w.mirror(testenv.Dir("ro", 0o755))
	w.upstream(testenv.File("ro/f", "x"))
	mountTmpfs(t, ro, "ro")
	_, err := r.Run(t.Context(), Job{Mode: Content, Paths: []string{"f", "ro/f"}})
	e := w.failure(err, Partial)
	for _, p := range e.Paths {
		if p.Kind != ReadOnly || !p.Local || p.Path != "ro/f" && p.Path != "ro" {
			t.Errorf("%v", p)
		}
	}
	if len(e.Paths) == 0 || !w.exists("f") {
		t.Errorf("%v", e)
	}
}

func mountTmpfs(t *testing.T, dir, options string) {
	t.Helper()
	testenv.NeedRoot(t)
	flags := uintptr(0)
	if options == "ro" {
		flags, options = unix.MS_RDONLY, ""
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", flags, options); err != nil {
		testenv.Missing(t, "cannot mount a tmpfs: "+err.Error())
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

// slow is a world whose one large file takes minutes.
func slow(t *testing.T) (*world, Job) {
	w := newWorld(t)
	w.upstream(testenv.File("big", strings.Repeat("0123456789abcdef", 1<<18)))
	w.cfg.Upstream.BWLimitKiB = 100
	return w, Job{Mode: Content, Paths: []string{"big"}}
}

// started waits until rsync has begun to write the large file.
func (w *world) started() {
	w.t.Helper()
	testenv.WaitFor(w.t, 20*time.Second, func() error {
		found, err := filepath.Glob(filepath.Join(filepath.Dir(w.dest), TempPrefix+"-dest", "run", "big.*"))
		if err == nil && len(found) == 0 {
			err = fmt.Errorf("no temporary file yet")
		}
		return err
	})
}

// noRsync waits until no process has the mirror's folder on its command line.
func (w *world) noRsync(bound time.Duration) {
	w.t.Helper()
	testenv.WaitFor(w.t, bound, func() error {
		out, err := exec.Command("sh", "-c", `grep -lsaF -- "$1" /proc/[0-9]*/cmdline || true`, "sh", "--temp-dir="+filepath.Dir(w.dest)).Output()
		for line := range strings.FieldsSeq(string(out)) {
			if pid := strings.Split(line, "/")[2]; pid != "self" && comm(pid) == "rsync" {
				return fmt.Errorf("process %s still runs", pid)
			}
		}
		return err
	})
}

func comm(pid string) string {
	b, err := os.ReadFile("/proc/" + pid + "/comm")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func TestCancelEndsEverythingAndLeavesNothing(t *testing.T) {
	w, job := slow(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	r := w.runner()
	go func() { _, err := r.Run(ctx, job); done <- err }()
	w.started()
	if e := w.fails(job, Locked); e.Retry() != Backoff {
		t.Errorf("second run: %+v", e)
	}
	cancel()
	if e := w.failure(<-done, Interrupted); !errors.Is(e, context.Canceled) {
		t.Errorf("cause %v", e.Cause)
	}
	w.noRsync(0)
	w.clean()
	if w.exists("big") {
		t.Error("an unfinished file is in place")
	}
	w.cfg.Upstream.BWLimitKiB = 0
	w.run(job)
	w.same()
}

func TestAStoppedServerIsATimeout(t *testing.T) {
	w, job := slow(t)
	w.cfg.Stall = 2 * time.Second
	done := make(chan error, 1)
	r := w.runner()
	go func() { _, err := r.Run(t.Context(), job); done <- err }()
	w.started()
	stopped := w.daemon.Children()
	for _, pid := range stopped {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	begun := time.Now()
	select {
	case err := <-done:
		t.Log(w.failure(err, Timeout))
	case <-time.After(40 * time.Second):
		t.Fatal("still runs")
	}
	t.Logf("ended %v after the server stopped", time.Since(begun))
	for _, pid := range stopped {
		syscall.Kill(pid, syscall.SIGKILL) //nolint:errcheck // it may have ended
	}
	w.noRsync(0)
	w.clean()
}

func TestAServerThatSaysNothingIsATimeout(t *testing.T) {
	w := newWorld(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	w.cfg.Upstream.URL = "rsync://" + l.Addr().String() + "/pub/"
	w.cfg.Stall = time.Second
	w.fails(Job{Mode: Content, Paths: []string{"f"}}, Timeout)
}

func TestAKilledServerIsInterrupted(t *testing.T) {
	w, job := slow(t)
	done := make(chan error, 1)
	r := w.runner()
	go func() { _, err := r.Run(t.Context(), job); done <- err }()
	w.started()
	w.daemon.Kill()
	if e := w.failure(<-done, Interrupted); e.Code != 12 || e.Retry() != Backoff {
		t.Errorf("%+v", e)
	}
	w.clean()
}

func TestAFileThatVanishesWhileItsListIsRead(t *testing.T) {
	w, job := slow(t)
	w.upstream(testenv.File("zz-after", strings.Repeat("x", 1000)))
	job.Paths = append(job.Paths, "zz-after")
	w.cfg.Upstream.BWLimitKiB = 2000
	r := w.runner()
	done := make(chan error, 1)
	go func() { _, err := r.Run(t.Context(), job); done <- err }()
	w.started()
	if err := os.Remove(filepath.Join(w.up, "zz-after")); err != nil {
		t.Fatal(err)
	}
	e := w.failure(<-done, Vanished)
	w.onePath(e, "zz-after", Gone, false)
	if e.Code != 24 || e.Retry() != Soon {
		t.Errorf("%+v", e)
	}
	w.same()
}
