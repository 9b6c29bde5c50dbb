package irc

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/lrstanley/girc"

	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/transports"
)

// The longest names that common networks take. What is said is cut by the server if the name of the sender makes it too long.
const (
	maxNick    = 30
	maxUser    = 18 // and "~", which the server may put before it
	maxHost    = 64
	maxChannel = 50
)

// A Network is how to reach a network, and whom to be there.
type Network struct {
	// Servers of one network, "host" or "host:port", in the order in which they are tried.
	Servers []string `toml:"servers"`

	TLS         bool        `toml:"tls"`
	CA          config.Path `toml:"ca_file"`   // certificates of those who may vouch for the server, PEM; default: the system's
	Certificate config.Path `toml:"cert_file"` // of this client, PEM
	ClientKey   config.Path `toml:"key_file"`
	ServerName  string      `toml:"server_name"` // that the server's certificate must have, by default the host of the address

	ServerPassword config.Secret `toml:"server_password_file"` // that a closed network asks of everybody

	Nick     string `toml:"nick"` // by default "mirrorbus" of a master, and a mirror's own name
	User     string `toml:"user"`
	RealName string `toml:"real_name"`

	// SASL is how to log in to an account: "plain" with a password, "external" with the client's certificate, "nickserv" by telling that one a password,
	// for networks whose servers know no SASL; "" not at all.
	SASL     string        `toml:"sasl"`
	Account  string        `toml:"account"` // by default the nick
	Password config.Secret `toml:"password_file"`

	// NickServ is who is asked to take our nick from whoever has it, "" nobody.
	NickServ string `toml:"nickserv"`

	Channel    string            `toml:"channel"`
	Channels   map[string]string `toml:"channels"`         // modules that have one of their own, and which
	ChannelKey config.Secret     `toml:"channel_key_file"` // of all of them

	Rate  float64 `toml:"rate"`  // lines a second that may be said
	Burst int     `toml:"burst"` // lines that may be said at once after a silence

	DialTimeout   config.Duration `toml:"dial_timeout"`   // to connect to one server, log in and join
	Keepalive     config.Duration `toml:"keepalive"`      // a dead connection is noticed in twice this time
	WriteTimeout  config.Duration `toml:"write_timeout"`  // for one line
	AnswerTimeout config.Duration `toml:"answer_timeout"` // for the server to say that it has taken a message
	Rejoin        config.Duration `toml:"rejoin"`         // the wait before the channel is joined again after a kick; it doubles up to ten minutes
}

// A MasterConfig configures the master side.
type MasterConfig struct {
	Network
	People
}

// People says what people hear of the master, and what it does for them.
type People struct {
	// News says in the channel, by NOTICE, what was announced and how many mirrors have it.
	News bool `toml:"news"`

	// Ask says who may ask, as by !status: "account", who is logged in to one that the server vouches for; "anybody"; or "nobody".
	Ask string `toml:"ask"`

	// Embargoed announces modules, too, that only some mirrors may hear of. It is for a channel that lets nobody else in.
	Embargoed bool `toml:"embargoed"`

	// Operators are the accounts that may have something announced, as by !sync, where the server vouches for them.
	Operators []string `toml:"operators"`
}

// The values of People.Ask.
const (
	askAccount = "account"
	askAnybody = "anybody"
	askNobody  = "nobody"
)

// A MirrorConfig configures the mirror side.
type MirrorConfig struct {
	Network

	// Master is the nick that reports are sent to.
	Master string `toml:"master"`
}

// The values of Network.SASL.
const (
	saslNone     = ""
	saslPlain    = "plain"
	saslExternal = "external"
	saslNickServ = "nickserv"
)

// wantsPassword tells whether the way to log in is by password.
func wantsPassword(sasl string) bool { return sasl == saslPlain || sasl == saslNickServ }

func defaultNetwork() Network {
	seconds := func(n int) config.Duration { return config.Duration{Duration: time.Duration(n) * time.Second} }
	return Network{TLS: true, User: "mirrorbus", Channel: "#mirrorbus", Rate: 1, Burst: 5, DialTimeout: seconds(30), Keepalive: seconds(30), WriteTimeout: seconds(15),
		AnswerTimeout: seconds(20), Rejoin: seconds(30)}
}

// defaultMaster is the nick of a master, which its mirrors report to.
const defaultMaster = "mirrorbus"

