package ssh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/mirrorbus/mirrorbus/internal/hostkey"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/line"
)

// clientVersion is what the sshd of a mirror logs.
const clientVersion = "SSH-2.0-mirrorbus"

// dial connects to the mirror and authenticates.
func (c *caller) dial(ctx context.Context) (*line.Line, error) {
	trusted, err := c.trusted()
	if err != nil {
		return nil, transports.Permanent(err)
	}
	keys, done, err := c.keys()
	if err != nil {
		return nil, transports.Permanent(err)
	}
	defer done()
	return line.Call{
		What: c.at.Address, Address: c.at.Address, User: c.at.User, Version: clientVersion, Keys: keys, Trust: trusted,
		Timeout: c.m.conf.DialTimeout.Duration, Explain: func(err error) error { return c.explain(err, keys) },
	}.Dial(ctx)
}

func (c *caller) trusted() (hostkey.Trust, error) {
	if c.at.HostKey != "" {
		return hostkey.Pin(c.at.HostKey)
	}
	t, err := hostkey.Known(string(c.m.conf.KnownHosts), c.at.Address)
	if errors.Is(err, hostkey.ErrUnknown) {
		err = fmt.Errorf("%w: add the line that its operator gives you, or the one that ssh-keyscan prints once you have checked it", err)
	}
	return t, err
}

// keys are those of the files and of the agent. done is to be called when they have signed.
func (c *caller) keys() (all []ssh.Signer, done func(), err error) {
	for _, file := range c.at.Keys {
		key, err := hostkey.Private(string(file))
		if err != nil {
			return nil, nil, fmt.Errorf("key: %w", err)
		}
		cert, err := certified(key, string(file)+"-cert.pub")
		if err != nil {
			return nil, nil, fmt.Errorf("certificate: %w", err)
		}
		all = append(all, cert...)
	}
	done = func() {}
	if !c.m.conf.Agent {
		return all, done, nil
	}
	socket, err := net.Dial("unix", os.Getenv("SSH_AUTH_SOCK"))
	if err != nil {
		return nil, nil, fmt.Errorf("ssh-agent: %w; is SSH_AUTH_SOCK set for the daemon?", err)
	}
	theirs, err := agent.NewClient(socket).Signers()
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("ssh-agent: %w", err), socket.Close())
	}
	return append(all, theirs...), func() { socket.Close() }, nil //nolint:errcheck // nothing was written that matters
}

// certified is the key, after itself with its certificate if the file has one.
func certified(key ssh.Signer, file string) ([]ssh.Signer, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return []ssh.Signer{key}, nil
	}
	if err != nil {
		return nil, err
	}
	public, _, _, _, err := ssh.ParseAuthorizedKey(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	cert, ok := public.(*ssh.Certificate)
	if !ok {
		return nil, fmt.Errorf("%s holds a key and no certificate", file)
	}
	with, err := ssh.NewCertSigner(cert, key)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return []ssh.Signer{with, key}, nil
}

// explain says what a failed handshake means. That the mirror did not take the key is only in the library's text; a test keeps watch over it.
func (c *caller) explain(err error, keys []ssh.Signer) error {
	switch {
	case errors.Is(err, hostkey.ErrOther):
		return transports.Permanent(err)
	case strings.Contains(err.Error(), "unable to authenticate"):
		var shown []string
		for _, k := range keys {
			shown = append(shown, ssh.FingerprintSHA256(k.PublicKey()))
		}
		return transports.Permanent(fmt.Errorf("%s lets in none of our keys (%s) as user %s: its operator adds a line to authorized_keys, see deploy/ssh", c.at.Address, strings.Join(shown, ", "), c.at.User))
	}
	return fmt.Errorf("%s: %w", c.at.Address, err)
}
