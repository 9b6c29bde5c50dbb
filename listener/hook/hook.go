// Package hook runs an operator's command: hooks before and after a batch, and the work of package exec. The command runs in a process group of
// its own that ends with it, within a time limit, with an environment that holds what it is told and nothing secret of the agent's.
package hook

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// TryAgain is the exit status by which a command says that the same may work later (EX_TEMPFAIL of sysexits.h).
const TryAgain = 75

// A Command is what to run.
type Command struct {
	Argv    []string // never a shell's line
	Env     []string // beside PATH, HOME, LANG, LC_* and TZ of the agent
	Dir     string
	Stdin   io.Reader // nil for none
	Timeout time.Duration
	Log     *slog.Logger // gets each line of output
}

// An ExitError is a command that ran and did not succeed.
type ExitError struct {
	Command string
	Status  int    // -1 if a signal ended it
	Last    string // its last line of output
	Cause   error  // why it was killed, nil if it ended by itself
}

func (e *ExitError) Error() string {
	s := fmt.Sprintf("command %s: exit status %d", e.Command, e.Status)
	if e.Cause != nil {
		s = fmt.Sprintf("command %s: %v", e.Command, e.Cause)
	}
	if e.Last != "" {
		s += fmt.Sprintf(": %.200s", e.Last)
	}
	return s
}

func (e *ExitError) Unwrap() error { return e.Cause }

// ErrTimeout is the cause of a command that took too long.
var ErrTimeout = errors.New("took too long")

// Run runs the command and waits until it and all it started have ended. The error of one that ran is an *ExitError.
func (c Command) Run(ctx context.Context) error {
	if len(c.Argv) == 0 {
		return errors.New("command is empty")
	}
	if c.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, c.Timeout, fmt.Errorf("%w (limit %v)", ErrTimeout, c.Timeout))
		defer cancel()
	}
	cmd := exec.Command(c.Argv[0], c.Argv[1:]...)
	cmd.Env, cmd.Dir, cmd.Stdin = append(inherited(), c.Env...), c.Dir, c.Stdin
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = 2 * time.Second // for input that the command does not take and output that a stray child holds open
	out := newOutput(c.Log, c.Argv[0])
	cmd.Stdout, cmd.Stderr = out, out

	runtime.LockOSThread() // Pdeathsig is about the thread
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		return errors.Join(fmt.Errorf("command %s: %w", c.Argv[0], err), out.Close())
	}
	err := wait(ctx, cmd)
	return c.result(ctx, cmd, errors.Join(err, out.Close()), out.lastLine())
}

// wait waits for the command and kills its group: when ctx ends, and in any case once it has ended, so that nothing of it stays. The group is
// killed before the command is reaped; until then its id belongs to nobody else.
func wait(ctx context.Context, cmd *exec.Cmd) error {
	var killer sync.WaitGroup
	ended := make(chan struct{})
	killer.Go(func() {
		select {
		case <-ctx.Done():
		case <-ended:
		}
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) //nolint:errcheck // mostly there is nobody left
	})
	err := ignoreInterrupts(func() error { return unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil) })
	close(ended)
	killer.Wait()
	return errors.Join(err, cmd.Wait())
}

func ignoreInterrupts(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func (c Command) result(ctx context.Context, cmd *exec.Cmd, err error, last string) error {
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil && cmd.ProcessState != nil && !cmd.ProcessState.Success():
		return &ExitError{c.Argv[0], -1, last, context.Cause(ctx)}
	case errors.As(err, &exit):
		return &ExitError{c.Argv[0], exit.ExitCode(), last, nil}
	case errors.Is(err, syscall.EPIPE), errors.Is(err, exec.ErrWaitDelay):
		return nil // it succeeded without reading all it was given, or left somebody behind who is killed now
	case err != nil:
		return fmt.Errorf("command %s: %w", c.Argv[0], err)
	}
	return nil
}

// inherited is what a command gets of the agent's own environment.
func inherited() []string {
	var env []string
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		if name == "PATH" || name == "HOME" || name == "LANG" || name == "TZ" || strings.HasPrefix(name, "LC_") {
			env = append(env, kv)
		}
	}
	return env
}

// maxLine is the longest line of output that is kept whole.
const maxLine = 64 << 10

// An output cuts what a command prints into lines for the log.
type output struct {
	*io.PipeWriter
	done chan struct{}
	last string
}

func newOutput(log *slog.Logger, name string) *output {
	r, w := io.Pipe()
	o := &output{PipeWriter: w, done: make(chan struct{})}
	go func() {
		defer close(o.done)
		defer io.Copy(io.Discard, r) //nolint:errcheck // a pipe in memory
		lines := bufio.NewScanner(r)
		lines.Buffer(nil, maxLine)
		for lines.Scan() {
			o.last = strings.ToValidUTF8(lines.Text(), "?")
			if log != nil {
				log.Info("command says", "command", name, "line", o.last)
			}
		}
	}()
	return o
}

// Close ends the output and waits until its last line is logged.
func (o *output) Close() error {
	err := o.PipeWriter.Close()
	<-o.done
	return err
}

func (o *output) lastLine() string { return o.last }