// DefaultMasterConfig returns the defaults; the servers have none.
func DefaultMasterConfig() *MasterConfig {
	c := &MasterConfig{Network: defaultNetwork(), People: People{News: true, Ask: askAccount}}
	c.Nick = defaultMaster
	return c
}

// Validate implements config.Validator.
func (c *MasterConfig) Validate() error {
	err := c.Network.Validate()
	if c.Ask != askAccount && c.Ask != askAnybody && c.Ask != askNobody {
		err = errors.Join(err, config.Fault("ask", fmt.Sprintf("is %.40q", c.Ask), `write "account", "anybody" or "nobody"`))
	}
	for _, account := range c.Operators {
		if account == "" || account == "*" || strings.ContainsAny(account, " *?") || !sayable(account) {
			err = errors.Join(err, config.Fault("operators", fmt.Sprintf("has %.40q, which is no account", account), "write names as services know them, no patterns"))
		}
	}
	return err
}

// DefaultMirrorConfig returns the defaults; the servers have none.
func DefaultMirrorConfig() *MirrorConfig {
	return &MirrorConfig{Network: defaultNetwork(), Master: defaultMaster}
}

// Validate implements config.Validator.
func (c *MirrorConfig) Validate() error {
	err := c.Network.Validate()
	if !validNick(c.Master) {
		err = errors.Join(err, config.Fault("master", fmt.Sprintf("is %.40q, which is no nick", c.Master), "write the nick of the master, which reports are sent to"))
	}
	return err
}

func validNick(nick string) bool { return girc.IsValidNick(nick) && len(nick) <= maxNick }

// Validate implements config.Validator.
func (n *Network) Validate() error {
	errs := []error{n.checkServers(), n.checkNames(), n.checkLogin()}
	if n.Rate < 0.1 || n.Rate > 100000 {
		errs = append(errs, config.Fault("rate", fmt.Sprintf("is %v", n.Rate), "write lines per second, from 0.1; most servers bear 1"))
	}
	if n.Burst < 2 || n.Burst > 100000 {
		errs = append(errs, config.Fault("burst", fmt.Sprintf("is %d", n.Burst), "write a number of lines from 2; most servers bear 5"))
	}
	for key, d := range map[string]config.Duration{
		"dial_timeout": n.DialTimeout, "keepalive": n.Keepalive, "write_timeout": n.WriteTimeout, "answer_timeout": n.AnswerTimeout, "rejoin": n.Rejoin,
	} {
		if d.Duration <= 0 {
			errs = append(errs, config.Fault(key, "must be longer than nothing", `write a number and its unit, as in "30s"`))
		}
	}
	return errors.Join(errs...)
}

func (n *Network) checkServers() error {
	if len(n.Servers) == 0 {
		return config.Fault("servers", "is required", `write servers = ["irc.example.org"]`)
	}
	for _, text := range n.Servers {
		host, _, err := n.address(text)
		if err != nil {
			return err
		}
		if !n.TLS && !loopback(host) && !(n.Password.IsZero() && n.ServerPassword.IsZero()) {
			return config.Fault("tls", "is false, and there is a password: anybody on the way to "+host+" reads it", "take tls = false out, or the password")
		}
	}
	return nil
}

