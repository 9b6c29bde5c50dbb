package poll

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/mirrorbus/mirrorbus/internal/config"
)

// A MasterConfig says where a master shows what it announces.
type MasterConfig struct {
	// Listen is the "host:port" of a web server of our own, with TLS if Cert and Key are given.
	Listen string      `toml:"listen"`
	Cert   config.Path `toml:"cert_file"`
	Key    config.Path `toml:"key_file"`

	Write   config.Path     `toml:"write"`   // a folder that some other web server serves, which gets the same files
	URL     string          `toml:"url"`     // where others find the folder, for links in the feed
	Entries int             `toml:"entries"` // announcements in a feed
	MaxAge  config.Duration `toml:"max_age"` // for how long proxies may answer by themselves

	Embargoed bool `toml:"embargoed"` // modules that only some mirrors may have are shown too

	DNS DNSConfig `toml:"dns"`
}

// A DNSConfig says where heads are put into the DNS, by RFC 2136.
type DNSConfig struct {
	Zone      string          `toml:"zone"`
	Server    string          `toml:"server"`      // "host:port" of the zone's primary server
	Key       string          `toml:"key"`         // the name of the key that may change the zone
	Algorithm string          `toml:"algorithm"`   // of the key
	Secret    config.Secret   `toml:"secret_file"` // of the key, in base64
	TTL       config.Duration `toml:"ttl"`
}

// Places say where to look. In each, "{module}" is the module's name.
type Places struct {
	Feed string `toml:"feed"` // URL
	Head string `toml:"head"` // URL
	DNS  string `toml:"dns"`  // zone
}

// A ModulePlaces says where to look for one module.
type ModulePlaces struct {
	Name string `toml:"name"`
	Places
}

// A MirrorConfig says where a mirror looks, and how often.
type MirrorConfig struct {
	Places                 // for the modules that have none of their own
	Modules []ModulePlaces `toml:"module"`

	User     string        `toml:"user"`          // for web servers that ask who we are
	Password config.Secret `toml:"password_file"` // likewise
	CA       config.Path   `toml:"ca_file"`       // certificates of those who may vouch for web servers, PEM; default: the system's

	DNSServer string `toml:"dns_server"` // "host:port" to ask; default: the system's

	EveryMin config.Duration `toml:"every_min"` // after news
	EveryMax config.Duration `toml:"every_max"` // when nothing has happened for long
	Timeout  config.Duration `toml:"timeout"`   // of one look
}

// SendsNothing implements transports.SendsNothing.
func (*MirrorConfig) SendsNothing() {}

func seconds(n int) config.Duration {
	return config.Duration{Duration: time.Duration(n) * time.Second}
}

// DefaultMasterConfig returns the defaults; it shows nothing anywhere.
func DefaultMasterConfig() *MasterConfig {
	return &MasterConfig{Entries: 50, MaxAge: seconds(10), DNS: DNSConfig{Algorithm: "hmac-sha256", TTL: seconds(30)}}
}

// DefaultMirrorConfig returns the defaults; places have none.
func DefaultMirrorConfig() *MirrorConfig {
	return &MirrorConfig{EveryMin: seconds(15), EveryMax: seconds(300), Timeout: seconds(20)}
}

// maxEntries keeps feeds below what a mirror reads.
const maxEntries = 200

// Validate implements config.Validator.
func (c *MasterConfig) Validate() error {
	var errs []error
	fault := func(key, problem, hint string) { errs = append(errs, config.Fault(key, problem, hint)) }
	if c.Listen == "" && c.Write == "" && c.DNS.Zone == "" {
		fault("listen", "is missing, and so are write and dns: nothing would be shown anywhere", `write a port, as in "127.0.0.1:8480"`)
	}
	if c.Listen != "" {
		if _, port, err := net.SplitHostPort(c.Listen); err != nil || port == "" {
			fault("listen", fmt.Sprintf("%.100q is no host and port", c.Listen), `write it as in "127.0.0.1:8480"`)
		}
	}
	if (c.Cert == "") != (c.Key == "") {
		fault("cert_file", "and key_file belong together", "give both or none")
	}
	for key, path := range map[string]config.Path{"cert_file": c.Cert, "key_file": c.Key} {
		if path != "" {
			errs = append(errs, config.NeedFile(key, path))
		}
	}
	if c.URL != "" {
		errs = append(errs, checkURL("url", c.URL))
	}
	if c.Entries < 1 || c.Entries > maxEntries {
		fault("entries", fmt.Sprintf("is %d", c.Entries), fmt.Sprintf("write a number from 1 to %d", maxEntries))
	}
	return errors.Join(errs...)
}

// algorithms are those of keys, by their names in the configuration.
func algorithms() map[string]string {
	return map[string]string{"hmac-sha256": dns.HmacSHA256, "hmac-sha384": dns.HmacSHA384, "hmac-sha512": dns.HmacSHA512}
}

