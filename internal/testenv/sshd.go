package testenv

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
)

// An SSHD is a running OpenSSH server that lets the user of the test in with one key.
type SSHD struct {
	server
	Port       int
	User       string
	KeyFile    string // the private key that is let in
	KnownHosts string // file with the server's host key
}

// StartSSHD starts an OpenSSH server. forceCommand, if not empty, is what it runs whatever the client asks for; extra are further lines of
// its configuration.
func StartSSHD(t testing.TB, forceCommand string, extra ...string) *SSHD {
	t.Helper()
	sshd := Need(t, "sshd", "ssh", "ssh-keygen")
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	if !mayLogIn(me.Username) {
		Missing(t, "user "+me.Username+" has no login shell")
	}
	if os.Geteuid() == 0 { // where sshd started by root keeps its privilege separation; made by its service elsewhere
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return started(t, func() *SSHD { return newSSHD(t, sshd, me.Username, forceCommand, extra) })
}

// mayLogIn tells whether /etc/passwd gives the user a shell. One who is not in there comes from elsewhere and is taken to have one.
func mayLogIn(name string) bool {
	passwd, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return true
	}
	for line := range strings.Lines(string(passwd)) {
		if strings.HasPrefix(line, name+":") {
			line = strings.TrimSpace(line)
			return !strings.HasSuffix(line, "/nologin") && !strings.HasSuffix(line, "/false")
		}
	}
	return true
}

func newSSHD(t testing.TB, sshd, name, forceCommand string, extra []string) *SSHD {
	t.Helper()
	dir, port := t.TempDir(), FreePort(t)
	s := &SSHD{Port: port, User: name, KeyFile: filepath.Join(dir, "user"), KnownHosts: filepath.Join(dir, "known_hosts")}
	hostKey := filepath.Join(dir, "host")
	userPub, hostPub := keygen(t, s.KeyFile), keygen(t, hostKey)
	writeFile(t, filepath.Join(dir, "authorized_keys"), userPub)
	writeFile(t, s.KnownHosts, fmt.Sprintf("[127.0.0.1]:%d %s", port, hostPub))
	lines := []string{
		fmt.Sprint("Port ", port), "ListenAddress 127.0.0.1", "HostKey " + hostKey, "PidFile none", "AuthorizedKeysFile " + dir + "/authorized_keys",
		"StrictModes no", "PasswordAuthentication no", "KbdInteractiveAuthentication no", "PermitRootLogin prohibit-password", "PrintMotd no",
		"MaxStartups 200:30:300", "MaxSessions 200",
	}
	if forceCommand != "" {
		lines = append(lines, "ForceCommand "+forceCommand)
	}
	conf := filepath.Join(dir, "sshd_config")
	writeFile(t, conf, strings.Join(append(lines, extra...), "\n")+"\n")
	s.server = server{t: t, argv: []string{sshd, "-D", "-e", "-f", conf}, logFile: filepath.Join(dir, "log"), ready: func() error { return greets(s.Port, "SSH-2.0-") }}
	return s
}

// keygen makes a key pair without passphrase and returns the public line.
func keygen(t testing.TB, file string) string {
	t.Helper()
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", file).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v: %s", err, out)
	}
	line, err := os.ReadFile(file + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	return string(line)
}

// Shell returns the ssh command that reaches the server, without the host name.
func (s *SSHD) Shell() []string {
	return []string{
		"ssh", "-F", "none", "-p", fmt.Sprint(s.Port), "-i", s.KeyFile, "-l", s.User, "-oBatchMode=yes", "-oIdentitiesOnly=yes",
		"-oStrictHostKeyChecking=yes", "-oUserKnownHostsFile=" + s.KnownHosts, "-oGlobalKnownHostsFile=/dev/null",
	}
}
