package mail

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/mail"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/config"
)

// A Post is how mail is sent and received, on either side.
type Post struct {
	// SMTP is the "host:port" of the mail server that takes what is sent.
	SMTP string `toml:"smtp"`

	// TLS is "starttls", "implicit", or "none", which is for a server on this host.
	TLS string `toml:"tls"`

	// Plaintext allows tls = "none" to other hosts: everybody on the way reads what is announced, and the password.
	Plaintext bool `toml:"plaintext"`

	CA       config.Path   `toml:"ca_file"` // certificates of those who may vouch for the server, PEM; default: the system's
	User     string        `toml:"user"`    // to log in as; default: not at all
	Password config.Secret `toml:"password_file"`
	Helo     string        `toml:"helo"` // the name by which the server is greeted; default: this host's

	// From is the address of this process, To those of the other side: on a master the mirrors', or that of a list, on a mirror the master's.
	From string   `toml:"from"`
	To   []string `toml:"to"`

	// LMTP is where mail is taken: "host:port" of this host, or the path of a socket that anybody may open who may enter its folder.
	LMTP string `toml:"lmtp"`

	// IMAP is the "host:port" of the server where mail is fetched from a mailbox, and IMAPTLS how it is reached, as TLS says of the other one.
	IMAP         string        `toml:"imap"`
	IMAPTLS      string        `toml:"imap_tls"`
	IMAPUser     string        `toml:"imap_user"`
	IMAPPassword config.Secret `toml:"imap_password_file"`
	Mailbox      string        `toml:"mailbox"`

	// IMAPIdle is how long is waited for mail before the server has to show that it is there: nothing else would find one that is gone. What is on the way
	// may forget a connection that is silent for longer.
	IMAPIdle config.Duration `toml:"imap_idle"`

	// Delete takes away from the mailbox what was taken; else it is marked as seen. Mail of others is not touched.
	Delete bool `toml:"delete"`

	// BeatEvery is how often at most a mail is sent of a module of which nothing is new but the time.
	BeatEvery config.Duration `toml:"beat_every"`

	Timeout     config.Duration `toml:"timeout"`      // for one answer of the server that takes mail, and for one that hands it over to say something
	MaxSessions int             `toml:"max_sessions"` // how many may be handing over at the same time
	PerMinute   int             `toml:"per_minute"`   // how many mails are looked at; the others are to be brought again later
}

// A MasterConfig configures the master side.
type MasterConfig struct {
	Post

	// Digest are people who get of each module one mail at most in DigestEvery, which says in words what was announced.
	Digest      []string        `toml:"digest"`
	DigestEvery config.Duration `toml:"digest_every"`

	// Mirrors says which of the addresses in To is whose, by the names that modules have in their own mirrors. What only some mirrors may hear of is mailed to
	// the addresses of these and to nobody else.
	Mirrors map[string]string `toml:"mirrors"`
}

// A MirrorConfig configures the mirror side.
type MirrorConfig struct{ Post }

// The values of Post.TLS.
const (
	tlsStart    = "starttls"
	tlsImplicit = "implicit"
	tlsNone     = "none"
)

func defaultPost() Post {
	return Post{
		TLS: tlsStart, IMAPTLS: tlsImplicit, Mailbox: "INBOX", IMAPIdle: config.Duration{Duration: 4 * time.Minute}, BeatEvery: config.Duration{Duration: 6 * time.Hour},
		Timeout: config.Duration{Duration: 20 * time.Second}, MaxSessions: 64, PerMinute: 6000,
	}
}

// DefaultMasterConfig returns the defaults; addresses have none.
func DefaultMasterConfig() *MasterConfig {
	return &MasterConfig{Post: defaultPost(), DigestEvery: config.Duration{Duration: 24 * time.Hour}}
}

// DefaultMirrorConfig returns the defaults; addresses have none.
func DefaultMirrorConfig() *MirrorConfig { return &MirrorConfig{defaultPost()} }

// Validate implements config.Validator.
func (c *MirrorConfig) Validate() error {
	var err error
	if c.LMTP == "" && c.IMAP == "" {
		err = config.Fault("lmtp", "is missing, and so is imap: announcements come in there", `write the port that the mail server hands it over to, as in "127.0.0.1:2424"`)
	}
	return errors.Join(c.check(false), err)
}

// Validate implements config.Validator.
func (c *MasterConfig) Validate() error {
	errs := []error{c.check(len(c.Digest) > 0)}
	for _, a := range c.Digest {
		errs = append(errs, checkAddress("digest", a))
	}
	for name, address := range c.Mirrors {
		if name == "" || !slices.ContainsFunc(c.To, func(to string) bool { return strings.EqualFold(to, address) }) {
			errs = append(errs, config.Fault("mirrors", fmt.Sprintf("has %.100q, which is not in to", address), "write the names of mirrors, and for each its address in to"))
		}
	}
	if c.DigestEvery.Duration < time.Second {
		errs = append(errs, config.Fault("digest_every", "is shorter than a second", `write a number and its unit, as in "24h"`))
	}
	return errors.Join(errs...)
}

