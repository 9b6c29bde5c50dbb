package testenv

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// The ports of tests lie below those that systems give to outgoing connections.
const (
	firstPort = 12_000
	ports     = 20_000
)

// FreePort returns a TCP port of 127.0.0.1 that nobody listens on, and that no other test gets for as long as this process runs: a server that is killed and
// started again finds it free. Test processes agree on that by locks on files.
func FreePort(t testing.TB) int {
	t.Helper()
	dir := filepath.Join(os.TempDir(), fmt.Sprint("mirrorbus-ports-", os.Getuid()))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for range 1000 {
		port := firstPort + rand.N(ports)
		free, err := reserve(filepath.Join(dir, fmt.Sprint(port)), port)
		if err != nil {
			t.Fatal(err)
		}
		if free {
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}

// reserve keeps the lock until the process ends, if the port is free.
func reserve(name string, port int) (free bool, err error) {
	lock, err := syscall.Open(name, syscall.O_CREAT|syscall.O_RDWR|syscall.O_CLOEXEC, 0o600) // not an os.File, which would be closed once nobody has it any more
	if err != nil {
		return false, fmt.Errorf("reserve port %d: %w", port, err)
	}
	if err := syscall.Flock(lock, syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		err = errors.Join(ignore(err, syscall.EWOULDBLOCK), syscall.Close(lock))
		return false, err
	}
	l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", port))
	if err != nil {
		return false, syscall.Close(lock) // somebody who is no test listens there
	}
	return true, l.Close()
}

func ignore(err, unless error) error {
	if errors.Is(err, unless) {
		return nil
	}
	return err
}
