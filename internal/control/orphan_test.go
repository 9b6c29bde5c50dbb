package control_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/mirrorbus/mirrorbus/internal/control"
)

// orphanSocket is the environment variable that tells a child of TestListenReplacesTheSocketOfADeadProcessWithAChild where to listen.
const orphanSocket = "CONTROL_ORPHAN_SOCKET"

// leaveSocket listens, starts a program that holds the socket on, says which, and dies.
func leaveSocket(t *testing.T, path string) {
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := l.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sleep", "60")
	cmd.ExtraFiles = []*os.File{f}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	fmt.Println("child", cmd.Process.Pid)
	if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	select {}
}

// A daemon that is killed while it starts a program leaves a child that holds its socket. The next one does not take that for a daemon that answers.
func TestListenReplacesTheSocketOfADeadProcessWithAChild(t *testing.T) {
	if path := os.Getenv(orphanSocket); path != "" {
		leaveSocket(t, path)
	}
	path := filepath.Join(filepath.Dir(filepath.Dir(socket(t))), "s")
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), orphanSocket+"="+path)
	out, err := cmd.Output()
	_, pid, ok := strings.Cut(strings.TrimSpace(string(out)), "child ")
	child, numberErr := strconv.Atoi(pid)
	if err == nil || !ok || numberErr != nil {
		t.Fatalf("%v: %s", err, out)
	}
	defer syscall.Kill(child, syscall.SIGKILL) //nolint:errcheck // it ends by itself
	if c, err := net.Dial("unix", path); err != nil {
		t.Fatalf("the child does not hold the socket: %v", err)
	} else if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := control.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}
