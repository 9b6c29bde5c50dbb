package sshsig_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/mirrorbus/mirrorbus/event/sshsig"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
)

const namespace = "announce@mirrorbus"

var message = []byte("mirrorbus1 change module=fedora serial=1042\n")

// newKey makes a key with ssh-keygen and returns its file and signer.
func newKey(t *testing.T, args ...string) (file string, signer ssh.Signer) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "key")
	keygen(t, nil, append([]string{"-q", "-N", "", "-C", "test", "-f", file}, args...)...)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	signer, err = ssh.ParsePrivateKey(text)
	if err != nil {
		t.Fatal(err)
	}
	return file, signer
}

// certify has a new authority certify the key in file and returns a signer that signs with the certificate.
func certify(t *testing.T, file string, signer ssh.Signer, authority ...string) ssh.Signer {
	t.Helper()
	ca, _ := newKey(t, authority...)
	keygen(t, nil, "-q", "-s", ca, "-I", "test", "-n", "mirror1", "-V", "-1d:+1d", file+".pub")
	text, err := os.ReadFile(file + "-cert.pub")
	if err != nil {
		t.Fatal(err)
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey(text)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewCertSigner(key.(*ssh.Certificate), signer)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func keygen(t *testing.T, stdin []byte, args ...string) []byte {
	t.Helper()
	out, err := tryKeygen(t, stdin, args...)
	if err != nil {
		t.Fatalf("ssh-keygen %q: %v\n%s", args, err, out)
	}
	return out
}

func tryKeygen(t *testing.T, stdin []byte, args ...string) ([]byte, error) {
	t.Helper()
	cmd := exec.Command(testenv.Need(t, "ssh-keygen"), args...)
	cmd.Stdin = bytes.NewReader(stdin)
	return cmd.CombinedOutput()
}

// keygenAccepts tells whether ssh-keygen takes the armored signature for one over text in namespace ns, whoever made it.
func keygenAccepts(t *testing.T, armor []byte, ns string, text []byte) bool {
	t.Helper()
	file := filepath.Join(t.TempDir(), "sig")
	if err := os.WriteFile(file, armor, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := tryKeygen(t, text, "-Y", "check-novalidate", "-n", ns, "-s", file)
	return err == nil
}

// A touchKey signs as a hardware key of type sk-ssh-ed25519@openssh.com does (OpenSSH, PROTOCOL.u2f).
type touchKey struct {
	key     ssh.PublicKey
	private ed25519.PrivateKey
	flags   byte
}

func newTouchKey(t *testing.T, flags byte) touchKey {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.ParsePublicKey(ssh.Marshal(struct {
		Type        string
		Key         []byte
		Application string
	}{ssh.KeyAlgoSKED25519, public, "ssh:"}))
	if err != nil {
		t.Fatal(err)
	}
	return touchKey{key, private, flags}
}

func (k touchKey) PublicKey() ssh.PublicKey { return k.key }

func (k touchKey) Sign(_ io.Reader, data []byte) (*ssh.Signature, error) {
	app, sum := sha256.Sum256([]byte("ssh:")), sha256.Sum256(data)
	tail := binary.BigEndian.AppendUint32([]byte{k.flags}, 7)
	signed := append(append(app[:], tail...), sum[:]...)
	return &ssh.Signature{Format: ssh.KeyAlgoSKED25519, Blob: ed25519.Sign(k.private, signed), Rest: tail}, nil
}

// TestAgreesWithKeygen signs with one program and verifies with the other, in both directions.
func TestAgreesWithKeygen(t *testing.T) {
	kinds := map[string][]string{
		"ed25519": {"-t", "ed25519"}, "ecdsa-256": {"-t", "ecdsa", "-b", "256"}, "ecdsa-521": {"-t", "ecdsa", "-b", "521"},
		"rsa-3072": {"-t", "rsa", "-b", "3072"},
	}
	for name, args := range kinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file, signer := newKey(t, args...)
			ours, err := sshsig.Sign(signer, namespace, message)
			if err != nil {
				t.Fatal(err)
			}
			checkVerdicts(t, ours.Armor())
			checkVerdicts(t, keygen(t, message, "-q", "-Y", "sign", "-f", file, "-n", namespace))
			checkVerdicts(t, keygen(t, message, "-q", "-Y", "sign", "-f", file, "-n", namespace, "-O", "hashalg=sha256"))
		})
		for _, ca := range []string{"ed25519", "ecdsa-256", "rsa-3072"} {
			t.Run(name+" certified by "+ca, func(t *testing.T) {
				t.Parallel()
				file, signer := newKey(t, args...)
				ours, err := sshsig.Sign(certify(t, file, signer, kinds[ca]...), namespace, message)
				if err != nil {
					t.Fatal(err)
				}
				checkVerdicts(t, ours.Armor())
				checkVerdicts(t, keygen(t, message, "-q", "-Y", "sign", "-f", file+"-cert.pub", "-n", namespace))
			})
		}
	}
	t.Run("sk-ssh-ed25519", func(t *testing.T) {
		ours, err := sshsig.Sign(newTouchKey(t, 1), namespace, message)
		if err != nil {
			t.Fatal(err)
		}
		checkVerdicts(t, ours.Armor())
	})
}

