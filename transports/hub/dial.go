package hub

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/mirrorbus/mirrorbus/internal/hostkey"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/line"
)

// dial connects to the hub and authenticates.
func (c *Client) dial(ctx context.Context) (*line.Line, error) {
	trusted, err := c.trusted()
	if err != nil {
		return nil, transports.Permanent(err)
	}
	return line.Call{
		What: "hub " + c.conf.Address, Address: c.conf.Address, User: userName, Version: clientVersion, Keys: []ssh.Signer{c.env.Signer}, Trust: trusted,
		Timeout: c.conf.DialTimeout.Duration, Explain: c.explain,
	}.Dial(ctx)
}

func (c *Client) trusted() (hostkey.Trust, error) {
	if c.conf.KnownHosts == "" {
		return hostkey.Pin(c.conf.HostKey)
	}
	t, err := hostkey.Known(string(c.conf.KnownHosts), c.conf.Address)
	if errors.Is(err, hostkey.ErrUnknown) {
		err = fmt.Errorf("%w: add the line that `mirrorbus init master` printed on the master", err)
	}
	return t, err
}

// explain says what a failed handshake means. That the hub did not take the key is only in the library's text; a test keeps watch over it.
func (c *Client) explain(err error) error {
	switch {
	case errors.Is(err, hostkey.ErrOther):
		return transports.Permanent(fmt.Errorf("hub: %w", err))
	case strings.Contains(err.Error(), "unable to authenticate"):
		return transports.Permanent(fmt.Errorf("hub %s refuses our key %s: on the master, run the line that `mirrorbus init mirror` printed",
			c.conf.Address, ssh.FingerprintSHA256(c.env.Signer.PublicKey())))
	}
	return fmt.Errorf("hub %s: %w", c.conf.Address, err)
}
