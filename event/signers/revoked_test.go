package signers_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/mirrorbus/mirrorbus/event/signers"
)

// certsOf makes certificates with the given serials and key id "id-SERIAL".
func certsOf(t *testing.T, ca keyFile, serials ...uint64) []keyFile {
	t.Helper()
	var certs []keyFile
	for _, n := range serials {
		certs = append(certs, newKey(t).certify(t, ca, "-I", fmt.Sprint("id-", n), "-z", fmt.Sprint(n), "-n", "mirror1"))
	}
	return certs
}

// TestRevocationAgreesWithKeygen revokes in every way that ssh-keygen has, and compares what is still accepted.
func TestRevocationAgreesWithKeygen(t *testing.T) {
	ca, ca2, key, other := newKey(t), newKey(t, "-t", "ecdsa"), newKey(t), newKey(t, "-t", "rsa", "-b", "2048")
	certs := certsOf(t, ca, 0, 1, 5, 6, 7, 40, 1000, 1<<40)
	certs = append(certs, certsOf(t, ca2, 5)...)
	all := append([]keyFile{key, other}, certs...)
	dir := t.TempDir()
	var trust strings.Builder
	fmt.Fprintf(&trust, "mirror1 %s\nmirror1 %s\nmirror1 cert-authority %s\nmirror1 cert-authority %s\n", key.public, other.public, ca.public, ca2.public)
	allowed := write(t, filepath.Join(dir, "allowed"), []byte(trust.String()))

	list := func(text string) string { return write(t, filepath.Join(t.TempDir(), "revoked"), []byte(text)) }
	krl := func(spec string, args ...string) string {
		out := filepath.Join(t.TempDir(), "krl")
		args = append([]string{"-q", "-k", "-f", out}, args...)
		keygen(t, append(args, list(spec))...)
		return out
	}
	byCA := []string{"-s", ca.path + ".pub"}
	many := "serial: 1\nserial: 5-7\nserial: 1000\n"
	for n := 20; n < 60; n += 2 { // dense enough for a bitmap
		many += fmt.Sprintf("serial: %d\n", n)
	}
	for name, revoked := range map[string]string{
		"empty list":             list(""),
		"list":                   list("# old\n\n" + key.public + " comment\n"),
		"list of all":            list(key.public + "\n" + other.public + "\n"),
		"list with authority":    list(ca.public + "\n"),
		"list with certificate":  list(certs[2].public + "\n"),
		"malformed list":         list("garbage\n"),
		"list with options":      list("cert-authority " + ca.public + "\n"),
		"KRL with no key":        krl(""),
		"KRL with keys":          krl("key: " + key.public + "\nkey: " + other.public + "\n"),
		"KRL from public key":    krl(key.public + "\n"),
		"KRL with SHA1":          krl("sha1: " + key.public + "\n"),
		"KRL with SHA256":        krl("sha256: " + other.public + "\n"),
		"KRL with hash":          krl("hash: " + ssh.FingerprintSHA256(key.key(t)) + "\n"),
		"KRL with authority":     krl("key: " + ca.public + "\n"),
		"KRL with certificate":   krl(certs[4].public+"\n", byCA...),
		"KRL with serial":        krl("serial: 5\n", byCA...),
		"KRL with serials":       krl("serial: 1\nserial: 1000\nserial: 1099511627776\n", byCA...),
		"KRL with range":         krl("serial: 6-999\n", byCA...),
		"KRL with long range":    krl("serial: 6-18446744073709551615\n", byCA...),
		"KRL with bitmap":        krl(many, byCA...),
		"KRL with key id":        krl("id: id-7\n", byCA...),
		"KRL with key id of all": krl("id: id-5\n", "-s", "none"),
		"KRL of other authority": krl("serial: 5\n", "-s", ca2.path+".pub"),
		"KRL cut short":          list(string(read(t, krl("serial: 5\n", byCA...))[:60])),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for i, k := range all {
				compareRevoked(t, fmt.Sprint(i), allowed, revoked, k)
			}
		})
	}
}

