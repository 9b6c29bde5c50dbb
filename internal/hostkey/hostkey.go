// Package hostkey is how a client of SSH recognises a server, by a key that it was told beforehand. There is no trust on first use.
package hostkey

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/skeema/knownhosts"
	"golang.org/x/crypto/ssh"
)

// ErrOther is wrapped by the error of a client that met another server than the one it was told to trust.
var ErrOther = errors.New("shows another host key than expected")

const remedy = "if its operator says that its key was replaced, configure the new one; if not, somebody is in between"

// Trust is what a client knows of a server.
type Trust struct {
	want  []string            // fingerprints; any of them will do
	known ssh.HostKeyCallback // nil, or what looks further than the fingerprints
	first []string            // host key algorithms to prefer, as the server may have several keys; nil: no preference
}

// Pin trusts one key, given as a public key in the form of a .pub file or as its fingerprint ("SHA256:…").
func Pin(text string) (Trust, error) {
	text = strings.TrimSpace(text)
	if sum, ok := strings.CutPrefix(text, "SHA256:"); ok {
		if len(sum) != 43 {
			return Trust{}, errors.New("a fingerprint is SHA256: and 43 characters")
		}
		return Trust{want: []string{text}}, nil
	}
	key, _, _, rest, err := ssh.ParseAuthorizedKey([]byte(text))
	if err != nil || len(rest) > 0 {
		return Trust{}, errors.New("is neither one public key nor a fingerprint")
	}
	t := Trust{want: []string{ssh.FingerprintSHA256(key)}, first: []string{key.Type()}}
	if key.Type() == ssh.KeyAlgoRSA {
		t.first = []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
	}
	return t, nil
}

// ErrUnknown is in the error of Known when the file says nothing of the address.
var ErrUnknown = errors.New("has no key for")

// Known trusts what a known_hosts file of OpenSSH has for the address "host:port": keys, or an authority whose certificates servers show.
func Known(file, address string) (Trust, error) {
	db, err := knownhosts.NewDB(file)
	if err != nil {
		return Trust{}, fmt.Errorf("known hosts: %w", err)
	}
	t := Trust{known: db.HostKeyCallback(), first: db.HostKeyAlgorithms(address)}
	signed := false
	for _, key := range db.HostKeys(address) {
		t.want, signed = append(t.want, ssh.FingerprintSHA256(key)), signed || key.Cert
	}
	if signed { // an authority signs keys of any type, not of its own alone
		t.first = append(certificates(), slices.DeleteFunc(t.first, isCertificate)...)
	}
	if len(t.want) == 0 {
		return Trust{}, fmt.Errorf("%s %w %s", file, ErrUnknown, knownhosts.Normalize(address))
	}
	t.first = slices.DeleteFunc(t.first, func(a string) bool { return a == ssh.KeyAlgoRSA || a == ssh.CertAlgoRSAv01 }) // SHA-1
	return t, nil
}

// certificates are the algorithms of host keys that an authority has signed.
func certificates() []string {
	return slices.DeleteFunc(ssh.SupportedAlgorithms().HostKeys, func(a string) bool { return !isCertificate(a) })
}

func isCertificate(algorithm string) bool { return strings.Contains(algorithm, "-cert-") }

// Check implements ssh.HostKeyCallback.
func (t Trust) Check(address string, remote net.Addr, key ssh.PublicKey) error {
	got := ssh.FingerprintSHA256(key)
	if t.known != nil {
		if err := t.known(address, remote, key); err != nil && !knownhosts.IsHostKeyChanged(err) {
			return fmt.Errorf("%s %w: %s: %w", address, ErrOther, got, err)
		} else if err == nil {
			return nil
		}
	}
	for _, want := range t.want {
		if t.known == nil && subtle.ConstantTimeCompare([]byte(got), []byte(want)) == 1 {
			return nil
		}
	}
	return fmt.Errorf("%s %w: %s, expected is %s; %s", address, ErrOther, got, strings.Join(t.want, " or "), remedy)
}

// Algorithms puts the preferred ones first and keeps the others, so that a wrong key is met, and named, and not just not agreed on.
func (t Trust) Algorithms() []string {
	var plain []string
	for _, a := range ssh.SupportedAlgorithms().HostKeys {
		if !isCertificate(a) && !slices.Contains(t.first, a) {
			plain = append(plain, a)
		}
	}
	return slices.Concat(t.first, plain)
}
