package hub_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
)

// stock returns the stock OpenSSH client with args before the host and command after it.
func (s *server) stock(ctx context.Context, name string, args []string, command ...string) *exec.Cmd {
	s.rig.t.Helper()
	program := testenv.Need(s.rig.t, "ssh")
	s.rig.key(name)
	host, port, err := net.SplitHostPort(s.Addr().String())
	must(s.rig.t, err)
	known := filepath.Join(s.rig.dir, "known_hosts")
	must(s.rig.t, os.WriteFile(known, []byte(knownhosts.Line([]string{s.Addr().String()}, s.rig.host.PublicKey())+"\n"), 0o600))
	all := []string{
		"-F", "none", "-p", port, "-i", s.rig.keyFile(name), "-oBatchMode=yes", "-oIdentitiesOnly=yes", "-oIdentityAgent=none",
		"-oUserKnownHostsFile=" + known, "-oGlobalKnownHostsFile=/dev/null", "-oStrictHostKeyChecking=yes",
	}
	all = append(append(all, args...), "mirrorbus@"+host)
	return exec.CommandContext(ctx, program, append(all, command...)...)
}

// stockOutput runs the stock client to its end.
func (s *server) stockOutput(t *testing.T, input string, args []string, command ...string) (output string, status int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	cmd := s.stock(ctx, "mirror", args, command...)
	cmd.Stdin = strings.NewReader(input)
	out, _ := cmd.CombinedOutput() //nolint:errcheck // the status tells
	if ctx.Err() != nil {
		t.Fatalf("ssh %v has not ended: %s", command, out)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

func TestStockClientSubscribes(t *testing.T) {
	s := newRig(t).serve()
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	cmd := s.stock(ctx, "mirror", nil, "subscribe", "v1", "announce/debian") // standard input is at its end from the start
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	lines := bufio.NewReader(out)
	expect(t, lines, "ready 20000\n")
	s.publish(t, msg(debian, "m1", "hello\nmirror"))
	expect(t, lines, "msg m1 announce/debian 12\nhello\nmirror\n")
	must(t, cmd.Process.Kill())
	cmd.Wait() //nolint:errcheck // it was killed
	await(t, "end of the connection", func() bool { return len(s.Peers()) == 0 })
}

func expect(t testing.TB, r io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(r, got); err != nil || string(got) != want {
		t.Fatalf("read %q, %v, want %q", got[:n], err, want)
	}
}

func TestStockClientCommands(t *testing.T) {
	r := newRig(t)
	s := r.serve()
	tests := []struct {
		name, input, command string
		want                 string // what the output begins with
		status               int
	}{
		{"ping", "", "ping", "pong\n", 0},
		{"help", "", "help", "usage: subscribe v1", 0},
		{"publish", "msg r1 report/debian 2\nok\n", "publish v1", "ok r1\n", 0},
		{"publish on a topic nobody takes", "msg r2 announce/debian 2\nok\n", "publish v1", "err r2 nobody here takes announce/debian\n", 0},
		{"publish without the newline", "msg r3 report/debian 2\nokay\n", "publish v1", "mirrorbus hub: not the hub protocol: no newline", 65},
		{"publish cut short", "msg r3 report/debian 20\nok", "publish v1", "mirrorbus hub: unexpected EOF", 65},
		{"publish of an unknown version", "", "publish v2", `mirrorbus hub: command "publish v2" is not known`, 64},
		{"subscribe to a bad module", "", "subscribe v1 announce/Debian", "mirrorbus hub: subscribe: module name", 64},
		{"subscribe to a bad kind", "", "subscribe v1 gossip/debian", "mirrorbus hub: subscribe: topic", 64},
		{"subscribe twice", "", "subscribe v1 announce/a announce/a", "mirrorbus hub: subscribe: topic announce/a is named twice", 64},
		{"subscribe with a bad escape", "", "subscribe v1 announce/a@%zz", "mirrorbus hub: subscribe: position on announce/a", 64},
		{"a shell command", "", "ls -l; id", `mirrorbus hub: command "ls -l; id" is not known`, 64},
		{"an empty command", "", " ", `mirrorbus hub: command " " is not known`, 64},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out, status := s.stockOutput(t, tt.input, nil, tt.command)
			if !strings.HasPrefix(out, tt.want) || status != tt.status {
				t.Errorf("status %d, output %q; want %d and %q…", status, out, tt.status, tt.want)
			}
		})
	}
	if got := s.ids(); len(got) != 1 || got[0] != "r1" {
		t.Errorf("received %v, want r1 alone", got)
	}
}

func TestStockClientGetsNothingElse(t *testing.T) {
	r := newRig(t)
	r.conf.WriteTimeout = span(time.Second)
	s := r.serve()
	tests := []struct {
		name    string
		args    []string
		command []string
		want    string
	}{
		{"shell", nil, nil, "shell request failed on channel 0"},
		{"shell with a terminal", []string{"-tt"}, nil, "PTY allocation request failed on channel 0"},
		{"sftp subsystem", []string{"-s"}, []string{"sftp"}, "subsystem request failed on channel 0"},
		{"remote forwarding", []string{"-N", "-oExitOnForwardFailure=yes", "-R", "0:127.0.0.1:1"}, nil, "remote port forwarding failed"},
		{"stdio forwarding", []string{"-W", s.Addr().String()}, nil, "administratively prohibited: the hub opens sessions and nothing else"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out, status := s.stockOutput(t, "", tt.args, tt.command...)
			if status != 255 || !strings.Contains(out, tt.want) {
				t.Errorf("status %d, output %q; want 255 and %q", status, out, tt.want)
			}
		})
	}
	t.Run("environment beside a command", func(t *testing.T) {
		out, status := s.stockOutput(t, "", []string{"-oSetEnv=A=1"}, "ping")
		if status != 0 || !strings.Contains(out, "pong\n") {
			t.Errorf("status %d, output %q", status, out)
		}
	})
}

func TestStockClientLocalForwardingReachesNothing(t *testing.T) {
	s := newRig(t).serve()
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	target, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer target.Close() //nolint:errcheck // it was only listening
	reached := make(chan struct{})
	go func() {
		if c, err := target.Accept(); err == nil {
			close(reached)
			c.Close() //nolint:errcheck // nothing was written
		}
	}()
	port := testenv.FreePort(t)
	cmd := s.stock(ctx, "mirror", []string{"-L", fmt.Sprintf("%d:%s", port, target.Addr())}, "subscribe", "v1", "announce/debian")
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	defer func() {
		cancel()
		cmd.Wait() //nolint:errcheck // it was killed
	}()
	expect(t, bufio.NewReader(out), "ready 20000\n")
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	must(t, err)
	defer c.Close() //nolint:errcheck // nothing was written
	must(t, c.SetDeadline(time.Now().Add(bound)))
	if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("read %d bytes through the forwarding", n)
	}
	select {
	case <-reached:
		t.Error("the forwarding reached its target")
	default:
	}
}
