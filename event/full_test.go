package event_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/event/sshsig"
)

var updateFull = flag.Bool("update-full", false, "write testdata/line-full anew, with new keys: ECDSA signatures are random, so no two runs make the same")

const fullDir = "testdata/line-full"

// Lines in full form, as other implementations have to read them. The trust file and the revocation file lie beside the vectors.
func TestFullFormVectors(t *testing.T) {
	if *updateFull {
		writeFullVectors(t)
	}
	read := func(name string) string {
		b, err := os.ReadFile(fullDir + "/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	gate := gateOf(t, read("allowed_signers"), read("revoked_keys"), "signer")
	for _, v := range readVectors(t, fullDir) {
		t.Run(v.name, func(t *testing.T) {
			_, err := gate.Open([]byte(v.body), vectorTime)
			checkVerdict(t, v.expect, err)
		})
	}
}

func writeFullVectors(t *testing.T) {
	ed, ecdsa, p384, rsa := keyOf(t, "-t", "ed25519"), keyOf(t, "-t", "ecdsa"), keyOf(t, "-t", "ecdsa", "-b", "384"), keyOf(t, "-t", "rsa", "-b", "3072")
	ca, otherCA, revoked := keyOf(t, "-t", "ed25519"), keyOf(t, "-t", "ed25519"), keyOf(t, "-t", "ecdsa")
	forever := func() key { return keyOf(t, "-t", "ecdsa").certified(t, ca) }
	expired := keyOf(t, "-t", "ed25519").certified(t, ca, "-V", "20260101000000Z:20260601000000Z")
	foreign := keyOf(t, "-t", "ed25519").certified(t, otherCA)
	change := messages("signer")[0]
	line := func(k key) string { return string(seal(t, change, k.signer)) }
	full := func(k key) string {
		sig, err := sshsig.Sign(k.signer, event.Change.Namespace(), change.Text())
		if err != nil {
			t.Fatal(err)
		}
		id := sshsig.KeyID(k.signer.PublicKey())
		return fmt.Sprintf("%s key=%s sig=%s", change.Text(), base64url(id[:]), base64url(sig.Marshal()))
	}
	good := line(ecdsa)
	otherID := bytes.Fields([]byte(line(rsa)))[9]
	writeVectors(t, fullDir, []vector{
		{"valid-ecdsa-p256", "", "ok", good},
		{"valid-ecdsa-p384", "", "ok", line(p384)},
		{"valid-rsa-3072", "RSA signs with rsa-sha2-512.", "ok", line(rsa)},
		{"valid-ed25519-in-full-form", "Longer than need be; nobody has to write it, everybody must read it.", "ok", full(ed)},
		{"valid-ed25519-certificate", "", "ok", line(keyOf(t, "-t", "ed25519").certified(t, ca))},
		{"valid-ecdsa-certificate", "", "ok", line(forever())},
		{"malformed-key-id-of-another", "key= must be the id of the key in sig=.", "malformed", strings.Replace(good, string(bytes.Fields([]byte(good))[9]), string(otherID), 1)},
		{"malformed-signature-cut-short", "", "malformed", good[:len(good)-8]},
		{"malformed-signature-line-end", "Some base64 readers skip it.", "malformed", good[:len(good)-8] + "\n" + good[len(good)-8:]},
		{"refused-changed-text", "", "refused", strings.Replace(good, "n=2", "n=3", 1)},
		{"refused-kind-of-another-namespace", "The SSHSIG blob names the namespace of a change.", "refused", strings.Replace(strings.Replace(good, " change ", " flip ", 1), " n=2", "", 1)},
		{"refused-unknown-key", "", "refused", line(keyOf(t, "-t", "ecdsa"))},
		{"refused-revoked-key", "", "refused", line(revoked)},
		{"refused-authority-itself", "An authority issues certificates and signs nothing else.", "refused", full(ca)},
		{"refused-certificate-of-another-authority", "", "refused", line(foreign)},
		{"refused-certificate-expired", "", "refused", line(expired)},
	})
	var trust strings.Builder
	for _, k := range []key{ed, ecdsa, p384, rsa, revoked} {
		fmt.Fprintf(&trust, "signer %s\n", k.trust)
	}
	fmt.Fprintf(&trust, "signer cert-authority %s\n", ca.trust)
	write(t, fullDir+"/allowed_signers", trust.String())
	write(t, fullDir+"/revoked_keys", revoked.trust+"\n")
}
