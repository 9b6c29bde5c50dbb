package signers_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/mirrorbus/mirrorbus/event/signers"
	"github.com/mirrorbus/mirrorbus/event/sshsig"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
)

const (
	announce = "announce@mirrorbus"
	report   = "report@mirrorbus"
)

var message = []byte("mirrorbus1 change module=fedora serial=1042\n")

// A keyFile is a key made by ssh-keygen.
type keyFile struct {
	path   string
	public string // type and base64, without a comment
}

func newKey(t testing.TB, args ...string) keyFile {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	if len(args) == 0 {
		args = []string{"-t", "ed25519"}
	}
	keygen(t, append([]string{"-q", "-N", "", "-C", "test", "-f", path}, args...)...)
	return keyFile{path, publicLine(t, path+".pub")}
}

func publicLine(t testing.TB, path string) string {
	t.Helper()
	return strings.Join(strings.Fields(string(read(t, path)))[:2], " ")
}

// certify makes a certificate for k and returns it as a keyFile whose path is the certificate.
func (k keyFile) certify(t testing.TB, ca keyFile, args ...string) keyFile {
	t.Helper()
	args = append([]string{"-q", "-s", ca.path}, args...)
	keygen(t, append(args, k.path+".pub")...)
	path := k.path + "-cert.pub"
	return keyFile{path, publicLine(t, path)}
}

// sign signs message with ssh-keygen.
func (k keyFile) sign(t testing.TB, namespace string) *sshsig.Signature {
	t.Helper()
	cmd := exec.Command(testenv.Need(t, "ssh-keygen"), "-q", "-Y", "sign", "-f", k.path, "-n", namespace)
	cmd.Stdin = bytes.NewReader(message)
	armor, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	sig, err := sshsig.Unarmor(armor)
	if err != nil {
		t.Fatal(err)
	}
	return sig
}

func (k keyFile) key(t testing.TB) ssh.PublicKey {
	t.Helper()
	path := k.path
	if !strings.HasSuffix(path, ".pub") {
		path += ".pub"
	}
	key, err := signers.LoadPublicKey(path)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func keygen(t testing.TB, args ...string) {
	t.Helper()
	if out, err := exec.Command(testenv.Need(t, "ssh-keygen"), args...).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen %q: %v\n%s", args, err, out)
	}
}

// A question is what ssh-keygen -Y verify is asked.
type question struct {
	allowed, revoked, signature string // files; revoked may be ""
	message                     []byte
	principal, namespace, time  string
	tz                          string
}

// askKeygen tells what ssh-keygen -Y verify says.
func (q question) askKeygen(t testing.TB) (good bool, output string) {
	t.Helper()
	args := []string{"-Y", "verify", "-f", q.allowed, "-I", q.principal, "-n", q.namespace, "-s", q.signature, "-Overify-time=" + q.time}
	if q.revoked != "" {
		args = append(args, "-r", q.revoked)
	}
	cmd := exec.Command(testenv.Need(t, "ssh-keygen"), args...)
	cmd.Stdin = bytes.NewReader(q.message)
	cmd.Env = append(os.Environ(), "TZ="+q.tz)
	out, err := cmd.CombinedOutput()
	return err == nil, string(out)
}

func write(t testing.TB, path string, text []byte) string {
	t.Helper()
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