func compareRevoked(t *testing.T, name, allowed, revoked string, k keyFile) {
	t.Helper()
	sig := k.sign(t, report)
	file := write(t, filepath.Join(t.TempDir(), "sig"), sig.Armor())
	q := question{allowed: allowed, revoked: revoked, signature: file, message: message, principal: "mirror1", namespace: report, time: "20260601Z"}
	at, err := signers.ParseTime(q.time, time.UTC)
	if err != nil {
		t.Fatal(err)
	}
	good, output := q.askKeygen(t)
	s, err := signers.Open(allowed, revoked)
	if err == nil {
		err = s.VerifyAs(q.principal, sig, message, q.namespace, at)
	}
	if good != (err == nil) {
		t.Errorf("key %s: ssh-keygen says %v, this package %v\n%s", name, good, err, output)
	}
}

// A krlBuilder writes KRLs that ssh-keygen would not.
type krlBuilder []byte

func newKRL() krlBuilder {
	b := krlBuilder("SSHKRL\n\x00\x00\x00\x00\x01")
	return append(b, make([]byte, 3*8+4+4)...)
}

func (b krlBuilder) section(kind byte, body ...[]byte) krlBuilder {
	return append(append(b, kind), str(bytes.Join(body, nil))...)
}

func str(s []byte) []byte { return append(binary.BigEndian.AppendUint32(nil, uint32(len(s))), s...) }
func num(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
func sub(kind byte, body ...[]byte) []byte {
	return append([]byte{kind}, str(bytes.Join(body, nil))...)
}

func TestKRLRefused(t *testing.T) {
	anyCA := bytes.Join([][]byte{str(nil), str(nil)}, nil)
	for _, c := range []struct {
		name string
		krl  []byte
		want string
	}{
		{"only the magic", []byte("SSHKRL\n\x00"), "cut short"},
		{"format 2", append([]byte("SSHKRL\n\x00\x00\x00\x00\x02"), make([]byte, 32)...), "format 2"},
		{"no comment", newKRL()[:40], "cut short"},
		{"unknown section", newKRL().section(9), "section 9"},
		{"signature", newKRL().section(4), "signed KRLs"},
		{"section longer than the file", append(newKRL(), 2, 0xff, 0xff, 0xff, 0xff), "cut short"},
		{"key cut short", newKRL().section(2, []byte{0, 0, 0, 9, 1}), "cut short"},
		{"SHA1 of 32 bytes", newKRL().section(3, str(make([]byte, 32))), "must be 20"},
		{"SHA256 of 20 bytes", newKRL().section(5, str(make([]byte, 20))), "must be 32"},
		{"critical extension", newKRL().section(255, str([]byte("x@y")), []byte{1}, str(nil)), "critical"},
		{"extension cut short", newKRL().section(255, str([]byte("x@y"))), "extension"},
		{"authority is no key", newKRL().section(1, str([]byte("x")), str(nil)), "authority"},
		{"unknown certificate section", newKRL().section(1, anyCA, sub(0x24)), "0x24"},
		{"critical certificate extension", newKRL().section(1, anyCA, sub(0x39, str([]byte("x@y")), []byte{1}, str(nil))), "critical"},
		{"serial 0", newKRL().section(1, anyCA, sub(0x20, num(0))), "serial 0"},
		{"half a serial", newKRL().section(1, anyCA, sub(0x20, []byte{1})), "cut short"},
		{"range from 0", newKRL().section(1, anyCA, sub(0x21, num(0), num(1))), "range"},
		{"range backwards", newKRL().section(1, anyCA, sub(0x21, num(2), num(1))), "range"},
		{"range of three", newKRL().section(1, anyCA, sub(0x21, num(1), num(2), num(3))), "range"},
		{"bitmap of serial 0", newKRL().section(1, anyCA, sub(0x22, num(0), str([]byte{1}))), "serial 0"},
		{"negative bitmap", newKRL().section(1, anyCA, sub(0x22, num(1), str([]byte{0x80}))), "negative"},
		{"bitmap beyond 2^64", newKRL().section(1, anyCA, sub(0x22, num(1<<64-1), str([]byte{2}))), "largest serial"},
		{"bitmap of 2049 bytes", newKRL().section(1, anyCA, sub(0x22, num(1), str(bytes.Repeat([]byte{1}, 2049)))), "at most 2048"},
		{"key id cut short", newKRL().section(1, anyCA, sub(0x23, []byte{0})), "cut short"},
	} {
		_, err := signers.ParseRevoked(bytes.NewReader(c.krl), "krl")
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, should say %q", c.name, err, c.want)
		}
	}
}

