package bench_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// A daemon is a process that runs until the bench ends.
type daemon struct {
	name, log string
	cmd       *exec.Cmd
	exited    chan struct{}
}

// start starts a daemon; what it says goes to a file.
func (b *bench) start(name string, argv ...string) (*daemon, error) {
	d := &daemon{name: name, log: filepath.Join(b.dir, strings.ReplaceAll(name, " ", "-")+".log"), exited: make(chan struct{})}
	out, err := os.OpenFile(d.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	d.cmd = exec.Command(argv[0], argv[1:]...)
	d.cmd.Stdout, d.cmd.Stderr = out, out
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := errors.Join(d.cmd.Start(), out.Close()); err != nil {
		return nil, err
	}
	go func() {
		d.cmd.Wait() //nolint:errcheck // that it ended is what matters
		close(d.exited)
	}()
	b.Cleanup(func() { d.end(syscall.SIGTERM) })
	return d, nil
}

func (d *daemon) pid() int { return d.cmd.Process.Pid }

// end ends the daemon and waits for it.
func (d *daemon) end(sig syscall.Signal) {
	syscall.Kill(d.pid(), sig) //nolint:errcheck // it may have ended
	select {
	case <-d.exited:
		return
	case <-time.After(10 * time.Second):
	}
	syscall.Kill(-d.pid(), syscall.SIGKILL) //nolint:errcheck // likewise
	<-d.exited
}

// await asks ready now and then until it says yes, as long as the daemon runs.
func (d *daemon) await(ctx context.Context, bound time.Duration, what string, ready func() bool) error {
	return d.awaitEvery(ctx, 20*time.Millisecond, bound, what, ready)
}

// awaitEvery is await for what is measured.
func (d *daemon) awaitEvery(ctx context.Context, every, bound time.Duration, what string, ready func() bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, bound, fmt.Errorf("waiting for %s: not within %s", what, bound))
	defer cancel()
	for !ready() {
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), d.said())
		case <-d.exited:
			return errors.Join(fmt.Errorf("%s has ended", d.name), d.said())
		case <-time.After(every):
		}
	}
	return nil
}

// said is the end of the daemon's log, as an error.
func (d *daemon) said() error {
	text, err := os.ReadFile(d.log)
	if err != nil {
		return err
	}
	return fmt.Errorf("%s: …%s", d.name, text[max(len(text)-2000, 0):])
}