// address takes a server's address apart, and fills the usual port in.
func (n *Network) address(text string) (host, port string, err error) {
	host, port = text, "6667"
	if n.TLS {
		port = "6697"
	}
	if h, p, err := net.SplitHostPort(text); err == nil {
		host, port = h, p
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || host == "" || strings.ContainsAny(host, "/ @[]") || strings.Contains(host, ":") && net.ParseIP(host) == nil {
		return "", "", config.Fault("servers", fmt.Sprintf("has the entry %.100q, which is no host and port", text), `write it as in "irc.example.org" or "irc.example.org:6697"`)
	}
	return host, port, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (n *Network) checkNames() error {
	for module, channel := range n.Channels {
		if err := (transports.Topic{Kind: transports.Announce, Module: module}).Check(); err != nil {
			return config.Fault("channels", "names no module: "+err.Error(), `write it as in channels = { fedora = "#fedora-mirrors" }`)
		}
		if !validChannel(channel) {
			return config.Fault("channels", fmt.Sprintf("has %.60q, which is no channel", channel), `write it as in "#mirrorbus", with at most 50 bytes`)
		}
	}
	switch {
	case n.Nick != "" && !validNick(n.Nick):
		return config.Fault("nick", fmt.Sprintf("is %.40q, which is no nick", n.Nick), "write 1 to 30 letters, digits or -, the first a letter")
	case n.User != "" && (!girc.IsValidUser(n.User) || len(n.User) > maxUser):
		return config.Fault("user", fmt.Sprintf("is %.40q, which is no user name for IRC", n.User), "write 1 to 18 letters or digits")
	case !sayable(n.RealName) || len(n.RealName) > 100:
		return config.Fault("real_name", "holds control characters, or is longer than 100 bytes", "write one short line")
	case !validChannel(n.Channel):
		return config.Fault("channel", fmt.Sprintf("is %.60q, which is no channel", n.Channel), `write it as in "#mirrorbus", with at most 50 bytes`)
	case strings.ContainsAny(n.ChannelKey.Reveal(), " ,:") || !sayable(n.ChannelKey.Reveal()):
		return config.Fault("channel_key_file", "holds a key that no channel has", "a key is one word without comma and colon")
	case n.NickServ != "" && !validNick(n.NickServ):
		return config.Fault("nickserv", fmt.Sprintf("is %.40q, which is no nick", n.NickServ), `write "NickServ"`)
	}
	return nil
}

func validChannel(channel string) bool {
	name, ok := strings.CutPrefix(channel, "#")
	return ok && name != "" && len(channel) <= maxChannel && !strings.ContainsAny(name, " ,:") && sayable(name)
}

// channelOf is the channel where a module is spoken of.
func (n *Network) channelOf(module string) string { return cmp.Or(n.Channels[module], n.Channel) }

func (n *Network) checkLogin() error {
	switch {
	case n.SASL != saslNone && n.SASL != saslExternal && !wantsPassword(n.SASL):
		return config.Fault("sasl", fmt.Sprintf("is %.40q", n.SASL), `write "plain", "external", "nickserv" or ""`)
	case wantsPassword(n.SASL) && n.Password.IsZero():
		return config.Fault("password_file", fmt.Sprintf("is required for sasl = %q", n.SASL), "a file of mode 0600 that holds the password of the account")
	case !wantsPassword(n.SASL) && !n.Password.IsZero():
		return config.Fault("password_file", `is for sasl = "plain"`, `write sasl = "plain", or take the password out`)
	case n.SASL == saslNickServ && strings.ContainsAny(n.Password.Reveal(), " \r\n\x00"):
		return config.Fault("password_file", "holds a password that cannot be said to NickServ", "a password without spaces")
	case n.SASL == saslExternal && (n.Certificate == "" || !n.TLS):
		return config.Fault("cert_file", `is required for sasl = "external", and tls`, "give the certificate whose fingerprint the account has")
	case (n.Certificate == "") != (n.ClientKey == ""):
		return config.Fault("cert_file", "and key_file belong together", "give both or none")
	case !sayable(n.Account) || strings.Contains(n.Account, " "):
		return config.Fault("account", "is no name of an account", "write the name that services know")
	case !sayable(n.ServerPassword.Reveal()) || len(n.ServerPassword.Reveal()) > 300:
		return config.Fault("server_password_file", "holds what no server takes as its password", "a password is one line of at most 300 bytes")
	}
	return nil
}

// sayable tells whether a text can stand in a line.
func sayable(text string) bool { return !strings.ContainsAny(text, "\r\n\x00") }

// tlsConfig reads the certificates, anew for each connection: they are renewed while the process runs.
func (n *Network) tlsConfig(host string) (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host}
	if n.ServerName != "" {
		conf.ServerName = n.ServerName
	}
	if n.CA != "" {
		text, err := os.ReadFile(string(n.CA))
		if err != nil {
			return nil, config.Fault("ca_file", fmt.Sprint("cannot be read: ", err), "create it or correct the path")
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(text) {
			return nil, config.Fault("ca_file", fmt.Sprintf("names %s, which holds no certificate", n.CA), "give certificates in PEM form")
		}
	}
	if n.Certificate != "" {
		pair, err := tls.LoadX509KeyPair(string(n.Certificate), string(n.ClientKey))
		if err != nil {
			return nil, config.Fault("cert_file", fmt.Sprint("and key_file cannot be used: ", err), "give the certificate and its private key in PEM form")
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	return conf, nil
}
