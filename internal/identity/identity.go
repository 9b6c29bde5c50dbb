// Package identity is who a daemon is: its name on the bus, its key, whom it trusts, and where it keeps what it knows. Master and mirror have
// these settings in common.
package identity

import (
	"fmt"
	"os"

	"golang.org/x/crypto/ssh"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/event/signers"
	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/internal/fault"
)

// A Config is the part of a configuration that says who a daemon is. It is embedded in the whole, so its keys stand at the top of the file.
type Config struct {
	Name     string      `toml:"name"`      // the principal that signs; the daemon's name on the bus
	Key      config.Path `toml:"key"`       // private key, or a .pub file whose private half ssh-agent has
	SSHAgent config.Path `toml:"ssh_agent"` // socket of the ssh-agent; $SSH_AUTH_SOCK if empty
	Trust    config.Path `toml:"trust"`     // allowed_signers file: whose word counts
	Revoked  config.Path `toml:"revoked"`   // keys that are no longer good, as ssh-keygen -r takes them
	State    config.Path `toml:"state"`     // folder of the databases; this host's, not on a network file system
	Socket   config.Path `toml:"socket"`    // control socket
}

// Validate checks what the types cannot.
func (c *Config) Validate() error {
	if _, err := event.ParsePrincipal(c.Name); err != nil {
		return config.Fault("name", err.Error(), "")
	}
	for _, f := range []struct {
		key  string
		path config.Path
	}{{"key", c.Key}, {"trust", c.Trust}} {
		if err := config.Require(f.key, f.path); err != nil {
			return err
		}
		if err := config.NeedFile(f.key, f.path); err != nil {
			return err
		}
	}
	return nil
}

// AgentSocket is where the ssh-agent is asked.
func (c *Config) AgentSocket() string {
	if c.SSHAgent != "" {
		return string(c.SSHAgent)
	}
	return os.Getenv("SSH_AUTH_SOCK")
}

// Open opens the key and the trust file.
func (c *Config) Open() (ssh.Signer, *signers.Store, error) {
	signer, err := signers.OpenSigner(string(c.Key), c.AgentSocket())
	if err != nil {
		return nil, nil, fault.With(fmt.Errorf("key: %w", err), fault.Config, "")
	}
	trust, err := signers.Open(string(c.Trust), string(c.Revoked))
	if err != nil {
		return nil, nil, fault.With(fmt.Errorf("trust: %w", err), fault.Config, "")
	}
	return signer, trust, nil
}
