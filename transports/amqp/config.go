package amqp

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/config"
)

// A Broker is how to reach a RabbitMQ and log in: with Password, or with Certificate and ClientKey (SASL EXTERNAL), or with both (the password
// counts, the certificate is shown).
type Broker struct {
	// Servers are the nodes of one cluster, each "amqps://HOST[:PORT]", or "amqp://" without TLS. An attempt to connect tries all of them.
	Servers []string `toml:"servers"`

	// Order in which they are tried: "random", so that many clients spread over the nodes, or "listed".
	Order string `toml:"order"`

	VHost string `toml:"vhost"`

	// User to log in as, by default this process's name. The shipped permissions let a mirror report only as the user of its own name.
	User string `toml:"user"`

	Password config.Secret `toml:"password_file"`

	CA          config.Path `toml:"ca_file"`   // certificates of those who may vouch for the broker, PEM; default: the system's
	Certificate config.Path `toml:"cert_file"` // of this client, PEM
	ClientKey   config.Path `toml:"key_file"`

	// ServerName is the name that the broker's certificate must have, by default the host of the address.
	ServerName string `toml:"server_name"`

	// Plaintext allows amqp:// to hosts other than this one: everybody on the way reads the password and what is announced.
	Plaintext bool `toml:"plaintext"`

	DialTimeout    config.Duration `toml:"dial_timeout"`    // to connect and log in to one server
	Heartbeat      config.Duration `toml:"heartbeat"`       // a dead broker is found in one and a half times as much; whole seconds
	WriteTimeout   config.Duration `toml:"write_timeout"`   // for one write to the broker
	ConfirmTimeout config.Duration `toml:"confirm_timeout"` // for the broker to say that it has a message
	RetryMax       config.Duration `toml:"retry_max"`       // the longest wait before an attempt to connect

	Window   int `toml:"window"`   // how many messages may be on their way to the broker without its confirmation
	Prefetch int `toml:"prefetch"` // how many may be on their way from it without ours
}

// A MasterConfig configures the master side.
type MasterConfig struct {
	Broker
}

// A MirrorConfig configures the mirror side.
type MirrorConfig struct {
	Broker

	// Queue says what is read: "stream", the log that all mirrors share, or "own", the queue of this mirror alone, which the broker fills while
	// it is away. A queue for each mirror costs the broker much; it is for small sites.
	Queue string `toml:"queue"`

	// Embargoed reads the log of the modules that only some mirrors may hear of, too. A queue of one's own has what the operator bound to it.
	Embargoed bool `toml:"embargoed"`
}

// The values of MirrorConfig.Queue.
const (
	readStream = "stream"
	readOwn    = "own"
)

// The values of Broker.Order.
const (
	orderRandom = "random"
	orderListed = "listed"
)

func defaultBroker() Broker {
	span := func(d time.Duration) config.Duration { return config.Duration{Duration: d} }
	return Broker{
		Order: orderRandom, VHost: "mirrorbus", DialTimeout: span(15 * time.Second), Heartbeat: span(10 * time.Second), WriteTimeout: span(15 * time.Second),
		ConfirmTimeout: span(15 * time.Second), RetryMax: span(time.Minute), Window: 100, Prefetch: 100,
	}
}

// DefaultMasterConfig returns the defaults; the servers have none. Mirrors are many, and spread their attempts over a minute; a master is one, and
// they all wait for it.
func DefaultMasterConfig() *MasterConfig {
	c := &MasterConfig{Broker: defaultBroker()}
	c.RetryMax.Duration = 10 * time.Second
	return c
}

// DefaultMirrorConfig returns the defaults; the servers have none.
func DefaultMirrorConfig() *MirrorConfig {
	return &MirrorConfig{Broker: defaultBroker(), Queue: readStream}
}

// Validate implements config.Validator.
func (c *MirrorConfig) Validate() error {
	var err error
	switch {
	case c.Queue != readStream && c.Queue != readOwn:
		err = config.Fault("queue", fmt.Sprintf("is %.40q", c.Queue), `write "stream" or "own"`)
	case c.Queue == readOwn && c.Embargoed:
		err = config.Fault("embargoed", `is for queue = "stream"`, "take it out; what comes into a queue of your own is decided by its bindings")
	}
	return errors.Join(c.Broker.Validate(), err)
}

// Validate implements config.Validator.
func (b *Broker) Validate() error {
	errs := []error{b.checkServers(), b.checkLogin(), config.Require("vhost", b.VHost)}
	if b.Order != orderRandom && b.Order != orderListed {
		errs = append(errs, config.Fault("order", fmt.Sprintf("is %.40q", b.Order), `write "random" or "listed"`))
	}
	for key, d := range map[string]config.Duration{
		"dial_timeout": b.DialTimeout, "heartbeat": b.Heartbeat, "write_timeout": b.WriteTimeout, "confirm_timeout": b.ConfirmTimeout,
		"retry_max": b.RetryMax,
	} {
		if d.Duration < time.Second {
			errs = append(errs, config.Fault(key, "is shorter than a second", `write a number and its unit, as in "10s"`))
		}
	}
	for key, n := range map[string]int{"window": b.Window, "prefetch": b.Prefetch} {
		if n < 1 || n > 10000 {
			errs = append(errs, config.Fault(key, fmt.Sprintf("is %d", n), "write a number from 1 to 10000"))
		}
	}
	return errors.Join(errs...)
}

func (b *Broker) checkServers() error {
	if len(b.Servers) == 0 {
		return config.Fault("servers", "is required", `write servers = ["amqps://bus.example.org"]`)
	}
	for _, s := range b.Servers {
		if _, err := parseServer(s, b.Plaintext); err != nil {
			return err
		}
	}
	return nil
}

func (b *Broker) checkLogin() error {
	switch {
	case (b.Certificate == "") != (b.ClientKey == ""):
		return config.Fault("cert_file", "and key_file belong together", "give both or none")
	case b.Password.IsZero() && b.Certificate == "":
		return config.Fault("password_file", "is required, or cert_file and key_file", "a file of mode 0600 that holds the password the operator of the broker gave you")
	}
	return nil
}

// A server is one node of the broker.
type server struct {
	tls  bool
	host string
	addr string // host:port
}

func parseServer(text string, plaintext bool) (server, error) {
	u, err := url.Parse(text)
	const hint = `write it as in "amqps://bus.example.org" or "amqps://bus.example.org:5671"`
	switch {
	case err != nil: // its text may hold a password
		return server{}, config.Fault("servers", "has an entry that is no address", hint)
	case u.User != nil:
		return server{}, config.Fault("servers", "has an entry with a user in it", "write user = and password_file = instead")
	case u.Scheme != "amqps" && u.Scheme != "amqp", u.Hostname() == "", u.RawQuery != "", u.Path != "" && u.Path != "/":
		return server{}, config.Fault("servers", fmt.Sprintf("has the entry %.100q, which is not scheme, host and port", text), hint)
	}
	s := server{tls: u.Scheme == "amqps", host: u.Hostname()}
	port := "5672"
	if s.tls {
		port = "5671"
	}
	s.addr = net.JoinHostPort(s.host, cmp.Or(u.Port(), port))
	if !s.tls && !plaintext && !loopback(s.host) {
		return server{}, config.Fault("servers", fmt.Sprintf("has %.100q: without TLS anybody on the way reads the password", text),
			"write amqps://, or plaintext = true if the network is yours alone")
	}
	return s, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
