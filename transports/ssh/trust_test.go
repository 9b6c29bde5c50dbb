package ssh_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/transports/ssh"
)

// run runs a program that has to succeed.
func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(testenv.Need(t, name), args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v: %s", name, args, err, out)
	}
}

// startAgent runs a real ssh-agent, as SSH_AUTH_SOCK, until the test ends.
func startAgent(t *testing.T) {
	t.Helper()
	dir, err := os.MkdirTemp("", "mb") // a UNIX socket's path must be short
	must(t, err)
	socket := filepath.Join(dir, "agent")
	cmd := exec.Command(testenv.Need(t, "ssh-agent", "ssh-add"), "-D", "-a", socket)
	must(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Kill() //nolint:errcheck // it may have ended
		cmd.Wait()         //nolint:errcheck // how it ended does not matter
		must(t, os.RemoveAll(dir))
	})
	testenv.WaitFor(t, bound, func() error { _, err := os.Stat(socket); return err })
	t.Setenv("SSH_AUTH_SOCK", socket)
}

// byAgent calls a mirror with what the agent holds and no key of its own.
func byAgent(c *ssh.MasterConfig) {
	c.Agent = true
	for i := range c.Mirrors {
		c.Mirrors[i].Keys = nil
	}
}

// The private key is in ssh-agent alone.
func TestAKeyInSSHAgent(t *testing.T) {
	r := newRig(t)
	startAgent(t)
	run(t, "ssh-add", "-q", r.keyFile("one"))
	must(t, os.Remove(r.keyFile("one")))
	one := r.mirror("one")
	m := r.master([]string{"one"}, byAgent)
	one.isConnected(1)
	must(t, m.transport.Publish(t.Context(), msg(debian, "a")))
	one.has("a")
}

// The agent holds a certificate too, and only that is let in.
func TestACertificateInSSHAgent(t *testing.T) {
	r := newRig(t)
	r.keys = []string{fmt.Sprintf(`cert-authority,principals="%s",%s`, r.sshd.User, r.keys[slices.Index(names, "one")])}
	r.writeKeys()
	key := r.strangerKey()
	r.certify(key, r.keyFile("one"))
	startAgent(t)
	run(t, "ssh-add", "-q", key)
	one := r.mirror("one")
	m := r.master([]string{"one"}, byAgent)
	one.isConnected(1)
	must(t, m.transport.Publish(t.Context(), msg(debian, "a")))
	one.has("a")
}

// An agent that holds no key that is let in, and one that is not there, are told of.
func TestAnSSHAgentThatDoesNotHelp(t *testing.T) {
	r := newRig(t)
	startAgent(t)
	run(t, "ssh-add", "-q", r.strangerKey())
	r.master([]string{"one"}, byAgent).logs("lets in none of our keys")
	t.Setenv("SSH_AUTH_SOCK", filepath.Join(t.TempDir(), "nobody"))
	r.master([]string{"one"}, byAgent).logs("is SSH_AUTH_SOCK set for the daemon?")
}

// certifiedRig has an sshd whose host key an authority has signed for a name.
func certifiedRig(t *testing.T, principal string) (r *rig, authority string) {
	t.Helper()
	dir := t.TempDir()
	host, authority := filepath.Join(dir, "host"), filepath.Join(dir, "authority")
	run(t, "ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", host)
	run(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", authority)
	run(t, "ssh-keygen", "-q", "-s", authority, "-I", "host", "-h", "-n", principal, host+".pub")
	r = &rig{t: t, dir: t.TempDir(), sshd: testenv.StartSSHD(t, "", "HostKey "+host, "HostCertificate "+host+"-cert.pub")}
	r.letIn("one")
	return r, authority
}

// trusts writes a file of known hosts with an authority for what a pattern holds.
func trusts(t *testing.T, authority, pattern string) func(*ssh.MasterConfig) {
	t.Helper()
	key, err := os.ReadFile(authority + ".pub")
	must(t, err)
	file := filepath.Join(t.TempDir(), "known_hosts")
	must(t, os.WriteFile(file, []byte("@cert-authority "+pattern+" "+string(key)), 0o600))
	return func(c *ssh.MasterConfig) {
		c.KnownHosts, c.RetryMax = config.Path(file), config.Duration{Duration: 200 * time.Millisecond}
	}
}

// The mirrors' host keys are not known one by one: an authority has signed them.
func TestAHostKeySignedByAnAuthority(t *testing.T) {
	r, authority := certifiedRig(t, "127.0.0.1")
	one := r.mirror("one")
	m := r.master([]string{"one"}, trusts(t, authority, fmt.Sprintf("[127.0.0.1]:%d", r.sshd.Port)))
	one.isConnected(1)
	must(t, m.transport.Publish(t.Context(), msg(debian, "a")))
	one.has("a")
}

// Another host's certificate, another authority's, and that of an authority which speaks for other hosts are refused before any key is shown.
func TestHostKeysThatNoAuthorityHasSigned(t *testing.T) {
	for name, c := range map[string]struct {
		principal, pattern string
		other              bool
		says               string
	}{
		"for another host":               {"mirror9.example.org", "*", false, "shows another host key than expected"},
		"by another authority":           {"127.0.0.1", "*", true, "shows another host key than expected"},
		"by an authority of other hosts": {"127.0.0.1", "*.example.org", false, "has no key for"},
	} {
		t.Run(name, func(t *testing.T) {
			r, authority := certifiedRig(t, c.principal)
			if c.other {
				authority = filepath.Join(t.TempDir(), "another")
				run(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", authority)
			}
			r.mirror("one")
			m := r.master([]string{"one"}, trusts(t, authority, c.pattern))
			m.logs(c.says)
			if log := r.sshd.Log(); strings.Contains(log, "Accepted") {
				t.Errorf("sshd let the master in:\n%s", log)
			}
		})
	}
}
