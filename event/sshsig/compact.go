package sshsig

import (
	"crypto/ed25519"
	"crypto/sha256"

	"golang.org/x/crypto/ssh"
)

// KeyID is a short name for a key: the first 8 bytes of the SHA-256 of its wire form. Different keys may share one; try each.
func KeyID(key ssh.PublicKey) [8]byte {
	sum := sha256.Sum256(key.Marshal())
	return [8]byte(sum[:8])
}

// Compact takes from a signature what a verifier that knows the key cannot know: which key, and the 64 bytes of its signature. It is for plain
// ed25519 keys and SHA-512; ok is false for any other.
func Compact(s *Signature) (keyID [8]byte, raw [ed25519.SignatureSize]byte, ok bool) {
	if s.Key.Type() != ssh.KeyAlgoED25519 || s.Hash != SHA512 || s.Sig.Format != ssh.KeyAlgoED25519 || len(s.Sig.Blob) != len(raw) {
		return keyID, raw, false
	}
	return KeyID(s.Key), [ed25519.SignatureSize]byte(s.Sig.Blob), true
}

// Expand is the reverse of Compact: the whole signature, such as ssh-keygen -Y verify reads. It is not verified yet.
func Expand(key ssh.PublicKey, namespace string, raw [ed25519.SignatureSize]byte) *Signature {
	return &Signature{
		Key: key, Namespace: namespace, Hash: SHA512,
		Sig: &ssh.Signature{Format: ssh.KeyAlgoED25519, Blob: raw[:]},
	}
}
