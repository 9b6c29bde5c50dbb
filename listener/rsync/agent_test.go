package rsync

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
)

// agentMain is the test binary in the part of an agent: it runs one job until it is killed.
func agentMain() int {
	var cfg Config
	err := json.Unmarshal([]byte(os.Getenv("MIRRORBUS_TEST_AGENT")), &cfg)
	if err == nil {
		var r *Runner
		if r, err = New(cfg); err == nil {
			_, err = r.Run(context.Background(), Job{Mode: Content, Paths: []string{"big"}})
		}
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

func TestRsyncDiesWithTheAgent(t *testing.T) {
	w, job := slow(t)
	cfg, err := json.Marshal(w.cfg)
	if err != nil {
		t.Fatal(err)
	}
	agent := exec.Command(os.Args[0])
	agent.Env = append(os.Environ(), "MIRRORBUS_TEST_AGENT="+string(cfg))
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	w.started()
	if err := agent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := agent.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("the agent ended with %v", err)
	}
	begun := time.Now()
	w.noRsync(15 * time.Second)
	t.Logf("rsync ended %v after the agent", time.Since(begun))
	w.clean()
	if w.exists("big") {
		t.Error("an unfinished file is in place")
	}
	w.cfg.Upstream.BWLimitKiB = 0
	w.run(job)
	w.same()
}

func TestAnOrphanKeepsTheLock(t *testing.T) {
	w, job := slow(t)
	r := w.runner()
	lock, e := r.lock(Job{Mode: Content})
	if e != nil {
		t.Fatal(e)
	}
	// A process that stays although the agent is gone: it has the lock as rsync has it, as an inherited file.
	orphan := exec.Command("sleep", "60")
	orphan.ExtraFiles = []*os.File{lock}
	if err := orphan.Start(); err != nil {
		t.Fatal(err)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	w.fails(job, Locked)
	if err := r.Rename("a", "b"); err == nil || w.failure(err, Locked) == nil {
		t.Errorf("rename beside an orphan: %v", err)
	}
	if err := errors.Join(orphan.Process.Kill(), ignoreExit(orphan.Wait())); err != nil {
		t.Fatal(err)
	}
	w.cfg.Upstream.BWLimitKiB = 0
	w.run(job)
}

func TestRsyncHoldsTheLockItself(t *testing.T) {
	w, job := slow(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	r := w.runner()
	go func() { _, err := r.Run(ctx, job); done <- err }()
	w.started()
	info, err := os.Stat(w.cfg.LockFile)
	if err != nil {
		t.Fatal(err)
	}
	holders, me := 0, os.Getpid()
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range dirs {
		held, err := os.Stat("/proc/" + d.Name() + "/fd/3")
		if err == nil && os.SameFile(held, info) && d.Name() != fmt.Sprint(me) && comm(d.Name()) == "rsync" {
			holders++
		}
	}
	if holders != 2 { // the generator and the receiver
		t.Errorf("%d rsync processes hold the lock, want 2", holders)
	}
	cancel()
	w.failure(<-done, Interrupted)
}

func TestAFlipOvertakesARunningJob(t *testing.T) {
	w, job := slow(t)
	w.upstream(testenv.Dir("d", 0o755), testenv.File("other", "x"))
	w.mirror(testenv.Dir("d", 0o700))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	r := w.runner()
	go func() { _, err := r.Run(ctx, job); done <- err }()
	w.started()
	w.cfg.Upstream.BWLimitKiB = 0
	w.run(Job{Mode: Flip, Paths: []string{"d"}})
	if w.perm("d").Perm() != 0o755 {
		t.Errorf("d is %v", w.perm("d"))
	}
	w.run(Job{Mode: Verify, Paths: []string{"other"}})
	cancel()
	w.failure(<-done, Interrupted)
}

func TestProcessesThatStayAreKilled(t *testing.T) {
	testenv.Need(t, "sh")
	var lines []string
	c := command{
		argv: []string{"sh", "-c", "trap '' TERM; sleep 100 & echo $!; exit 3"}, env: environment(),
		stdout: func(l string) error { lines = append(lines, l); return nil }, stderr: func(string) {},
	}
	code, err := c.run(t.Context())
	if code != 3 || err != nil || len(lines) != 1 {
		t.Fatalf("%d %v %q", code, err, lines)
	}
	var pid int
	if _, err := fmt.Sscan(lines[0], &pid); err != nil {
		t.Fatal(err)
	}
	testenv.WaitFor(t, 5*time.Second, func() error {
		if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil && len(b) > 0 && unix.Kill(pid, 0) == nil && comm(fmt.Sprint(pid)) == "sleep" && !zombie(pid) {
			return fmt.Errorf("process %d still runs", pid)
		}
		return nil
	})
}

func zombie(pid int) bool {
	var state string
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return true
	}
	_, err = fmt.Sscanf(string(b[len("Name:	sleep\nUmask:	0022\n"):]), "State: %s", &state)
	return err == nil && state == "Z"
}