// checkVerdicts has both programs verify a good signature: as it is, for another namespace and over another message.
func checkVerdicts(t *testing.T, armor []byte) {
	t.Helper()
	sig, err := sshsig.Unarmor(armor)
	if err != nil {
		t.Fatalf("%v\n%s", err, armor)
	}
	if !bytes.Equal(sig.Armor(), armor) {
		t.Errorf("written again it is\n%snot\n%s", sig.Armor(), armor)
	}
	other := append([]byte("x"), message...)
	for _, c := range []struct {
		ns   string
		text []byte
		good bool
	}{{namespace, message, true}, {"report@mirrorbus", message, false}, {namespace, other, false}, {namespace, nil, false}} {
		if err := sig.Verify(c.ns, c.text); (err == nil) != c.good {
			t.Errorf("Verify(%q, %q) = %v", c.ns, c.text, err)
		}
		if keygenAccepts(t, armor, c.ns, c.text) != c.good {
			t.Errorf("ssh-keygen in namespace %q over %q: %v", c.ns, c.text, !c.good)
		}
	}
}

// TestCompact checks that the compact form, once expanded, is what ssh-keygen accepts, and that only plain ed25519 keys have one.
func TestCompact(t *testing.T) {
	file, signer := newKey(t, "-t", "ed25519")
	sig, err := sshsig.Sign(signer, namespace, message)
	if err != nil {
		t.Fatal(err)
	}
	id, raw, ok := sshsig.Compact(sig)
	if !ok || id != sshsig.KeyID(signer.PublicKey()) {
		t.Fatalf("Compact: id %x, ok %v", id, ok)
	}
	again := sshsig.Expand(signer.PublicKey(), namespace, raw)
	if !bytes.Equal(again.Armor(), sig.Armor()) {
		t.Errorf("expanded to\n%snot\n%s", again.Armor(), sig.Armor())
	}
	checkVerdicts(t, again.Armor())

	_, ecdsa := newKey(t, "-t", "ecdsa")
	for name, s := range map[string]ssh.Signer{"ecdsa": ecdsa, "certificate": certify(t, file, signer, "-t", "ed25519"), "sk": newTouchKey(t, 1)} {
		sig, err := sshsig.Sign(s, namespace, message)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, ok := sshsig.Compact(sig); ok {
			t.Errorf("%s: has a compact form", name)
		}
	}
	sha256, err := sshsig.Unarmor(keygen(t, message, "-q", "-Y", "sign", "-f", file, "-n", namespace, "-O", "hashalg=sha256"))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, ok := sshsig.Compact(sha256); ok {
		t.Error("a SHA-256 signature has a compact form, which would expand to SHA-512")
	}
}