// TestKRLSerials checks which serials a KRL revokes, for the forms that ssh-keygen writes and some that it does not.
func TestKRLSerials(t *testing.T) {
	anyCA := bytes.Join([][]byte{str(nil), str(nil)}, nil)
	var inner [][]byte // within the range from 300, so that a search lands on them
	for n := uint64(320); n < 340; n++ {
		inner = append(inner, num(n))
	}
	krl := newKRL().section(255, str([]byte("x@y")), []byte{0}, str(nil)).section(1, anyCA,
		sub(0x39, str([]byte("x@y")), []byte{0}, str(nil)),
		sub(0x20, num(9), num(3), num(3)), sub(0x21, num(100), num(200)), sub(0x21, num(150), num(160)), sub(0x21, num(200), num(201)),
		sub(0x21, num(300), num(900)), sub(0x21, num(301), num(302)), sub(0x21, num(310), num(311)), sub(0x20, inner...),
		sub(0x22, num(1000), str([]byte{0, 0x80, 0x01})), sub(0x22, num(1<<64-2), str([]byte{3})), sub(0x22, num(0), str([]byte{0x20})), sub(0x22, num(7), str(nil)))
	r, err := signers.ParseRevoked(bytes.NewReader(krl), "krl")
	if err != nil {
		t.Fatal(err)
	}
	ca := newKey(t).key(t)
	revoked := map[uint64]bool{
		0: false, 2: false, 3: true, 4: false, 5: true, 6: false, 7: false, 8: false, 9: true, 10: false, 99: false, 100: true, 155: true, 161: true, 199: true,
		200: true, 201: true, 202: false, 500: true, 899: true, 901: false, 999: false, 1000: true, 1001: false, 1014: false, 1015: true, 1016: false, 1<<64 - 3: false,
		1<<64 - 2: true, 1<<64 - 1: true,
	}
	for serial, want := range revoked {
		cert := &ssh.Certificate{Key: ca, SignatureKey: ca, Serial: serial}
		if err := r.Check(cert); (err != nil) != want {
			t.Errorf("serial %d: %v, should be revoked: %v", serial, err, want)
		}
	}
}

func FuzzParseRevoked(f *testing.F) {
	anyCA := bytes.Join([][]byte{str(nil), str(nil)}, nil)
	f.Add([]byte("# list\nssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGPjHc2YNEDYwp7VlGjSEhHyJK6XI8dyhNRRbHr3BsOT\n"))
	f.Add([]byte(newKRL().section(2, str([]byte("key"))).section(3, str(make([]byte, 20))).section(5, str(make([]byte, 32)))))
	f.Add([]byte(newKRL().section(1, anyCA, sub(0x20, num(9)), sub(0x21, num(1), num(2)), sub(0x22, num(1), str([]byte{7})), sub(0x23, str([]byte("id"))))))
	f.Add([]byte(newKRL().section(255, str([]byte("x@y")), []byte{0}, str(nil))))
	_, probe := newFuzzCert(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := signers.ParseRevoked(bytes.NewReader(data), "fuzz")
		if (r == nil) == (err == nil) {
			t.Fatalf("%v, %v", r, err)
		}
		_ = r.Check(probe) // must not panic on what was accepted; nil is empty
	})
}

func newFuzzCert(f *testing.F) (ssh.PublicKey, *ssh.Certificate) {
	f.Helper()
	key := newKey(f).key(f)
	return key, &ssh.Certificate{Key: key, SignatureKey: key, Serial: 9, KeyId: "id"}
}
