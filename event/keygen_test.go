package event_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/event/signers"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
)

func base64url(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// A key is one as an operator has it, made by ssh-keygen.
type key struct {
	name    string
	file    string
	signer  ssh.Signer
	trust   string // what stands after the principal in allowed_signers
	compact bool   // signs in compact form
}

func keygen(t testing.TB, args ...string) {
	t.Helper()
	if out, err := exec.Command(testenv.Need(t, "ssh-keygen"), args...).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen %q: %v\n%s", args, err, out)
	}
}

func keyOf(t testing.TB, args ...string) key {
	t.Helper()
	file := filepath.Join(t.TempDir(), "key")
	keygen(t, append([]string{"-q", "-N", "", "-C", "test", "-f", file}, args...)...)
	signer, err := signers.LoadSigner(file)
	if err != nil {
		t.Fatal(err)
	}
	return key{file: file, signer: signer, trust: authorized(signer.PublicKey()), compact: signer.PublicKey().Type() == ssh.KeyAlgoED25519}
}

func authorized(k ssh.PublicKey) string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k)))
}

// certified is k with a certificate by ca for the principal signer. args are more of ssh-keygen's, such as a validity.
func (k key) certified(t testing.TB, ca key, args ...string) key {
	t.Helper()
	keygen(t, append(append([]string{"-q", "-s", ca.file, "-I", "test", "-n", "signer"}, args...), k.file+".pub")...)
	public, err := signers.LoadPublicKey(k.file + "-cert.pub")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewCertSigner(public.(*ssh.Certificate), k.signer)
	if err != nil {
		t.Fatal(err)
	}
	return key{file: k.file, signer: signer, trust: "cert-authority " + ca.trust}
}

// throughAgent is k, held by the ssh-agent at socket.
func (k key) throughAgent(t testing.TB, socket string) key {
	t.Helper()
	add := exec.Command(testenv.Need(t, "ssh-add"), "-q", k.file)
	add.Env = append(os.Environ(), "SSH_AUTH_SOCK="+socket)
	if out, err := add.CombinedOutput(); err != nil {
		t.Fatalf("ssh-add: %v\n%s", err, out)
	}
	var err error
	if k.signer, err = signers.AgentSigner(socket, k.signer.PublicKey()); err != nil {
		t.Fatal(err)
	}
	return k
}

// startAgent runs a real ssh-agent until the test ends.
func startAgent(t testing.TB) (socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "agent") // a short path: sockets have room for 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(dir, "s")
	cmd := exec.Command(testenv.Need(t, "ssh-agent"), "-D", "-a", socket)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill() //nolint:errcheck // it may have ended
		cmd.Wait()         //nolint:errcheck // it was killed
		os.RemoveAll(dir)  //nolint:errcheck // a temporary folder
	})
	testenv.WaitFor(t, 10*time.Second, func() error {
		c, err := net.Dial("unix", socket)
		if err == nil {
			err = c.Close()
		}
		return err
	})
	return socket
}

// keyKinds are the kinds of keys that may sign lines.
func keyKinds(t testing.TB) []key {
	t.Helper()
	ed := func() key { return keyOf(t, "-t", "ed25519") }
	ecdsa := func() key { return keyOf(t, "-t", "ecdsa", "-b", "256") }
	rsa := func() key { return keyOf(t, "-t", "rsa", "-b", "3072") }
	socket := startAgent(t)
	kinds := map[string]key{
		"ed25519": ed(), "ecdsa": ecdsa(), "rsa-3072": rsa(),
		"ed25519 in ssh-agent": ed().throughAgent(t, socket), "rsa-3072 in ssh-agent": rsa().throughAgent(t, socket),
		"ed25519 certificate": ed().certified(t, ed()), "ecdsa certificate": ecdsa().certified(t, ecdsa()),
		"ed25519 certificate in ssh-agent": ed().certified(t, rsa()).throughAgent(t, socket),
	}
	var all []key
	for name, k := range kinds {
		k.name = name
		all = append(all, k)
	}
	return all
}

// A question is put to a gate and to ssh-keygen: may this principal have said this line at that time?
type question struct {
	name      string
	trust     string // allowed_signers
	revoked   string // public keys, one a line; "" for none
	genuine   []byte // the line as sealed, which has the signature
	line      []byte // the line in question
	principal string
	at        time.Time
	want      bool
}

// compare asks both and expects the same answer.
func (q question) compare(t *testing.T) {
	t.Helper()
	gate := gateOf(t, q.trust, q.revoked, q.principal)
	_, err := gate.Open(q.line, q.at)
	if (err == nil) != q.want {
		t.Errorf("%s: the gate says %v, want passing %v", q.name, err, q.want)
	}
	if good, out := q.askKeygen(t, gate.Trust); good != q.want {
		t.Errorf("%s: ssh-keygen says %v, want %v: %s", q.name, good, q.want, out)
	}
}

