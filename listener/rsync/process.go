package rsync

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrorbus/mirrorbus/internal/failpoint"
)

// How long processes that were told to end may take, and how long those that the main one left behind.
const (
	grace      = 5 * time.Second
	stragglers = 2 * time.Second
	maxLine    = 1 << 16 // bytes; the longest name is 4,095, five times that when escaped
)

var errStalled = errors.New("no bytes arrived")

// A command is one program to run to its end, with everything it starts.
type command struct {
	argv   []string
	env    []string
	list   []byte   // its standard input
	lock   *os.File // inherited: whatever survives keeps the lock; nil for none
	stdout func(line string) error
	stderr func(line string)
	stall  time.Duration    // end it when it has not read a byte for so long; 0 means never
	tick   func(read int64) // called while it runs, nil for none
}

// run starts the command in a session of its own, without a terminal, and returns its exit status once every process of it has ended.
// The status is -1 if it was killed or did not start; the error then says why.
func (c *command) run(ctx context.Context) (status int, err error) {
	// The kernel sends Pdeathsig when the thread that started the child ends, so this one must stay until the child has.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	cmd := &exec.Cmd{Args: c.argv, Env: c.env, SysProcAttr: &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGTERM}}
	if cmd.Path, err = exec.LookPath(c.argv[0]); err != nil {
		return -1, err
	}
	stdin, err := memoryFile(c.list)
	if err != nil {
		return -1, err
	}
	defer stdin.Close() //nolint:errcheck // only read from
	cmd.Stdin = stdin
	if c.lock != nil {
		cmd.ExtraFiles = []*os.File{c.lock}
	}
	out, errs, err := start(cmd)
	if err != nil {
		return -1, err
	}
	defer out.Close()  //nolint:errcheck // only read from
	defer errs.Close() //nolint:errcheck // only read from

	failpoint.Here("rsync.started")
	var readers, watcher sync.WaitGroup
	readers.Go(func() { lines(out, c.stdout, end) })
	readers.Go(func() { lines(errs, func(l string) error { c.stderr(l); return nil }, end) })
	ended := make(chan struct{})
	watcher.Go(func() { c.watch(ctx, end, cmd.Process.Pid, ended) })

	waitErr := await(cmd.Process.Pid)
	close(ended)
	watcher.Wait() // before the process is reaped and its id can be another's
	sweep(cmd.Process.Pid, &readers, out, errs)
	err = errors.Join(waitErr, ignoreExit(cmd.Wait()))
	if cause := context.Cause(ctx); cause != nil {
		return -1, cause
	}
	return cmd.ProcessState.ExitCode(), err
}

// start starts cmd and returns the reading ends of its two outputs.
func start(cmd *exec.Cmd) (out, errs *os.File, err error) {
	out, outW, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	errs, errW, err := os.Pipe()
	if err != nil {
		return nil, nil, errors.Join(err, out.Close(), outW.Close())
	}
	cmd.Stdout, cmd.Stderr = outW, errW
	err = cmd.Start()
	if closing := errors.Join(outW.Close(), errW.Close()); err != nil || closing != nil {
		return nil, nil, errors.Join(err, closing, out.Close(), errs.Close())
	}
	return out, errs, nil
}

// await blocks until the process has ended, without reaping it: until it is reaped, its id and that of its group belong to nobody else.
func await(pid int) error {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// sweep waits until nobody holds the outputs any more, that is until every process of the group has ended, and kills those that stay.
func sweep(pid int, readers *sync.WaitGroup, outputs ...*os.File) {
	done := make(chan struct{})
	go func() { readers.Wait(); close(done) }()
	defer func() { <-done }()
	select {
	case <-done:
		return
	case <-time.After(stragglers):
	}
	signalGroup(pid, syscall.SIGKILL)
	deadline := time.Now().Add(stragglers)
	for _, f := range outputs { // something that left the group, such as a shared ssh connection, may hold them for ever
		if err := f.SetReadDeadline(deadline); err != nil {
			f.Close() //nolint:errcheck // ends the reader all the same
		}
	}
}

// watch ends the group when ctx is done or no byte has been read for too long.
func (c *command) watch(ctx context.Context, end context.CancelCauseFunc, pid int, ended <-chan struct{}) {
	interval := time.Second
	if c.stall > 0 {
		interval = min(max(c.stall/10, 20*time.Millisecond), interval)
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	var last int64
	since := time.Now()
	for {
		select {
		case <-ended:
			return
		case <-ctx.Done():
			terminate(pid, ended)
			return
		case now := <-ticker.C:
			read, known := bytesRead(pid)
			if read != last || !known {
				last, since = read, now
			}
			if c.tick != nil {
				c.tick(read)
			}
			if c.stall > 0 && now.Sub(since) > c.stall {
				end(fmt.Errorf("%w for %v", errStalled, c.stall))
			}
		}
	}
}

// terminate asks the group to end, so that it removes its temporary files, and kills it after a while.
func terminate(pid int, ended <-chan struct{}) {
	signalGroup(pid, syscall.SIGTERM)
	signalGroup(pid, syscall.SIGCONT)
	select {
	case <-ended:
	case <-time.After(grace):
		signalGroup(pid, syscall.SIGKILL)
	}
}

func signalGroup(pid int, sig syscall.Signal) {
	syscall.Kill(-pid, sig) //nolint:errcheck // ESRCH: it has ended
}

// lines hands each line of r to f. At f's first error, or a line without end, it calls fail and from then on only reads, so that the writer
// is not held up while it ends.
func lines(r io.Reader, f func(string) error, fail context.CancelCauseFunc) {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 4096), maxLine)
	for s.Scan() {
		if err := f(s.Text()); err != nil {
			fail(err)
			drain(r, fail)
			return
		}
	}
	if err := s.Err(); err != nil && !closed(err) {
		fail(fmt.Errorf("reading what rsync prints: %w", err))
		drain(r, fail)
	}
}

func drain(r io.Reader, fail context.CancelCauseFunc) {
	if _, err := io.Copy(io.Discard, r); err != nil && !closed(err) {
		fail(err)
	}
}

// closed tells whether reading ended because sweep had waited long enough.
func closed(err error) bool {
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, os.ErrClosed)
}

func ignoreExit(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return nil
	}
	return err
}

// memoryFile returns a file without a name that holds b: a list that is complete before its reader starts and needs no room on a disk.
func memoryFile(b []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("mirrorbus-list", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("list in memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), "list")
	if _, err = f.Write(b); err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("list in memory: %w", err), f.Close())
	}
	return f, nil
}
