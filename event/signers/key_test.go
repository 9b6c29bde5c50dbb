package signers_test

import (
	"bytes"
	"errors"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/mirrorbus/mirrorbus/event/signers"
	"github.com/mirrorbus/mirrorbus/event/sshsig"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
)

func TestLoadSigner(t *testing.T) {
	for name, args := range map[string][]string{
		"ed25519": {"-t", "ed25519"}, "ecdsa": {"-t", "ecdsa"}, "rsa": {"-t", "rsa", "-b", "2048"}, "rsa in PEM": {"-t", "rsa", "-b", "2048", "-m", "PEM"},
	} {
		t.Run(name, func(t *testing.T) {
			key := newKey(t, args...)
			signer, err := signers.OpenSigner(key.path, "")
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(signer.PublicKey().Marshal(), key.key(t).Marshal()) {
				t.Error("another key")
			}
			if _, err := sshsig.Sign(signer, announce, message); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestKeyFileRefused also checks that no error shows what is in the file.
func TestKeyFileRefused(t *testing.T) {
	dir := t.TempDir()
	good := newKey(t)
	body := strings.Split(string(read(t, good.path)), "\n")[2]
	locked := filepath.Join(dir, "locked")
	keygen(t, "-q", "-t", "ed25519", "-N", "a passphrase", "-f", locked)
	file := func(name, text string, mode os.FileMode) string {
		path := write(t, filepath.Join(dir, name), []byte(text))
		check(t, os.Chmod(path, mode))
		return path
	}
	text := string(read(t, good.path))
	for _, c := range []struct{ name, path, want string }{
		{"missing", filepath.Join(dir, "none"), "no such file"},
		{"folder", dir, "regular file"},
		{"readable by others", file("others", text, 0o604), "chmod 600 "},
		{"readable by group", file("group", text, 0o640), "chmod 600 "},
		{"with a passphrase", locked, "ssh-add "},
		{"public key", file("public", good.public, 0o600), "is a public key"},
		{"empty", file("empty", "", 0o600), "ssh-keygen -t ed25519"},
		{"damaged", file("damaged", strings.Replace(text, body, body[1:], 1), 0o600), "ssh-keygen -t ed25519"},
		{"large", file("large", text+strings.Repeat("\n", 1<<17), 0o600), "at most"},
		{"public key that is none", file("private.pub", text, 0o600), "not a public key"},
	} {
		s, err := signers.OpenSigner(c.path, filepath.Join(dir, "no agent"))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, %v; should say %q", c.name, s, err, c.want)
			continue
		}
		if strings.Contains(err.Error(), body) || strings.Contains(err.Error(), body[1:]) {
			t.Errorf("%s: the error shows the key: %v", c.name, err)
		}
	}
	if _, err := signers.LoadSigner(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
}

// startAgent starts ssh-agent on a socket and ends it with the test.
func startAgent(t *testing.T, socket string) (stop func()) {
	t.Helper()
	cmd := exec.Command(testenv.Need(t, "ssh-agent", "ssh-add"), "-D", "-a", socket)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = func() {
		_ = cmd.Process.Kill() // or it has ended
		_ = cmd.Wait()         // killed: always an error
	}
	t.Cleanup(stop)
	testenv.WaitFor(t, 10*time.Second, func() error {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			return err
		}
		return conn.Close()
	})
	return stop
}

func addKey(t *testing.T, socket, path string) {
	t.Helper()
	cmd := exec.Command("ssh-add", "-q", path)
	cmd.Env = append(os.Environ(), "SSH_AUTH_SOCK="+socket)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("ssh-add: %v\n%s", err, out)
	}
}

// socketPath is short enough for a socket wherever the test runs.
func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "agent")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { check(t, os.RemoveAll(dir)) })
	return filepath.Join(dir, "s")
}

func TestAgentSigner(t *testing.T) {
	socket := socketPath(t)
	stop := startAgent(t, socket)
	ca := newKey(t)
	plain := map[string]keyFile{"ed25519": newKey(t), "ecdsa": newKey(t, "-t", "ecdsa"), "rsa": newKey(t, "-t", "rsa", "-b", "2048")}
	keys := maps.Clone(plain)
	for name, k := range plain {
		addKey(t, socket, k.path) // the plain key only: it was not certified yet
		keys[name+" certificate"] = k.certify(t, ca, "-I", "id", "-n", "mirror1")
	}
	held := newKey(t)
	keys["certificate in the agent"] = held.certify(t, ca, "-I", "id", "-n", "mirror1")
	addKey(t, socket, held.path)

	var last ssh.Signer
	for name, k := range keys {
		pub := k.path
		if !strings.HasSuffix(pub, ".pub") {
			pub += ".pub"
		}
		signer, err := signers.OpenSigner(pub, socket)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		sig, err := sshsig.Sign(signer, announce, message)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !bytes.Equal(sig.Key.Marshal(), k.key(t).Marshal()) {
			t.Errorf("%s: signed as %s", name, sig.Key.Type())
		}
		last = signer
	}

	stranger := newKey(t)
	if _, err := signers.OpenSigner(stranger.path+".pub", socket); err == nil || !strings.Contains(err.Error(), "ssh-add") {
		t.Errorf("a key that the agent lacks: %v", err)
	}
	if _, err := signers.OpenSigner(stranger.path+".pub", ""); err == nil || !strings.Contains(err.Error(), "SSH_AUTH_SOCK") {
		t.Errorf("no socket: %v", err)
	}
	stop()
	if _, err := sshsig.Sign(last, announce, message); err == nil || !strings.Contains(err.Error(), "ssh-agent") {
		t.Errorf("agent gone: %v", err)
	}
}

// TestAgentSignerOutlivesTheAgent restarts the agent under a signer.
func TestAgentSignerOutlivesTheAgent(t *testing.T) {
	socket, key := socketPath(t), newKey(t)
	stop := startAgent(t, socket)
	addKey(t, socket, key.path)
	signer, err := signers.AgentSigner(socket, key.key(t))
	if err != nil {
		t.Fatal(err)
	}
	stop()
	check(t, os.Remove(socket))
	startAgent(t, socket)
	addKey(t, socket, key.path)
	if _, err := sshsig.Sign(signer, announce, message); err != nil {
		t.Error(err)
	}
}