// askKeygen gives ssh-keygen what event.Signature makes of the genuine line, and the text and kind of the line in question.
func (q question) askKeygen(t *testing.T, keys event.Keys) (good bool, out string) {
	t.Helper()
	sig, _, err := event.Signature(q.genuine, keys)
	if err != nil {
		t.Fatalf("%s: %v", q.name, err)
	}
	text := q.line[:bytes.LastIndex(q.line, []byte(" key="))]
	kind := event.Kind(strings.Fields(string(text))[1])
	dir := t.TempDir()
	file := func(name, content string) string {
		write(t, filepath.Join(dir, name), content)
		return filepath.Join(dir, name)
	}
	args := []string{
		"-Y", "verify", "-f", file("allowed", q.trust), "-I", q.principal, "-n", kind.Namespace(), "-s", file("sig", string(sig.Armor())),
		"-Overify-time=" + q.at.UTC().Format("20060102150405Z"),
	}
	if q.revoked != "" {
		args = append(args, "-r", file("revoked", q.revoked))
	}
	cmd := exec.Command(testenv.Need(t, "ssh-keygen"), args...)
	cmd.Stdin = bytes.NewReader(text)
	b, err := cmd.CombinedOutput()
	return err == nil, string(b)
}

// Whatever key signs, the gate and ssh-keygen -Y verify agree on who may have said what.
func TestAgreesWithKeygen(t *testing.T) {
	other := keyOf(t, "-t", "ed25519")
	for _, k := range keyKinds(t) {
		t.Run(k.name, func(t *testing.T) {
			trust := "signer " + k.trust + "\nother " + other.trust + "\n"
			for _, m := range messages("signer") {
				line := seal(t, m, k.signer)
				ask := func(name string, line2 []byte, principal string, want bool) {
					t.Helper()
					question{name, trust, "", line, line2, principal, vectorTime.AddDate(0, 1, 0), want}.compare(t)
				}
				ask("as it is", line, "signer", true)
				ask("changed", bytes.Replace(line, []byte("serial=7"), []byte("serial=8"), 1), "signer", false)
				if _, ok := m.(event.Report); ok { // a report names its principal itself
					continue
				}
				ask("another principal", line, "other", false)
				ask("a principal without a key", line, "nobody", false)
				ask("another kind", otherKind(line), "signer", false)
			}
		})
	}
}

// otherKind makes a flip of a change and a change of all else.
func otherKind(line []byte) []byte {
	words := bytes.SplitN(line, []byte(" "), 3)
	to := "change"
	if string(words[1]) == to {
		to = "flip"
	}
	return fmt.Appendf(nil, "%s %s %s", words[0], to, words[2])
}

// What the trust file and the revocation file say of a key is understood as ssh-keygen understands it.
func TestTrustAgreesWithKeygen(t *testing.T) {
	plain, ca := keyOf(t, "-t", "ed25519"), keyOf(t, "-t", "ecdsa")
	for _, k := range []key{plain, keyOf(t, "-t", "ecdsa"), keyOf(t, "-t", "ed25519").certified(t, ca, "-V", "20260101:20270101")} {
		revocable := authorized(k.signer.PublicKey())
		if cert, ok := k.signer.PublicKey().(*ssh.Certificate); ok {
			revocable = authorized(cert.Key)
		}
		options := func(o string) string {
			if authority, ok := strings.CutPrefix(k.trust, "cert-authority "); ok {
				return "signer cert-authority," + o + " " + authority + "\n"
			}
			return "signer " + o + " " + k.trust + "\n"
		}
		any, line := "signer "+k.trust+"\n", seal(t, messages("signer")[0], k.signer)
		for _, q := range []question{
			{name: "trusted", trust: any, want: true},
			{name: "revoked", trust: any, revoked: revocable + "\n"},
			{name: "another revoked", trust: any, revoked: authorized(keyOf(t, "-t", "ed25519").signer.PublicKey()) + "\n", want: true},
			{name: "valid after, and it is", trust: options(`valid-after="20261101Z"`), want: true},
			{name: "valid after, and it is not yet", trust: options(`valid-after="20261201Z"`)},
			{name: "valid before, and it was", trust: options(`valid-before="20261101Z"`)},
			{name: "valid before, and it still is", trust: options(`valid-before="20261201Z"`), want: true},
			{name: "for this namespace", trust: options(`namespaces="head@mirrorbus,announce@mirrorbus"`), want: true},
			{name: "for all of ours", trust: options(`namespaces="*@mirrorbus"`), want: true},
			{name: "for another namespace", trust: options(`namespaces="report@mirrorbus"`)},
			{name: "by a pattern of principals", trust: "sign*,!other" + any[len("signer"):], want: true},
			{name: "not by a negated pattern", trust: "*,!signer" + any[len("signer"):]},
		} {
			q.name = k.signer.PublicKey().Type() + ": " + q.name
			q.genuine, q.line, q.principal, q.at = line, line, "signer", vectorTime
			q.compare(t)
		}
	}
}
