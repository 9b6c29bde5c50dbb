// Package testenv starts real servers for tests: rsync daemons, SSH, IRC and mail servers, message brokers. It also builds trees and compares them.
//
// A test says what it needs with [Need]. A missing program skips the test with one line, or fails it where MIRRORBUS_REQUIRE_ALL=1 says that
// this machine is meant to have everything. Every server listens on a free port of 127.0.0.1, keeps its files in t.TempDir and has ended when
// the test has.
package testenv

import (
	"os"
	"os/exec"
	"testing"
	"time"
)

// RequireAll is the environment variable that turns the skips of [Need] into failures when it is "1".
const RequireAll = "MIRRORBUS_REQUIRE_ALL"

// Need skips the test unless each program can be found: on PATH, or in the sbin folders that an ordinary user's PATH leaves out.
// It returns the path of the first.
func Need(t testing.TB, programs ...string) string {
	t.Helper()
	first := ""
	for _, name := range programs {
		path, ok := find(name)
		if !ok {
			Missing(t, "program "+name+" is not installed")
		}
		if first == "" {
			first = path
		}
	}
	return first
}

func find(name string) (string, bool) {
	for _, try := range []string{name, "/usr/sbin/" + name, "/usr/local/sbin/" + name, "/sbin/" + name} {
		if path, err := exec.LookPath(try); err == nil {
			return path, true
		}
	}
	return "", false
}

// NeedRoot skips the test unless it runs as root.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		Unable(t, "needs root")
	}
}

// Unable skips the test because of what this user, kernel or container may not do: no set-up could change that.
func Unable(t testing.TB, what string) {
	t.Helper()
	t.Skip("NOT TESTED HERE, " + what)
}

// Missing skips the test because of what, or fails it where everything is required.
func Missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv(RequireAll) == "1" {
		t.Fatalf("%s, and %s=1", what, RequireAll)
	}
	t.Skip(what)
}

// WaitFor calls f every few milliseconds until it returns nil, and fails the test with f's last error after bound.
func WaitFor(t testing.TB, bound time.Duration, f func() error) {
	t.Helper()
	if err := poll(bound, f); err != nil {
		t.Fatalf("still not after %v: %v", bound, err)
	}
}

func poll(bound time.Duration, f func() error) error {
	deadline := time.Now().Add(bound)
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		err := f()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(pause)
	}
}
