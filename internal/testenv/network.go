package testenv

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// inNetwork is set in the process that has a network of its own.
const inNetwork = "MIRRORBUS_TEST_NETWORK"

// A Network is a network of the test's own, in which packets can be lost and slowed down. It has 127.0.0.1 and nothing else.
type Network struct{ t testing.TB }

// OwnNetwork runs the test again in a network namespace of its own and returns true there. Where it returns false the test has been run, and is to
// return. It needs ip, tc and nft, and root; without them the test is skipped.
//
//	net, ok := testenv.OwnNetwork(t)
//	if !ok {
//		return
//	}
func OwnNetwork(t *testing.T) (*Network, bool) {
	t.Helper()
	n := &Network{t}
	if os.Getenv(inNetwork) != "" {
		// Small packets, as on a real wire: one lost packet of 64 KiB would be half a transfer.
		n.run("ip", "link", "set", "lo", "mtu", "1500", "up")
		n.run("nft", "add table inet faults; add chain inet faults in { type filter hook input priority 0; }")
		return n, true
	}
	Need(t, "ip", "tc", "nft")
	if os.Geteuid() != 0 {
		t.Skip("only root may make network namespaces")
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+strings.ReplaceAll(t.Name(), "/", "$/^")+"$", "-test.v", "-test.timeout=5m")
	cmd.Env = append(os.Environ(), inNetwork+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	out, err := cmd.CombinedOutput()
	switch {
	case errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EINVAL):
		Unable(t, "this kernel or container makes no network namespaces: "+err.Error())
	case err != nil:
		t.Fatalf("in a network of its own: %v\n%s", err, out)
	case strings.Contains(string(out), "--- SKIP: "):
		t.Skipf("in a network of its own:\n%s", out)
	}
	t.Logf("in a network of its own:\n%s", out)
	return nil, false
}

// run runs a program; a name that is missing in the kernel skips the test.
func (n *Network) run(program string, args ...string) {
	n.t.Helper()
	path, ok := find(program)
	if !ok {
		Missing(n.t, "program "+program+" is not installed")
	}
	if out, err := exec.Command(path, args...).CombinedOutput(); err != nil {
		Unable(n.t, fmt.Sprintf("%s %s: %v: %s", program, strings.Join(args, " "), err, out))
	}
}

// Lose drops so many of a hundred packets to or from the port, at random.
func (n *Network) Lose(percent, port int) {
	n.t.Helper()
	n.drop(port, fmt.Sprintf("numgen random mod 100 < %d drop", percent))
}

// Silence drops every packet to or from the port: no answer, no reset, as from a host that has lost its power.
func (n *Network) Silence(port int) { n.t.Helper(); n.drop(port, "drop") }

func (n *Network) drop(port int, which string) {
	n.t.Helper()
	for _, side := range []string{"sport", "dport"} {
		n.run("nft", fmt.Sprintf("add rule inet faults in tcp %s %d %s", side, port, which))
	}
}

// Heal drops nothing any more.
func (n *Network) Heal() { n.t.Helper(); n.run("nft", "flush chain inet faults in") }

// Slow lets through so many kilobits each second.
func (n *Network) Slow(kbit int) {
	n.t.Helper()
	n.run("tc", "qdisc", "add", "dev", "lo", "root", "tbf", "rate", fmt.Sprint(kbit, "kbit"), "burst", "16kb", "latency", "1s")
}
