package signers

import (
	"bufio"
	"bytes"
	"crypto/sha1" //nolint:gosec // KRLs name keys by it
	"crypto/sha256"
	"fmt"
	"io"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
)

// Revoked are keys and certificates that are good for nothing any more. A nil *Revoked is empty. It does not change after ParseRevoked.
type Revoked struct {
	keys    map[string]bool // wire forms
	sha1s   map[string]bool // of wire forms
	sha256s map[string]bool
	issued  map[string]*revokedCerts // by the wire form of their authority, "" for any
}

// revokedCerts are certificates of one authority.
type revokedCerts struct {
	spans  []span // sorted, apart from each other
	bits   []bitmap
	keyIDs map[string]bool
}

// A span is serials from lo to hi, both included.
type span struct{ lo, hi uint64 }

// A bitmap is the serials base+n for which bit n of a big-endian number is set.
type bitmap struct {
	base uint64
	bits []byte
}

func newRevoked() *Revoked {
	return &Revoked{keys: map[string]bool{}, sha1s: map[string]bool{}, sha256s: map[string]bool{}, issued: map[string]*revokedCerts{}}
}

// ParseRevoked reads a revocation file in either form that ssh-keygen -Y verify -r takes: public keys, one a line, or a binary KRL
// (OpenSSH, PROTOCOL.krl). Anything it does not understand is an error, since it might be the key that matters. name is for messages.
func ParseRevoked(r io.Reader, name string) (*Revoked, error) {
	data, err := readAll(r, name)
	if err != nil {
		return nil, err
	}
	if bytes.HasPrefix(data, []byte(krlMagic)) {
		revoked, err := parseKRL(data)
		if err != nil {
			return nil, fmt.Errorf("%s: KRL: %w", name, err)
		}
		return revoked, nil
	}
	return parseRevokedList(data, name)
}

func parseRevokedList(text []byte, name string) (*Revoked, error) {
	revoked := newRevoked()
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, MaxFile+1)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimLeft(lines.Text(), " \t")
		if line == "" || line[0] == '#' {
			continue
		}
		key, err := parseKey(line)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", name, n, err)
		}
		revoked.keys[wire(plain(key))] = true
	}
	return revoked, lines.Err()
}

// Check returns an error if key is revoked: itself, the key inside a certificate, a certificate by its serial or key id, or its authority.
func (r *Revoked) Check(key ssh.PublicKey) error {
	if r == nil {
		return nil
	}
	if r.hasKey(plain(key)) {
		return fmt.Errorf("%s is revoked", name(key))
	}
	cert, ok := key.(*ssh.Certificate)
	if !ok {
		return nil
	}
	if r.hasKey(plain(cert.SignatureKey)) {
		return fmt.Errorf("%s: its authority %s is revoked", name(key), ssh.FingerprintSHA256(cert.SignatureKey))
	}
	for _, authority := range []string{wire(cert.SignatureKey), ""} {
		if certs := r.issued[authority]; certs != nil && certs.has(cert) {
			return fmt.Errorf("%s is revoked", name(key))
		}
	}
	return nil
}

func (r *Revoked) hasKey(key ssh.PublicKey) bool {
	w := key.Marshal()
	s1, s256 := sha1.Sum(w), sha256.Sum256(w) //nolint:gosec // as above
	return r.keys[string(w)] || r.sha1s[string(s1[:])] || r.sha256s[string(s256[:])]
}

// has looks for a certificate. Serial 0, of authorities that do not number certificates, is in no list: parseKRL refuses it.
func (c *revokedCerts) has(cert *ssh.Certificate) bool {
	if c.keyIDs[cert.KeyId] {
		return true
	}
	_, found := slices.BinarySearchFunc(c.spans, cert.Serial, func(s span, n uint64) int {
		switch {
		case s.hi < n:
			return -1
		case s.lo > n:
			return 1
		}
		return 0
	})
	return found || slices.ContainsFunc(c.bits, func(b bitmap) bool { return b.has(cert.Serial) })
}

func (b bitmap) has(n uint64) bool {
	if n < b.base || (n-b.base)/8 >= uint64(len(b.bits)) {
		return false
	}
	bit := n - b.base
	return b.bits[uint64(len(b.bits))-1-bit/8]>>(bit%8)&1 == 1
}

// settle sorts and joins the spans, so that has can search them.
func (c *revokedCerts) settle() {
	slices.SortFunc(c.spans, func(a, b span) int {
		if a.lo < b.lo {
			return -1
		}
		if a.lo > b.lo {
			return 1
		}
		return 0
	})
	joined := c.spans[:0]
	for _, s := range c.spans {
		if n := len(joined); n > 0 && s.lo <= joined[n-1].hi {
			joined[n-1].hi = max(joined[n-1].hi, s.hi)
			continue
		}
		joined = append(joined, s)
	}
	c.spans = joined
}

// plain is the key that a certificate certifies, or the key itself.
func plain(key ssh.PublicKey) ssh.PublicKey {
	if cert, ok := key.(*ssh.Certificate); ok {
		return cert.Key
	}
	return key
}

func wire(key ssh.PublicKey) string { return string(key.Marshal()) }
