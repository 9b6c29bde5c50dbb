package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// processes are the daemons of a demo. They end with it, whatever happens.
type processes struct {
	mu  sync.Mutex
	all []*process
}

// A process is one daemon.
type process struct {
	name string
	cmd  *exec.Cmd
	log  *tail
	done chan struct{} // closed when it has ended
	err  error         // then set
}

func newProcesses() *processes { return &processes{} }

// start starts a daemon. The kernel kills it if the demo dies.
func (ps *processes) start(name, program string, args ...string) (*process, error) {
	p := &process{name: name, cmd: exec.Command(program, args...), log: &tail{}, done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.all = append(ps.all, p)
	return p, nil
}

// kill ends the process as a power cut would, and waits for it.
func (p *process) kill() error {
	err := p.cmd.Process.Kill()
	<-p.done
	return err
}

// stop asks the process to end, and insists after ten seconds.
func (p *process) stop() error {
	select {
	case <-p.done:
		return nil
	default:
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(10 * time.Second):
		return errors.Join(fmt.Errorf("%s did not end within 10 s of SIGTERM", p.name), p.kill())
	}
}

// ended is an error if the process is not running any more.
func (p *process) ended() error {
	select {
	case <-p.done:
		return fmt.Errorf("%s has ended: %w", p.name, p.err)
	default:
		return nil
	}
}

func (ps *processes) stopAll() error {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	var err error
	for i := len(ps.all) - 1; i >= 0; i-- {
		err = errors.Join(err, ps.all[i].stop())
	}
	return err
}

// logs writes the last lines of every daemon, for when something went wrong.
func (ps *processes) logs(w io.Writer) error {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for _, p := range ps.all {
		if _, err := fmt.Fprintf(w, "\n--- %s ---\n%s", p.name, p.log); err != nil {
			return err
		}
	}
	return nil
}

// A tail keeps the end of what is written to it.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

const tailBytes = 8 << 10

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b...)
	if over := len(t.buf) - tailBytes; over > 0 {
		t.buf = t.buf[over:]
		if i := bytes.IndexByte(t.buf, '\n'); i >= 0 {
			t.buf = t.buf[i+1:]
		}
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf)
}

// poll asks ready every few milliseconds until it says yes, at most for a bound.
func poll(ctx context.Context, bound time.Duration, what string, ready func() (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, bound, fmt.Errorf("%s: not within %s", what, bound))
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := ready()
		if ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}
