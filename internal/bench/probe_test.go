package bench_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// status reads a field of /proc/PID/status that is given in KiB, and returns bytes.
func status(pid int, field string) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			kib, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 64)
			return kib * 1024, err
		}
	}
	return 0, fmt.Errorf("process %d has no %s", pid, field)
}

// resetPeak lets the kernel forget the most memory that a process has used.
func resetPeak(pid int) error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0)
}

// ticks per second of the times in /proc/PID/stat: USER_HZ, which is 100 on every architecture that Go runs on.
const ticks = 100

// cpuOf is the CPU time in seconds that a process has used, without its children.
func cpuOf(pid int) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	f := strings.Fields(rest)
	if len(f) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat: %q", pid, text)
	}
	user, err := strconv.ParseFloat(f[11], 64)
	system, err2 := strconv.ParseFloat(f[12], 64)
	return (user + system) / ticks, errors.Join(err, err2)
}

// traced runs f while strace writes down the system calls of a process and of what it starts, and returns the lines.
func (b *bench) traced(pid int, f func() error, options ...string) ([]string, error) {
	out := filepath.Join(b.TempDir(), "trace")
	argv := append([]string{"-f", "-qq", "-e", "signal=none", "-o", out, "-p", strconv.Itoa(pid)}, options...)
	cmd := exec.Command("strace", argv...)
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	err := attached(b.ctx, pid, cmd.Process.Pid)
	if err == nil {
		err = f()
	}
	cmd.Process.Signal(os.Interrupt) //nolint:errcheck // it may have ended, as Wait tells
	var exit *exec.ExitError
	if waitErr := cmd.Wait(); waitErr != nil && !errors.As(waitErr, &exit) {
		err = errors.Join(err, waitErr)
	}
	text, readErr := os.ReadFile(out)
	if err = errors.Join(err, readErr); err != nil {
		return nil, fmt.Errorf("strace: %w: %s", err, said.String())
	}
	return calls(string(text)), nil
}

// attached waits until every thread of a process is traced.
func attached(ctx context.Context, pid, tracer int) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 20*time.Second, errors.New("strace did not attach"))
	defer cancel()
	for {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
		all := err == nil && len(threads) > 0
		for _, t := range threads {
			text, err := os.ReadFile(t)
			all = all && err == nil && strings.Contains(string(text), fmt.Sprintf("TracerPid:\t%d\n", tracer))
		}
		if all {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// calls are the lines of a trace that begin a system call.
func calls(trace string) (all []string) {
	for line := range strings.Lines(trace) {
		if !strings.Contains(line, " resumed>") && strings.Contains(line, "(") {
			all = append(all, line)
		}
	}
	return all
}

// A doorman counts how often a file is opened, as by starting it. Several starts at the same moment may count as one.
type doorman struct{ fd int }

func watch(file string) (*doorman, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, err
	}
	if _, err := unix.InotifyAddWatch(fd, file, unix.IN_OPEN); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return &doorman{fd}, nil
}

func (d *doorman) close() error { return unix.Close(d.fd) }

// opened is how often since the last time.
func (d *doorman) opened() (n int, err error) {
	for buf := make([]byte, 64<<10); ; {
		got, err := unix.Read(d.fd, buf)
		if errors.Is(err, syscall.EAGAIN) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		n += got / unix.SizeofInotifyEvent
	}
}

// sleep waits as long, unless the bench is to end.
func (b *bench) sleep(d time.Duration) error {
	select {
	case <-b.ctx.Done():
		return context.Cause(b.ctx)
	case <-time.After(d):
		return nil
	}
}
