package sshsig_test

import (
	"bytes"
	//lint:ignore SA1019 to see it refused
	"crypto/dsa"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/tools/txtar"

	"github.com/mirrorbus/mirrorbus/event/sshsig"
)

const vectors = "../testdata/sshsig"

// TestVectors runs the files of testdata/sshsig; its README says how they are read.
func TestVectors(t *testing.T) {
	files, err := filepath.Glob(vectors + "/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no vectors in %s: %v", vectors, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) { runVector(t, file) })
	}
}

func runVector(t *testing.T, file string) {
	head, parts := readVector(t, file)
	sig, err := sshsig.Unarmor(parts["signature"])
	if err == nil {
		err = sig.Verify(head["namespace"], parts["message"])
	}
	switch want := head["verdict"]; {
	case want == "good" && err != nil:
		t.Errorf("refused: %v", err)
	case want == "refused" && err == nil:
		t.Error("accepted")
	case want == "refused" && !strings.Contains(err.Error(), head["error"]):
		t.Errorf("refused with %q, should say %q", err, head["error"])
	case want != "good" && want != "refused":
		t.Errorf("verdict %q", want)
	}
	if want := head["compact"]; want != "" {
		id, raw, ok := sshsig.Compact(sig)
		b64 := base64.RawURLEncoding
		if got := b64.EncodeToString(id[:]) + " " + b64.EncodeToString(raw[:]); !ok || got != want {
			t.Errorf("compact form %s, should be %s", got, want)
		}
	}
	want := head["verdict"]
	if v, ok := head["ssh-keygen"]; ok {
		want = v
	}
	if got := keygenAccepts(t, parts["signature"], head["namespace"], parts["message"]); got != (want == "good") {
		t.Errorf("ssh-keygen accepts: %v, the vector says %s", got, want)
	}
}

func readVector(t *testing.T, file string) (head map[string]string, parts map[string][]byte) {
	t.Helper()
	a, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	head, parts = map[string]string{}, map[string][]byte{}
	for line := range strings.Lines(string(a.Comment)) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), ": "); ok {
			head[k] = v
		}
	}
	for _, f := range a.Files {
		parts[f.Name] = f.Data
	}
	return head, parts
}

// sha1Signer signs with ssh-rsa, as old programs do.
type sha1Signer struct{ ssh.Signer }

func (s sha1Signer) SignWithAlgorithm(r io.Reader, data []byte, _ string) (*ssh.Signature, error) {
	return s.Signer.Sign(r, data)
}

// wrongSigner signs something else.
type wrongSigner struct{ ssh.Signer }

func (s wrongSigner) Sign(r io.Reader, data []byte) (*ssh.Signature, error) {
	return s.Signer.Sign(r, append([]byte("x"), data...))
}

// plainSigner hides that a signer can choose an algorithm.
type plainSigner struct{ signer ssh.Signer }

func (s plainSigner) PublicKey() ssh.PublicKey { return s.signer.PublicKey() }
func (s plainSigner) Sign(r io.Reader, data []byte) (*ssh.Signature, error) {
	return s.signer.Sign(r, data)
}

func TestSignRefuses(t *testing.T) {
	rsaSigner, dsaSigner := rsaKey(t), dsaKey(t)
	_, ed := newKey(t, "-t", "ed25519")
	for _, c := range []struct {
		name, namespace string
		signer          ssh.Signer
		want            string
	}{
		{"no namespace", "", ed, "namespace"},
		{"namespace with NUL", "a\x00b", ed, "namespace"},
		{"long namespace", strings.Repeat("n", 257), ed, "namespace"},
		{"DSA", namespace, dsaSigner, "ssh-dss keys are not accepted"},
		{"RSA by a signer that knows SHA-1 only", namespace, plainSigner{rsaSigner}, "SHA-1"},
		{"RSA by a signer that uses SHA-1 whatever it is told", namespace, sha1Signer{rsaSigner}, "rsa-sha2-512"},
		{"a signer that signs something else", namespace, wrongSigner{plainSigner{ed}}, "does not verify"},
		{"hardware key without touch", namespace, newTouchKey(t, 0), "user presence"},
	} {
		sig, err := sshsig.Sign(c.signer, c.namespace, message)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, %v; should say %q", c.name, sig, err, c.want)
		}
	}
}

