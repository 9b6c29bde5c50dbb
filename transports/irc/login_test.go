package irc_test

import (
	"strings"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/irc"
)

// Accounts of InspIRCd with services: by a password, as long as Anope takes it (in one piece; of more it loses the rest), and by a certificate. Services
// take the nick from whoever has it.
func TestAccounts(t *testing.T) {
	t.Parallel()
	ca := testenv.NewAuthority(t)
	cert, client := ca.Issue("server", time.Hour*2, "127.0.0.1"), ca.Issue("client", time.Hour*2)
	server := testenv.StartInspIRCd(t, testenv.IRCOptions{Services: true, TLS: &cert})
	long := strings.Repeat("correct-horse-", 20)
	server.Register(t, "master", secret, nil)
	server.Register(t, "mirror", long, &client)
	login := func(password string) func(*irc.Network) {
		return func(n *irc.Network) {
			n.SASL, n.Password, n.NickServ, n.Keepalive = "plain", config.NewSecret(password), "NickServ", span(time.Second)
		}
	}
	external := func(n *irc.Network) {
		n.Servers, n.TLS, n.SASL, n.Account = []string{tlsAddress(server)}, true, "external", "mirror"
		n.CA, n.Certificate, n.ClientKey = config.Path(ca.File), config.Path(client.Cert), config.Path(client.Key)
	}
	open(t, transports.Master, server.Port, "master", login("wrong")).run().endsPermanently("does not let us log in to the account master")
	holder := testenv.DialIRC(t, server.Port, "master", "")
	m := master(t, server.Port, login(secret))
	holder.Await("master") // it is renamed or ended
	for _, how := range []func(*irc.Network){login(long), external} {
		heard := mirror(t, server.Port, "mirror", how)
		m.await("has its nick", func() bool { return len(m.Notes()) == 0 })
		report := "mirrorbus1 report module=fedora"
		before := len(m.bodies())
		heard.publishes(message(reports, report))
		m.await("has a report", func() bool { return len(m.bodies()) > before })
		heard.stop()
		heard.ends() //nolint:errcheck // it was stopped
	}
	none := func(n *irc.Network) {
		external(n)
		n.Certificate, n.ClientKey = config.Path(cert.Cert), config.Path(cert.Key)
	}
	open(t, transports.Mirror, server.Port, "other", none).run().endsPermanently("does not let us log in to the account mirror by external")
	if strings.Contains(m.log.String(), secret) {
		t.Error("the log holds the password")
	}
}

// Where the server knows no SASL one may tell NickServ. Who is not logged in stays out of the channel, and says why.
func TestNickServ(t *testing.T) {
	t.Parallel()
	server := testenv.StartInspIRCd(t, testenv.IRCOptions{Services: true})
	server.Register(t, "master", secret, nil)
	login := func(account, password string) func(*irc.Network) {
		return func(n *irc.Network) {
			n.SASL, n.Account, n.Password = "nickserv", account, config.NewSecret(password)
		}
	}
	m := master(t, server.Port, login("master", secret))
	m.publishes(announce(1))
	if notes := m.Notes(); len(notes) > 0 {
		t.Errorf("noted %q", notes)
	}
	m.stop()
	m.ends() //nolint:errcheck // it was stopped
	open(t, transports.Master, server.Port, "master", login("master", "wrong")).run().endsPermanently("NickServ does not log us in to the account master")
	open(t, transports.Master, server.Port, "master", login("nobody", secret)).run().endsPermanently("NickServ does not log us in to the account nobody")
	plain := startNg(t)
	quick := func(n *irc.Network) { n.DialTimeout = span(time.Second) }
	if err := open(t, transports.Master, plain.Port, "master", login("master", secret), quick).run().ends(); !strings.Contains(err.Error(), "is NickServ there") {
		t.Errorf("without services: %v", err)
	}
	if strings.Contains(m.log.String(), secret) {
		t.Error("the log holds the password")
	}
}

