package signers

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// maxKeyFile is the most bytes of a key file.
const maxKeyFile = 64 << 10

// OpenSigner returns what signs with the key that path names: a private key file signs by itself; for a public key or a certificate (its name
// ends in .pub) the ssh-agent at socket signs.
func OpenSigner(path, socket string) (ssh.Signer, error) {
	if !strings.HasSuffix(path, ".pub") {
		return LoadSigner(path)
	}
	key, err := LoadPublicKey(path)
	if err != nil {
		return nil, err
	}
	return AgentSigner(socket, key)
}

// LoadSigner reads a private key file. It must not be encrypted, because a daemon has nobody to ask, and not be readable by others. No error
// shows any of its content.
func LoadSigner(path string) (ssh.Signer, error) {
	text, err := readKeyFile(path, func(info os.FileInfo) error {
		if info.Mode().Perm()&0o077 != 0 {
			return fmt.Errorf("private key %s can be read by others (mode %04o); run: chmod 600 %s", path, info.Mode().Perm(), path)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	signer, err := ssh.ParsePrivateKey(text)
	var locked *ssh.PassphraseMissingError
	switch {
	case errors.As(err, &locked):
		return nil, fmt.Errorf("private key %s has a passphrase; add it to ssh-agent (ssh-add %s) and configure %s.pub instead", path, path, path)
	case err != nil && isPublicKey(text):
		return nil, fmt.Errorf("%s is a public key; configure the private key, or name the file .pub to sign with ssh-agent", path)
	case err != nil:
		return nil, fmt.Errorf("%s is not a private key that can be read; make one with ssh-keygen -t ed25519 -f %s", path, path)
	}
	return signer, nil
}

// LoadPublicKey reads a public key file or a certificate, as ssh-keygen writes them.
func LoadPublicKey(path string) (ssh.PublicKey, error) {
	text, err := readKeyFile(path, func(os.FileInfo) error { return nil })
	if err != nil {
		return nil, err
	}
	key, err := parseKey(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, fmt.Errorf("%s is not a public key; make it with ssh-keygen -y", path)
	}
	return key, nil
}

func isPublicKey(text []byte) bool {
	_, err := parseKey(strings.TrimSpace(string(text)))
	return err == nil
}

func readKeyFile(path string, check func(os.FileInfo) error) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() > maxKeyFile {
		return nil, fmt.Errorf("key file %s: must be a regular file of at most %d bytes", path, maxKeyFile)
	}
	if err := check(info); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	return text, nil
}

// AgentSigner returns a signer that asks the ssh-agent at socket (SSH_AUTH_SOCK) to sign with want, a public key or a certificate. Each
// signature uses a connection of its own, so the agent may be restarted in between. That the agent holds the key is checked now.
func AgentSigner(socket string, want ssh.PublicKey) (ssh.Signer, error) {
	if socket == "" {
		return nil, fmt.Errorf("%s is to be used through ssh-agent, but SSH_AUTH_SOCK is not set; start ssh-agent or configure the private key", name(want))
	}
	s := &agentSigner{socket: socket, key: want, held: want}
	err := s.ask(func(a agent.ExtendedAgent) error {
		held, err := a.List()
		if err != nil {
			return err
		}
		return s.choose(held)
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// agentTimeout bounds one signature. It leaves time to touch a hardware key or to answer ssh-agent's question.
const agentTimeout = time.Minute

// An agentSigner signs with a key that ssh-agent holds.
type agentSigner struct {
	socket string
	key    ssh.PublicKey // as shown to verifiers
	held   ssh.PublicKey // as ssh-agent knows it: key, or the key inside the certificate
}

// choose finds key among what the agent holds.
func (s *agentSigner) choose(held []*agent.Key) error {
	for _, want := range []ssh.PublicKey{s.key, plain(s.key)} {
		for _, k := range held {
			if string(k.Blob) == wire(want) {
				s.held = want
				return nil
			}
		}
	}
	return fmt.Errorf("does not hold %s; add its private key with ssh-add", name(s.key))
}

func (s *agentSigner) PublicKey() ssh.PublicKey { return s.key }

func (s *agentSigner) Sign(rand io.Reader, data []byte) (*ssh.Signature, error) {
	return s.SignWithAlgorithm(rand, data, "")
}

// SignWithAlgorithm asks for an RSA signature with the named hash; other keys know one algorithm only.
func (s *agentSigner) SignWithAlgorithm(_ io.Reader, data []byte, algorithm string) (sig *ssh.Signature, err error) {
	var flags agent.SignatureFlags
	switch algorithm {
	case ssh.KeyAlgoRSASHA256:
		flags = agent.SignatureFlagRsaSha256
	case ssh.KeyAlgoRSASHA512:
		flags = agent.SignatureFlagRsaSha512
	case "", plain(s.key).Type():
	default:
		return nil, fmt.Errorf("ssh-agent cannot sign with %.60q and %s", algorithm, name(s.key))
	}
	err = s.ask(func(a agent.ExtendedAgent) error {
		sig, err = a.SignWithFlags(s.held, data, flags)
		return err
	})
	return sig, err
}

// ask runs f with a connection to the agent.
func (s *agentSigner) ask(f func(agent.ExtendedAgent) error) error {
	conn, err := net.DialTimeout("unix", s.socket, agentTimeout)
	if err != nil {
		return fmt.Errorf("ssh-agent: %w", err)
	}
	defer conn.Close() //nolint:errcheck // the answer is here or it is not
	if err := conn.SetDeadline(time.Now().Add(agentTimeout)); err != nil {
		return fmt.Errorf("ssh-agent: %w", err)
	}
	if err := f(agent.NewClient(conn)); err != nil {
		return fmt.Errorf("ssh-agent at %s: %w", s.socket, err)
	}
	return nil
}
