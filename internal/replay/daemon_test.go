package replay_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A supervised daemon is started again whenever it ends, as systemd would. That it ends by itself is noted.
type supervised struct {
	name string
	argv []string // changed under mu once it runs
	mark string   // NAME=VALUE in its environment and in that of all it starts
	log  string
	note func(format string, args ...any)

	mu     sync.Mutex
	cmd    *exec.Cmd
	killed bool          // whoever ended it meant to
	pause  time.Duration // before it is started again
}

// run keeps the daemon running until ctx ends, then asks it to end and insists after ten seconds. The daemon dies with the test: the kernel sees to
// that when the thread that started it ends, so run keeps its thread.
func (d *supervised) run(ctx context.Context) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for ctx.Err() == nil {
		done, err := d.start()
		if err != nil {
			d.note("%s does not start: %v", d.name, err)
			return
		}
		select {
		case <-ctx.Done():
			d.stop(done)
			return
		case err = <-done:
		}
		d.mu.Lock()
		killed, pause := d.killed, d.pause
		d.killed, d.pause = false, 200*time.Millisecond
		d.mu.Unlock()
		if !killed {
			d.note("%s ended by itself: %v: %s", d.name, err, lastLine(d.log))
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

func (d *supervised) start() (<-chan error, error) {
	log, err := os.OpenFile(d.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close() //nolint:errcheck // the child has its own
	d.mu.Lock()
	defer d.mu.Unlock()
	cmd := exec.Command(d.argv[0], d.argv[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), d.mark)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	d.cmd = cmd
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	return done, nil
}

// kill ends the daemon, and nothing that it started, as kill -9 does. It is started again after the pause.
func (d *supervised) kill(pause time.Duration) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.killed, d.pause = true, pause
	if d.cmd == nil {
		return nil
	}
	if err := d.cmd.Process.Kill(); err != nil && err != os.ErrProcessDone {
		return err
	}
	return nil
}

// become changes what is started the next time.
func (d *supervised) become(argv []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.argv = argv
}

// signal sends the daemon, and nothing that it started, a signal that does not end it.
func (d *supervised) signal(s syscall.Signal) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.cmd.Process.Signal(s)
}

// halt has the daemon stand still, and returns once each of its threads does: on a busy machine that takes a moment.
func (d *supervised) halt(ctx context.Context) error {
	if err := d.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return until(ctx, patience, func() error {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", d.cmd.Process.Pid))
		if err != nil || len(threads) == 0 {
			return errors.Join(fmt.Errorf("%s has no threads", d.name), err)
		}
		for _, file := range threads {
			stat, err := os.ReadFile(file) // id (name) state …
			if _, state, ok := strings.Cut(string(stat), ") "); err != nil || !ok || state[0] != 'T' {
				return errors.Join(fmt.Errorf("%s still runs: %.40q", d.name, stat), err)
			}
		}
		return nil
	})
}

func (d *supervised) stop(done <-chan error) {
	d.cmd.Process.Signal(syscall.SIGTERM) //nolint:errcheck // it may have ended
	select {
	case err := <-done:
		if err != nil {
			d.note("%s was asked to end: %v: %s", d.name, err, lastLine(d.log))
		}
	case <-time.After(10 * time.Second):
		d.note("%s does not end within 10 s of SIGTERM", d.name)
		d.cmd.Process.Kill() //nolint:errcheck // it may have ended
		<-done
	}
}

// tail is the end of a log.
func tail(file string, size int) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	return end(string(text), size)
}

func end(s string, size int) string { return s[max(0, len(s)-size):] }

func lastLine(file string) string {
	whole := tail(file, 1<<20)
	for _, word := range []string{"\npanic: ", "\nfatal error: "} {
		if at := strings.LastIndex(whole, word); at >= 0 {
			return whole[at:min(len(whole), at+4000)]
		}
	}
	lines := strings.Split(strings.TrimSpace(whole), "\n")
	return strings.Join(lines[max(0, len(lines)-2):], " | ")
}

// leftovers lists the processes that have the mark in their environment.
func leftovers(mark string) ([]string, error) {
	all, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		return nil, err
	}
	var found []string
	for _, file := range all {
		env, err := os.ReadFile(file)
		if err != nil || !strings.Contains("\x00"+string(env), "\x00"+mark+"\x00") {
			continue // ended meanwhile, or somebody else's
		}
		line, err := os.ReadFile(filepath.Join(filepath.Dir(file), "cmdline"))
		if err == nil && len(line) > 0 { // else it is ending
			found = append(found, fmt.Sprintf("%s: %q", filepath.Base(filepath.Dir(file)), strings.ReplaceAll(string(line), "\x00", " ")))
		}
	}
	return found, nil
}
