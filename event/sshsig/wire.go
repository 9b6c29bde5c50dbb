package sshsig

import (
	"bytes"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/ssh"
)

const (
	magic   = "SSHSIG"
	version = 1
)

// MaxBlob is the most bytes that Parse reads. An RSA-16384 signature by a certificate with a hundred principals fits.
const MaxBlob = 16 << 10

// Marshal writes the binary form (PROTOCOL.sshsig, section 2).
func (s *Signature) Marshal() []byte {
	return append([]byte(magic), ssh.Marshal(struct {
		Version                   uint32
		Key                       []byte
		Namespace, Reserved, Hash string
		Sig                       []byte
	}{version, s.Key.Marshal(), s.Namespace, "", s.Hash, ssh.Marshal(s.Sig)})...)
}

// Parse reads the binary form. What it accepts, Marshal writes again byte for byte.
func Parse(blob []byte) (*Signature, error) {
	if len(blob) > MaxBlob {
		return nil, fmt.Errorf("signature of %d bytes: at most %d", len(blob), MaxBlob)
	}
	rest, ok := bytes.CutPrefix(blob, []byte(magic))
	if !ok {
		return nil, fmt.Errorf("signature begins with %.6q: must be %s", blob, magic)
	}
	in := cryptobyte.String(rest)
	var v uint32
	var key, namespace, reserved, hash, sig []byte
	if !in.ReadUint32(&v) {
		return nil, errShort
	}
	if v != version {
		return nil, fmt.Errorf("signature version %d: must be %d", v, version)
	}
	for _, field := range []*[]byte{&key, &namespace, &reserved, &hash, &sig} {
		if !readString(&in, field) {
			return nil, errShort
		}
	}
	if len(in) != 0 {
		return nil, fmt.Errorf("signature is followed by %d more bytes", len(in))
	}
	if len(reserved) != 0 {
		return nil, errors.New("signature has a reserved field: it needs a later version of this program")
	}
	return assemble(key, string(namespace), string(hash), sig)
}

var errShort = errors.New("signature is cut short")

func assemble(keyBlob []byte, namespace, hash string, sigBlob []byte) (*Signature, error) {
	key, err := ssh.ParsePublicKey(keyBlob)
	if err != nil {
		return nil, fmt.Errorf("key in signature: %w", err)
	}
	if !bytes.Equal(key.Marshal(), keyBlob) {
		return nil, fmt.Errorf("key in signature: unusual encoding of a %s key", key.Type())
	}
	sig := new(ssh.Signature)
	if err := ssh.Unmarshal(sigBlob, sig); err != nil {
		return nil, fmt.Errorf("signature value: %w", err)
	}
	if len(sig.Rest) != 0 && !bytes.HasPrefix([]byte(sig.Format), []byte("sk-")) {
		return nil, fmt.Errorf("signature value is followed by %d more bytes", len(sig.Rest))
	}
	s := &Signature{Key: key, Namespace: namespace, Hash: hash, Sig: sig}
	return s, s.check()
}

// readString reads a length and as many bytes, which stay part of in.
func readString(in *cryptobyte.String, out *[]byte) bool {
	var n uint32
	return in.ReadUint32(&n) && uint64(n) <= uint64(len(*in)) && in.ReadBytes(out, int(n))
}