// Two masters have one nick and one account, and services take the nick from whoever has it. The second gets it, once; the first stands aside and says so.
func TestTwoMastersOfOneAccountDoNotFight(t *testing.T) {
	t.Parallel()
	server := testenv.StartInspIRCd(t, testenv.IRCOptions{Services: true})
	server.Register(t, "master", secret, nil)
	login := func(n *irc.Network) {
		n.SASL, n.Account, n.Password, n.NickServ, n.Keepalive = "plain", "master", config.NewSecret(secret), "NickServ", span(time.Second)
	}
	first, heard := master(t, server.Port, login), mirror(t, server.Port, "mirror")
	second := master(t, server.Port, login)
	if err := first.ends(); transports.IsPermanent(err) || !strings.Contains(err.Error(), "give each a nick of its own") {
		t.Errorf("Run returned %v", err)
	}
	second.await("has the nick", func() bool { return len(second.Notes()) == 0 })
	asked := strings.Count(first.log.String(), "asking for our nick")
	first.run().isConnected(2)
	first.await("has asked for its nick several times", func() bool { return strings.Count(first.log.String(), "asking for our nick") >= asked+4 })
	if notes := first.Notes(); len(notes) != 1 || !strings.Contains(notes[0], "is it another master?") {
		t.Errorf("noted %q", notes)
	}
	first.publishes(announce(1))
	second.publishes(announce(2))
	heard.has(body(1))
	heard.has(body(2))
	for s, times := range map[*side]uint64{first: 2, second: 1} {
		if c := s.Counters(); c["connects"] != times {
			t.Errorf("counted %v, want %d connects", c, times)
		}
	}
	second.stop()
	first.await("has its nick back", func() bool { return len(first.Notes()) == 0 })
}

func tlsAddress(s *testenv.IRCServer) string {
	return network(s.TLSPort, "").Servers[0]
}

// TLS of ngIRCd: the certificate must be for that host, of an authority that is trusted, and valid.
func TestTLS(t *testing.T) {
	t.Parallel()
	ca := testenv.NewAuthority(t)
	cert := ca.Issue("server", 2*time.Hour, "127.0.0.1")
	server := testenv.StartNgIRCd(t, testenv.IRCOptions{TLS: &cert})
	with := func(ca, name string) func(*irc.Network) {
		return func(n *irc.Network) { n.TLS, n.CA, n.ServerName = true, config.Path(ca), name }
	}
	m := master(t, server.TLSPort, with(ca.File, ""))
	m.publishes(announce(1))
	for text, change := range map[string]func(*irc.Network){
		"ca_file":     with(testenv.NewAuthority(t).File, ""),
		"server_name": with(ca.File, "irc.example.org"),
	} {
		open(t, transports.Mirror, server.TLSPort, "mirror", change).run().endsPermanently(text)
	}
	plain := func(n *irc.Network) {
		with(ca.File, "")(n)
		n.DialTimeout = span(300 * time.Millisecond) // the server waits for the end of what it takes for a line
	}
	if err := open(t, transports.Mirror, server.Port, "mirror", plain).run().ends(); err == nil || transports.IsPermanent(err) {
		t.Errorf("TLS to a plain port: Run returned %v", err)
	}
}

// What the server asks of everybody.
func TestServerPassword(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(*testing.T) *testenv.IRCServer{
		"ngircd": func(t *testing.T) *testenv.IRCServer {
			return testenv.StartNgIRCd(t, testenv.IRCOptions{Password: secret})
		},
		"inspircd": func(t *testing.T) *testenv.IRCServer {
			return testenv.StartInspIRCd(t, testenv.IRCOptions{Password: secret})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			port := start(t).Port
			open(t, transports.Master, port, "master", func(n *irc.Network) { n.ServerPassword = config.NewSecret("wrong") }).run().endsPermanently("server_password_file")
		})
	}
}