// check checks what both sides have. nobody: there may be no recipient.
func (p *Post) check(nobody bool) error {
	errs := []error{p.checkServer(), p.checkLogin(), p.checkAddresses(nobody), p.checkDoor(), p.checkMailbox()}
	if p.Timeout.Duration < time.Second {
		errs = append(errs, config.Fault("timeout", "is shorter than a second", `write a number and its unit, as in "20s"`))
	}
	if p.BeatEvery.Duration < 0 {
		errs = append(errs, config.Fault("beat_every", "is negative", `write a number and its unit, as in "6h"`))
	}
	for key, n := range map[string]int{"max_sessions": p.MaxSessions, "per_minute": p.PerMinute} {
		if n < 1 {
			errs = append(errs, config.Fault(key, fmt.Sprintf("is %d", n), "write a number from 1"))
		}
	}
	return errors.Join(errs...)
}

func (p *Post) checkServer() error {
	return p.checkHost("", p.SMTP, p.TLS, "smtp", `write it as in "mail.example.org:587"`)
}

// checkHost checks an address and how it is reached. prefix is that of the key tls.
func (p *Post) checkHost(prefix, at, how, key, hint string) error {
	host, port, err := net.SplitHostPort(at)
	switch {
	case err != nil || host == "" || port == "":
		return config.Fault(key, fmt.Sprintf("%.100q is no host and port", at), hint)
	case how != tlsStart && how != tlsImplicit && how != tlsNone:
		return config.Fault(prefix+"tls", fmt.Sprintf("is %.40q", how), `write "starttls", "implicit" or "none"`)
	case how == tlsNone && !p.Plaintext && !loopback(host):
		return config.Fault(prefix+"tls", fmt.Sprintf("is none, and %s is another host: anybody on the way reads all of it", host),
			`write "starttls", or plaintext = true as well if the network is yours alone`)
	}
	return nil
}

// maxIdle is how long IDLE may go on by RFC 2177.
const maxIdle = 29 * time.Minute

func (p *Post) checkMailbox() error {
	switch {
	case p.IMAP == "" && p.IMAPUser == "" && p.IMAPPassword.IsZero():
		return nil
	case p.IMAPUser == "" || p.IMAPPassword.IsZero() || p.Mailbox == "":
		return config.Fault("imap_user", "and imap_password_file and mailbox belong to imap", "give all of them or none")
	case p.IMAPIdle.Duration < time.Second || p.IMAPIdle.Duration > maxIdle:
		return config.Fault("imap_idle", fmt.Sprintf("is %v", p.IMAPIdle.Duration), `write a time from "1s" to "29m": servers end what is silent for longer (RFC 2177)`)
	}
	return p.checkHost("imap_", p.IMAP, p.IMAPTLS, "imap", `write it as in "mail.example.org:993"`)
}

func (p *Post) checkLogin() error {
	if (p.User == "") != p.Password.IsZero() {
		return config.Fault("user", "and password_file belong together", "give both or none")
	}
	return nil
}

func (p *Post) checkAddresses(nobody bool) error {
	if len(p.To) == 0 && !nobody {
		return config.Fault("to", "is missing", `write the addresses of the other side, as in ["mirrorbus@mirror1.example.org"]`)
	}
	if err := checkAddress("from", p.From); err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, a := range p.To {
		if err := checkAddress("to", a); err != nil {
			return err
		}
		if seen[strings.ToLower(a)] {
			return config.Fault("to", fmt.Sprintf("has %.100q twice", a), "give each address once")
		}
		seen[strings.ToLower(a)] = true
	}
	return nil
}

// checkAddress wants a bare address: it is written into commands as it stands.
func checkAddress(key, text string) error {
	a, err := mail.ParseAddress(text)
	if err != nil || a.Address != text || a.Name != "" || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("\"\\<>", r) }) {
		return config.Fault(key, fmt.Sprintf("%.100q is no mail address", text), `write it as in "mirrorbus@example.org"`)
	}
	return nil
}

func (p *Post) checkDoor() error {
	if p.LMTP == "" || strings.HasPrefix(p.LMTP, "/") {
		return nil
	}
	host, port, err := net.SplitHostPort(p.LMTP)
	if err != nil || port == "" || !loopback(host) {
		return config.Fault("lmtp", fmt.Sprintf("%.100q is no path, and no port of this host", p.LMTP), `write it as in "127.0.0.1:2424" or "/run/mail/mirrorbus.sock"`)
	}
	return nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// domain is the part behind the @ of our address.
func (p *Post) domain() string { return p.From[strings.LastIndexByte(p.From, '@')+1:] }

// tlsFor reads the certificates anew for each connection: they are renewed while the process runs.
func (p *Post) tlsFor(at string) (*tls.Config, error) {
	host, _, err := net.SplitHostPort(at)
	if err != nil {
		return nil, err
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host}
	if p.CA == "" {
		return conf, nil
	}
	text, err := os.ReadFile(string(p.CA))
	if err != nil {
		return nil, config.Fault("ca_file", fmt.Sprint("cannot be read: ", err), "create it or correct the path")
	}
	conf.RootCAs = x509.NewCertPool()
	if !conf.RootCAs.AppendCertsFromPEM(text) {
		return nil, config.Fault("ca_file", fmt.Sprintf("names %s, which holds no certificate", p.CA), "give certificates in PEM form")
	}
	return conf, nil
}
