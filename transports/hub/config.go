package hub

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/internal/hostkey"
)

// A ServerConfig configures the master side.
type ServerConfig struct {
	// Listen is the "host:port" to listen on; an empty host means every address.
	Listen string `toml:"listen"`

	// HostKey is the file of the private key that agents recognise the hub by, made by `mirrorbus init master`. Nobody else may read it.
	HostKey config.Path `toml:"host_key"`

	// MaxConnections is how many authenticated connections are kept at the same time.
	MaxConnections int `toml:"max_connections"`

	// MaxUnauthenticated is how many connections may be on their way to authentication. When there are more the oldest has to
	// go, once it has had a tenth of HandshakeTimeout.
	MaxUnauthenticated int `toml:"max_unauthenticated"`

	// AcceptRate is how many connections are accepted per second, AcceptBurst how many at once after a pause. Others wait in the system's queue.
	AcceptRate  int `toml:"accept_rate"`
	AcceptBurst int `toml:"accept_burst"`

	// HandshakeTimeout is the time from the connection to the end of authentication.
	HandshakeTimeout config.Duration `toml:"handshake_timeout"`

	// Keepalive is how often a peer is asked whether it is there, and how long it has for the answer. So a dead one is found in twice that
	// time. It is also how often a subscriber gets a line when there is nothing to say, and a key that was revoked is looked at.
	Keepalive config.Duration `toml:"keepalive"`

	// WriteTimeout is how long a subscriber may take nothing while something waits for it.
	WriteTimeout config.Duration `toml:"write_timeout"`

	// QueueSize is how much may wait for one subscriber in memory. One that falls further behind is closed and resumes later.
	QueueSize config.Size `toml:"queue_size"`
}

// DefaultServerConfig returns the defaults: port 2222 of every address; the host key has none.
func DefaultServerConfig() *ServerConfig {
	return &ServerConfig{
		Listen: ":2222", MaxConnections: 2000, MaxUnauthenticated: 512, AcceptRate: 200, AcceptBurst: 200,
		HandshakeTimeout: config.Duration{Duration: 20 * time.Second}, Keepalive: config.Duration{Duration: 20 * time.Second},
		WriteTimeout: config.Duration{Duration: time.Minute}, QueueSize: 16 << 20,
	}
}

// Validate implements config.Validator.
func (c *ServerConfig) Validate() error {
	errs := []error{
		config.Require("host_key", c.HostKey), checkAddress("listen", c.Listen, ":2222"),
		checkSpan("handshake_timeout", c.HandshakeTimeout), checkSpan("keepalive", c.Keepalive), checkSpan("write_timeout", c.WriteTimeout),
		config.Require("queue_size", c.QueueSize),
	}
	for key, n := range map[string]int{
		"max_connections": c.MaxConnections, "max_unauthenticated": c.MaxUnauthenticated, "accept_rate": c.AcceptRate, "accept_burst": c.AcceptBurst,
	} {
		if n < 1 {
			errs = append(errs, config.Fault(key, fmt.Sprintf("is %d", n), "write a number from 1"))
		}
	}
	return errors.Join(errs...)
}

// A ClientConfig configures the mirror side. One of HostKey and KnownHosts is required: a hub that nobody has vouched for is not spoken to.
type ClientConfig struct {
	Address string `toml:"address"` // of the hub, "host:port"

	// HostKey is the hub's public key as in its .pub file, or its fingerprint ("SHA256:…"), as `mirrorbus init master` prints them.
	HostKey string `toml:"host_key"`

	// KnownHosts is a file in the format of OpenSSH that holds the hub's key, instead of HostKey.
	KnownHosts config.Path `toml:"known_hosts"`

	DialTimeout config.Duration `toml:"dial_timeout"` // to connect; and again to authenticate and subscribe
	Keepalive   config.Duration `toml:"keepalive"`    // as ServerConfig.Keepalive: a dead hub is found in twice that time
}

// DefaultClientConfig returns the defaults; the address and the host key have none.
func DefaultClientConfig() *ClientConfig {
	return &ClientConfig{
		DialTimeout: config.Duration{Duration: 20 * time.Second}, Keepalive: config.Duration{Duration: 20 * time.Second},
	}
}

// Validate implements config.Validator.
func (c *ClientConfig) Validate() error {
	return errors.Join(
		checkAddress("address", c.Address, "master.example.org:2222"), c.checkHostKey(),
		checkSpan("dial_timeout", c.DialTimeout), checkSpan("keepalive", c.Keepalive),
	)
}

func (c *ClientConfig) checkHostKey() error {
	switch {
	case c.HostKey != "" && c.KnownHosts != "":
		return config.Fault("known_hosts", "is given together with host_key", "keep one of them")
	case c.KnownHosts != "":
		return config.NeedFile("known_hosts", c.KnownHosts)
	case c.HostKey == "":
		return config.Fault("host_key", "is required, or known_hosts", "write the line that `mirrorbus init master` printed on the master")
	}
	if _, err := hostkey.Pin(c.HostKey); err != nil {
		return config.Fault("host_key", err.Error(), "write the line that `mirrorbus init master` printed on the master")
	}
	return nil
}

func checkAddress(key, address, example string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil || port == "" || key == "address" && host == "" {
		return config.Fault(key, fmt.Sprintf("%.100q is no host and port", address), fmt.Sprintf("write it as in %q", example))
	}
	return nil
}

func checkSpan(key string, d config.Duration) error {
	if d.Duration <= 0 {
		return config.Fault(key, "must be longer than nothing", `write a number and its unit, as in "20s"`)
	}
	return nil
}
