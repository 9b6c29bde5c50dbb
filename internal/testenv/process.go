package testenv

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A server is one process group that a test started: a daemon and what it forked.
type server struct {
	t       testing.TB
	argv    []string
	env     []string // beside that of the test
	logFile string
	limit   time.Duration // for starting and for ending; 10 s if zero
	ready   func() error
	session bool // it is to have a session of its own, as one does that would make one and cannot, being the first of its group

	cmd    *exec.Cmd
	exited chan struct{}
}

// started starts what create makes, until the end of the test. Another process may take the port first, so it is made anew, with another port, twice.
func started[S interface {
	start() error
	Kill()
}](t testing.TB, create func() S,
) (s S) {
	t.Helper()
	var err error
	for range 3 {
		s = create()
		if err = s.start(); err == nil {
			t.Cleanup(s.Kill)
			return s
		}
	}
	t.Fatal(err)
	return s
}

// start runs the server and waits until it is ready.
func (s *server) start() error {
	log, err := os.OpenFile(s.logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() //nolint:errcheck // the child has its own
	cmd := exec.Command(s.argv[0], s.argv[1:]...)
	cmd.Stdout, cmd.Stderr, cmd.Env = log, log, append(os.Environ(), s.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: !s.session, Setsid: s.session}
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	go func() {
		cmd.Wait() //nolint:errcheck // how it ended does not matter, that it ended does
		close(exited)
	}()
	s.cmd, s.exited = cmd, exited
	err = poll(s.bound(), func() error {
		select {
		case <-exited:
			return nil
		default:
			return s.ready()
		}
	})
	if err == nil && s.Running() {
		return nil
	}
	s.Kill()
	return errors.Join(err, fmt.Errorf("%s did not start: %s", s.argv[0], s.Log()))
}

// greets tells whether a server on a port of loopback begins with what such servers say first.
func greets(port int, greeting string) error {
	c, err := net.DialTimeout("tcp", fmt.Sprint("127.0.0.1:", port), time.Second)
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // nothing was written
	if err := c.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return err
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err == nil && !strings.HasPrefix(line, greeting) {
		err = fmt.Errorf("port %d answers %q", port, line)
	}
	return err
}

func (s *server) bound() time.Duration { return cmp.Or(s.limit, 10*time.Second) }

// Start runs the server again after Stop or Kill, on the same port.
func (s *server) Start() {
	s.t.Helper()
	if err := s.start(); err != nil {
		s.t.Fatal(err)
	}
}

// Running tells whether the server's main process is alive.
func (s *server) Running() bool {
	select {
	case <-s.exited:
		return false
	default:
		return true
	}
}

// PID is the process id of the server's main process.
func (s *server) PID() int { return s.cmd.Process.Pid }

// Stop asks the server and everything it forked to end and waits until they have.
func (s *server) Stop() { s.end(syscall.SIGTERM) }

// Kill ends the server and everything it forked with SIGKILL and waits until the server has ended.
func (s *server) Kill() { s.end(syscall.SIGKILL) }

func (s *server) end(sig syscall.Signal) {
	syscall.Kill(-s.PID(), syscall.SIGCONT) //nolint:errcheck // it may be gone already
	syscall.Kill(-s.PID(), sig)             //nolint:errcheck // it may be gone already
	select {
	case <-s.exited:
	case <-time.After(s.bound()):
		s.t.Errorf("%s did not end on %v", s.argv[0], sig)
	}
	gone := func() error {
		if err := syscall.Kill(-s.PID(), 0); !errors.Is(err, syscall.ESRCH) {
			return errors.New("something that it forked goes on")
		}
		return nil
	}
	if poll(forked, gone) != nil { // it may have the port, or a lock, that the next start needs
		syscall.Kill(-s.PID(), syscall.SIGKILL) //nolint:errcheck // it may be gone by now
		poll(forked, gone)                      //nolint:errcheck // nobody may fetch what is dead
	}
}

// forked is how long what a server forked may go on after it.
const forked = 2 * time.Second

// Children returns the process ids of those the server forked for its connections and that still run.
func (s *server) Children() []int {
	var pids []int
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", s.PID()))
	if err != nil {
		return nil
	}
	for _, f := range strings.Fields(string(text)) {
		if pid, err := strconv.Atoi(f); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// Log is what the server has written so far.
func (s *server) Log() string {
	text, err := os.ReadFile(s.logFile)
	if err != nil {
		return err.Error()
	}
	return string(text)
}
