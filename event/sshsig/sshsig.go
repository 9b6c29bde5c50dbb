// Package sshsig makes and verifies SSHSIG signatures, the format of ssh-keygen -Y sign and -Y verify (OpenSSH, PROTOCOL.sshsig).
//
// It says whether a key made a signature, never whether that key may be trusted: package signers does. It is stricter than ssh-keygen where
// strictness costs nobody anything: no trailing bytes, nothing in the reserved field, one encoding only for each key.
package sshsig

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"
)

// The hashes that a message may be reduced with before it is signed.
const (
	SHA256 = "sha256"
	SHA512 = "sha512" // what Sign uses, as ssh-keygen does
)

// maxNamespace is the most bytes of a namespace.
const maxNamespace = 256

// A Signature is a signature by Key over a message for one purpose, the namespace.
type Signature struct {
	Key       ssh.PublicKey // the signer's key, or its certificate
	Namespace string
	Hash      string // SHA256 or SHA512
	Sig       *ssh.Signature
}

// Sign signs message for namespace. RSA keys sign with rsa-sha2-512; DSA keys and anything that would need SHA-1 are refused.
// The result has been verified: a hardware key or an agent that signs wrongly is noticed here, not on the mirrors.
func Sign(signer ssh.Signer, namespace string, message []byte) (*Signature, error) {
	if err := checkNamespace(namespace); err != nil {
		return nil, err
	}
	key := signer.PublicKey()
	algorithms, err := algorithmsFor(key)
	if err != nil {
		return nil, err
	}
	raw, err := signWith(signer, algorithms[0], toBeSigned(namespace, SHA512, message))
	if err != nil {
		return nil, fmt.Errorf("sign with %s key %s: %w", key.Type(), ssh.FingerprintSHA256(key), err)
	}
	s := &Signature{Key: key, Namespace: namespace, Hash: SHA512, Sig: raw}
	if err := s.Verify(namespace, message); err != nil {
		return nil, fmt.Errorf("the signature just made does not verify: %w", err)
	}
	return s, nil
}

func signWith(signer ssh.Signer, algorithm string, data []byte) (*ssh.Signature, error) {
	if s, ok := signer.(ssh.AlgorithmSigner); ok {
		return s.SignWithAlgorithm(rand.Reader, data, algorithm)
	}
	if algorithm == ssh.KeyAlgoRSASHA512 {
		return nil, errors.New("this signer can only make SHA-1 signatures with an RSA key; use an ed25519 key")
	}
	return signer.Sign(rand.Reader, data)
}

// Verify says whether Key made the signature over message in namespace. A certificate is taken for the key that it certifies; who issued it,
// to whom and until when is not looked at.
func (s *Signature) Verify(namespace string, message []byte) error {
	if err := s.check(); err != nil {
		return err
	}
	if s.Namespace != namespace {
		return fmt.Errorf("signature is for namespace %.80q, not %.80q", s.Namespace, namespace)
	}
	if err := s.Key.Verify(toBeSigned(s.Namespace, s.Hash, message), s.Sig); err != nil {
		return fmt.Errorf("signature by %s key %s does not match what it is over: %w", s.Key.Type(), ssh.FingerprintSHA256(s.Key), err)
	}
	return nil
}

// check says which part of s no verifier may accept, whatever the message.
func (s *Signature) check() error {
	if err := checkNamespace(s.Namespace); err != nil {
		return err
	}
	if s.Hash != SHA256 && s.Hash != SHA512 {
		return fmt.Errorf("signature hash %.40q: must be %s or %s", s.Hash, SHA256, SHA512)
	}
	allowed, err := algorithmsFor(s.Key)
	if err != nil {
		return err
	}
	for _, a := range allowed {
		if s.Sig.Format == a {
			return nil
		}
	}
	return fmt.Errorf("signature algorithm %.60q of a %s key: must be %s", s.Sig.Format, s.Key.Type(), strings.Join(allowed, " or "))
}

func checkNamespace(ns string) error {
	if ns == "" || len(ns) > maxNamespace || strings.ContainsRune(ns, 0) {
		return fmt.Errorf("signature namespace %.80q: must be 1 to %d bytes without NUL", ns, maxNamespace)
	}
	return nil
}

// algorithmsFor lists what a key may sign with, best first. SHA-1 is in no list.
func algorithmsFor(key ssh.PublicKey) ([]string, error) {
	if cert, ok := key.(*ssh.Certificate); ok {
		return certAlgorithms(cert)
	}
	switch t := key.Type(); t {
	case ssh.KeyAlgoED25519, ssh.KeyAlgoSKED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoSKECDSA256:
		return []string{t}, nil
	case ssh.KeyAlgoRSA:
		return []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}, nil
	default:
		return nil, fmt.Errorf("%.60s keys are not accepted; use an ed25519 key", t)
	}
}

func certAlgorithms(cert *ssh.Certificate) ([]string, error) {
	if cert.Signature != nil && cert.Signature.Format == ssh.KeyAlgoRSA {
		return nil, errors.New("the certificate was issued with SHA-1 (ssh-rsa); issue it again with ssh-keygen -t rsa-sha2-512 -s")
	}
	return algorithmsFor(cert.Key)
}

// toBeSigned is the blob that the key signs (PROTOCOL.sshsig, section 3).
func toBeSigned(namespace, hash string, message []byte) []byte {
	var sum []byte
	if hash == SHA256 {
		h := sha256.Sum256(message)
		sum = h[:]
	} else {
		h := sha512.Sum512(message)
		sum = h[:]
	}
	return append([]byte(magic), ssh.Marshal(struct {
		Namespace, Reserved, Hash string
		Sum                       []byte
	}{namespace, "", hash, sum})...)
}
