package irc_test

import (
	"strings"
	"testing"

	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/irc"
)

// Each fault is named by its key.
func TestConfigRefuses(t *testing.T) {
	for want, change := range map[string]func(*irc.MirrorConfig){
		"servers":              func(c *irc.MirrorConfig) { c.Servers = nil },
		"no host and port":     func(c *irc.MirrorConfig) { c.Servers = []string{"irc://irc.example.org"} },
		"anybody on the way":   func(c *irc.MirrorConfig) { c.TLS, c.SASL, c.Password = false, "plain", config.NewSecret(secret) },
		"nick":                 func(c *irc.MirrorConfig) { c.Nick = "two words" },
		"user":                 func(c *irc.MirrorConfig) { c.User = strings.Repeat("x", 19) },
		"real_name":            func(c *irc.MirrorConfig) { c.RealName = "x\r\nQUIT" },
		"channel:":             func(c *irc.MirrorConfig) { c.Channel = "#a,#b" },
		"channels:":            func(c *irc.MirrorConfig) { c.Channels = map[string]string{"epel": "epel"} },
		"channel_key_file":     func(c *irc.MirrorConfig) { c.ChannelKey = config.NewSecret("a b") },
		"nickserv":             func(c *irc.MirrorConfig) { c.NickServ = "NickServ@services" },
		"sasl":                 func(c *irc.MirrorConfig) { c.SASL = "scram" },
		"password_file":        func(c *irc.MirrorConfig) { c.SASL = "plain" },
		"take the password":    func(c *irc.MirrorConfig) { c.Password = config.NewSecret(secret) },
		"cert_file":            func(c *irc.MirrorConfig) { c.SASL = "external" },
		"key_file":             func(c *irc.MirrorConfig) { c.Certificate = "x" },
		"account":              func(c *irc.MirrorConfig) { c.Account = "a b" },
		"server_password_file": func(c *irc.MirrorConfig) { c.ServerPassword = config.NewSecret("a\nb") },
		"rate":                 func(c *irc.MirrorConfig) { c.Rate = 0 },
		"burst":                func(c *irc.MirrorConfig) { c.Burst = 1 },
		"keepalive":            func(c *irc.MirrorConfig) { c.Keepalive = span(0) },
		"master":               func(c *irc.MirrorConfig) { c.Master = "" },
		"ca_file":              func(c *irc.MirrorConfig) { c.CA = "/nowhere" },
	} {
		c := irc.DefaultMirrorConfig()
		c.Servers = []string{"irc.example.org"}
		change(c)
		_, err := irc.Driver().Open(transports.Mirror, c, transports.Env{Self: "mirror1.example.org"})
		if err == nil {
			t.Errorf("%s: accepted", want)
			continue
		}
		if text := faults(err); !strings.Contains(text, want) || strings.Contains(text, secret) {
			t.Errorf("%s: got %s", want, text)
		}
	}
}

// faults is all that is said of an error: the fault and what to do.
func faults(err error) string {
	text := err.Error()
	switch e := err.(type) {
	case interface{ Unwrap() []error }:
		for _, one := range e.Unwrap() {
			text += "\n" + faults(one)
		}
	case *config.Error:
		text += e.Hint
	case interface{ Unwrap() error }:
		text += "\n" + faults(e.Unwrap())
	}
	return text
}

// Doctor tells what is well and what is not, and leaves the nick alone.
func TestExamine(t *testing.T) {
	t.Parallel()
	port := startNg(t).Port
	m := master(t, port)
	c := masterConfig(network(port, "master"))
	c.Servers = append(c.Servers, "127.0.0.1:1")
	found := irc.Driver().Examine(t.Context(), transports.Master, c, transports.Env{Self: "master"})
	var all []string
	for _, f := range found {
		all = append(all, f.What)
	}
	if len(found) != 3 || found[0].Level != transports.LevelGood || !strings.Contains(found[0].What, "lets us into #mirrorbus") ||
		found[1].Level != transports.LevelWarn || found[2].Level != transports.LevelBad {
		t.Errorf("found %q", all)
	}
	m.publishes(announce(1))
}