// Validate implements config.Validator.
func (c *DNSConfig) Validate() error {
	if c.Zone == "" && c.Server == "" && c.Key == "" && c.Secret.IsZero() {
		return nil
	}
	errs := []error{checkZone("zone", c.Zone)}
	if _, port, err := net.SplitHostPort(c.Server); err != nil || port == "" {
		errs = append(errs, config.Fault("server", fmt.Sprintf("%.100q is no host and port", c.Server),
			`write that of the zone's primary server, as in "ns1.example.org:53"`))
	}
	if _, ok := dns.IsDomainName(c.Key); !ok || c.Key == "" || c.Secret.IsZero() {
		errs = append(errs, config.Fault("key", "and secret_file name the key that may change the zone", "make one with tsig-keygen, and write both"))
	}
	if secret, err := base64.StdEncoding.DecodeString(strings.TrimSpace(c.Secret.Reveal())); err != nil || len(secret) == 0 && !c.Secret.IsZero() {
		errs = append(errs, config.Fault("secret_file", "does not hold a secret in base64",
			"write into it what stands behind secret in the file of the key, without the quotes"))
	}
	if algorithms()[c.Algorithm] == "" {
		errs = append(errs, config.Fault("algorithm", fmt.Sprintf("is %.40q", c.Algorithm), `write "hmac-sha256", "hmac-sha384" or "hmac-sha512"`))
	}
	if c.TTL.Duration < time.Second || c.TTL.Duration > 24*time.Hour {
		errs = append(errs, config.Fault("ttl", "is less than a second or more than a day", `write a number and its unit, as in "30s"`))
	}
	return errors.Join(errs...)
}

func checkZone(key, zone string) error {
	if _, ok := dns.IsDomainName(zone); !ok || zone == "" || strings.ContainsAny(zone, " \\\"/{}@") {
		return config.Fault(key, fmt.Sprintf("%.100q is no domain name", zone), `write it as in "example.org"`)
	}
	return nil
}

// checkURL wants the address of something on the web, without a user in it: it is shown in status and logs.
func checkURL(key, text string) error {
	u, err := url.Parse(strings.ReplaceAll(text, modulePlace, "module"))
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return config.Fault(key, "is no URL of the web", `write it as in "https://master.example.org/mirrorbus/{module}/feed.atom"`)
	case u.User != nil:
		return config.Fault(key, "holds a user or a password, and would be shown", "write user and password_file")
	}
	return nil
}

// modulePlace stands for the module's name in a place.
const modulePlace = "{module}"

// Validate implements config.Validator.
func (c *MirrorConfig) Validate() error {
	errs := []error{c.check()}
	if c.none() && len(c.Modules) == 0 {
		errs = append(errs, config.Fault("feed", "is missing, and so are head and dns: one of them is to be looked at",
			`write it as in "https://master.example.org/mirrorbus/{module}/feed.atom"`))
	}
	for _, m := range c.Modules {
		errs = append(errs, m.check(), config.Require("module.name", m.Name))
	}
	if (c.User == "") != c.Password.IsZero() {
		errs = append(errs, config.Fault("user", "and password_file belong together", "give both or none"))
	}
	if c.User != "" {
		errs = append(errs, c.checkSecrecy())
	}
	if c.DNSServer != "" {
		if _, port, err := net.SplitHostPort(c.DNSServer); err != nil || port == "" {
			errs = append(errs, config.Fault("dns_server", fmt.Sprintf("%.100q is no host and port", c.DNSServer), `write it as in "192.0.2.1:53"`))
		}
	}
	if c.EveryMin.Duration < time.Millisecond || c.EveryMax.Duration < c.EveryMin.Duration {
		errs = append(errs, config.Fault("every_min", fmt.Sprintf("is %v, and every_max %v", c.EveryMin, c.EveryMax), `write the shorter one first, as in "15s" and "5m"`))
	}
	if c.Timeout.Duration < 100*time.Millisecond {
		errs = append(errs, config.Fault("timeout", "is shorter than a tenth of a second", `write a number and its unit, as in "20s"`))
	}
	return errors.Join(errs...)
}

func (p Places) none() bool { return p == Places{} }

func (p Places) check() error {
	var errs []error
	for key, place := range map[string]string{"feed": p.Feed, "head": p.Head} {
		if place != "" {
			errs = append(errs, checkURL(key, place))
		}
	}
	if p.DNS != "" {
		errs = append(errs, checkZone("dns", p.DNS))
	}
	return errors.Join(errs...)
}

// checkSecrecy wants no password to be told to everybody on the way.
func (c *MirrorConfig) checkSecrecy() error {
	for _, p := range append([]ModulePlaces{{Places: c.Places}}, c.Modules...) {
		for key, place := range map[string]string{"feed": p.Feed, "head": p.Head} {
			u, err := url.Parse(strings.ReplaceAll(place, modulePlace, "module"))
			if err == nil && u.Scheme == "http" && !loopback(u.Hostname()) {
				return config.Fault(key, "would tell the password to everybody on the way", "write https://, or leave user and password_file out")
			}
		}
	}
	return nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// of are the places to look at for a module.
func (c *MirrorConfig) of(module string) Places {
	p := c.Places
	for _, m := range c.Modules {
		if m.Name == module {
			p = m.Places
		}
	}
	for _, place := range []*string{&p.Feed, &p.Head} {
		*place = strings.ReplaceAll(*place, modulePlace, url.PathEscape(module))
	}
	return p
}
