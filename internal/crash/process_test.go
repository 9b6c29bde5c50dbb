package crash_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/failpoint"
)

// program builds mirrorbus with its failpoints, once for each run of the tests.
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "mirrorbus-crash-*")
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "mirrorbus")
	out, err := exec.Command("go", "build", "-tags", "failpoint", "-o", file, "github.com/mirrorbus/mirrorbus/cmd/mirrorbus").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build: %w: %s", err, out)
	}
	return file, nil
})

func TestMain(m *testing.M) {
	status := m.Run()
	if file, err := program(); err == nil {
		if err := os.RemoveAll(filepath.Dir(file)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			status = max(status, 1)
		}
	}
	os.Exit(status)
}

// A process is a daemon that is started again and again.
type process struct {
	argv []string
	log  string

	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended, nil before the first start
	err  error         // then set
}

// start starts the daemon. It dies with the test: the kernel sees to that when the thread that started it ends, so that one waits.
func (p *process) start(env ...string) error {
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	cmd := exec.Command(p.argv[0], p.argv[1:]...)
	cmd.Stdout, cmd.Stderr, cmd.Env = log, log, append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started, done := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(done)
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
		}
	}()
	if err := errors.Join(<-started, log.Close()); err != nil {
		return err
	}
	p.cmd, p.done = cmd, done
	return nil
}

// dead tells whether the process has ended, or never began.
func (p *process) dead() bool {
	if p.done == nil {
		return true
	}
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// killed tells whether the process was ended by SIGKILL.
func (p *process) killed() bool {
	var exit *exec.ExitError
	return p.dead() && errors.As(p.err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
}

func (p *process) signal(s syscall.Signal) error {
	if p.dead() {
		return nil
	}
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// end sends a signal and waits until the process has ended.
func (p *process) end(s syscall.Signal) error {
	if err := p.signal(s); err != nil || p.dead() {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(15 * time.Second):
		return fmt.Errorf("%s does not end within 15 s of %v", filepath.Base(p.log), s)
	}
}

func (p *process) kill() error { return p.end(syscall.SIGKILL) }
func (p *process) stop() error { return p.end(syscall.SIGTERM) }

// tail is the end of its log.
func (p *process) tail(size int) string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-size):])
}

// diedAt tells whether the last thing that the process said was that it dies at the point.
func (p *process) diedAt(point string) bool {
	return p.killed() && strings.Contains(p.tail(400), failpoint.Env+" "+point+"\n")
}

// must ends the test if something that only serves it goes wrong.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