// TestCertificateIssuedWithSHA1 is refused whatever the certificate's own key signs with.
func TestCertificateIssuedWithSHA1(t *testing.T) {
	_, ed := newKey(t, "-t", "ed25519")
	cert := &ssh.Certificate{Key: ed.PublicKey(), CertType: ssh.UserCert, ValidPrincipals: []string{"a"}, ValidBefore: ssh.CertTimeInfinity}
	if err := cert.SignCert(rand.Reader, plainSigner{rsaKey(t)}); err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewCertSigner(cert, ed)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sshsig.Sign(signer, namespace, message); err == nil || !strings.Contains(err.Error(), "issued with SHA-1") {
		t.Errorf("Sign: %v", err)
	}
}

func rsaKey(t *testing.T) ssh.Signer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return signerFrom(t, key)
}

func dsaKey(t *testing.T) ssh.Signer {
	t.Helper()
	key := new(dsa.PrivateKey)
	if err := dsa.GenerateParameters(&key.Parameters, rand.Reader, dsa.L1024N160); err != nil {
		t.Fatal(err)
	}
	if err := dsa.GenerateKey(key, rand.Reader); err != nil {
		t.Fatal(err)
	}
	return signerFrom(t, key)
}

func signerFrom(t *testing.T, key any) ssh.Signer {
	t.Helper()
	s, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestUnarmorLineEnds(t *testing.T) {
	_, parts := readVector(t, vectors+"/ed25519.txt")
	armor := parts["signature"]
	for name, text := range map[string][]byte{
		"CR LF":           bytes.ReplaceAll(armor, []byte("\n"), []byte("\r\n")),
		"no last newline": bytes.TrimSuffix(armor, []byte("\n")),
	} {
		if sig, err := sshsig.Unarmor(text); err != nil || !bytes.Equal(sig.Armor(), armor) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, text := range map[string][]byte{
		"two newlines":  append(bytes.Clone(armor), '\n'),
		"stray CR":      bytes.Replace(armor, []byte("\n"), []byte("\n\r"), 1),
		"leading blank": append([]byte(" "), armor...),
		"empty":         nil,
		"too large":     bytes.Repeat([]byte("A"), 1<<20),
	} {
		if _, err := sshsig.Unarmor(text); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, blob := range seeds(f) {
		f.Add(blob)
	}
	f.Fuzz(func(t *testing.T, blob []byte) {
		sig, err := sshsig.Parse(blob)
		if err != nil {
			return
		}
		if !bytes.Equal(sig.Marshal(), blob) {
			t.Errorf("%x\nis written again as\n%x", blob, sig.Marshal())
		}
		_ = sig.Verify(sig.Namespace, message) // must not panic; the fuzzer cannot sign
		if again, err := sshsig.Unarmor(sig.Armor()); err != nil || !bytes.Equal(again.Marshal(), blob) {
			t.Errorf("armored and read again: %v", err)
		}
	})
}

func FuzzUnarmor(f *testing.F) {
	files, err := filepath.Glob(vectors + "/*.txt")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		if _, sig, ok := bytes.Cut(text, []byte("-- signature --\n")); ok {
			f.Add(sig)
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		sig, err := sshsig.Unarmor(text)
		if err != nil {
			return
		}
		if again, err := sshsig.Unarmor(sig.Armor()); err != nil || !bytes.Equal(again.Marshal(), sig.Marshal()) {
			t.Errorf("armored and read again: %v", err)
		}
	})
}

// seeds are the blobs inside the vectors, good and bad.
func seeds(f *testing.F) [][]byte {
	f.Helper()
	files, err := filepath.Glob(vectors + "/*.txt")
	if err != nil {
		f.Fatal(err)
	}
	var blobs [][]byte
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		_, body, _ := strings.Cut(string(text), "-----BEGIN SSH SIGNATURE-----\n")
		body, _, _ = strings.Cut(body, "\n-----END")
		if blob, err := base64.StdEncoding.DecodeString(body); err == nil {
			blobs = append(blobs, blob)
		}
	}
	return blobs
}
