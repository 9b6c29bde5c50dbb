package testenv

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// IRCOptions describe an IRC server. The zero value is a plain one that lets its users talk as fast as they like.
type IRCOptions struct {
	TLS      *Certificate // also listen with TLS
	Password string       // that everybody has to give
	Limits   bool         // the limits that the server has by default against floods
	Kills    bool         // who exceeds them is disconnected instead of slowed down (InspIRCd)
	Services bool         // accounts: an Anope beside it; see IRCServer.Register
}

// An IRCServer is a running ngIRCd or InspIRCd. Its operator is "oper" with the password "operpass".
type IRCServer struct {
	server
	Port    int
	TLSPort int // 0 if there is none
	Dir     string

	anope *server
	link  int // port for other servers
}

// Stop ends the server. It is not asked to: InspIRCd may die of that in the middle of a write.
func (s *IRCServer) Stop() { s.Kill() }

// Freeze stops the server as a host does that hangs: connections stay, and nothing answers. Thaw lets it go on.
func (s *IRCServer) Freeze() { s.signal(syscall.SIGSTOP) }

// Thaw lets a server go on that Freeze has stopped.
func (s *IRCServer) Thaw() { s.signal(syscall.SIGCONT) }

func (s *IRCServer) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := syscall.Kill(-s.PID(), sig); err != nil {
		s.t.Fatal(err)
	}
}

// StartNgIRCd starts an ngIRCd. With services it tells the accounts of its users when it is asked, and does not put them to what they say.
func StartNgIRCd(t testing.TB, o IRCOptions) *IRCServer {
	t.Helper()
	if o.Services {
		Need(t, "anope")
	}
	s := started(t, func() *IRCServer { return newNgIRCd(t, o, "ng", 0) })
	if o.Services {
		s.startAnope()
	}
	return s
}

func newNgIRCd(t testing.TB, o IRCOptions, name string, peer int) *IRCServer {
	t.Helper()
	binary := Need(t, "ngircd")
	s := &IRCServer{Port: FreePort(t), Dir: t.TempDir()}
	lines := []string{"[Global]", "Name = " + name + ".mirrorbus.test", "Info = test", "Network = test", "Listen = 127.0.0.1", fmt.Sprint("Ports = ", s.Port),
		"MotdPhrase = test", "AdminInfo1 = test"}
	if os.Geteuid() == 0 {
		lines = append(lines, "ServerUID = root", "ServerGID = root")
	}
	if o.Password != "" {
		lines = append(lines, "Password = "+o.Password)
	}
	lines = append(lines, "[Limits]", "ConnectRetry = 5", "MaxConnections = 0", "MaxConnectionsIP = 0", "MaxJoins = 20", "MaxNickLength = 30", "PingTimeout = 60", "PongTimeout = 20")
	if !o.Limits {
		lines = append(lines, "MaxPenaltyTime = 0")
	}
	lines = append(lines, "[Options]", "DNS = no", "Ident = no", "PAM = no", "OperCanUseMode = yes", "[Operator]", "Name = oper", "Password = operpass")
	if o.TLS != nil {
		s.TLSPort = FreePort(t)
		lines = append(lines, "[SSL]", "CertFile = "+o.TLS.Cert, "KeyFile = "+o.TLS.Key, fmt.Sprint("Ports = ", s.TLSPort))
	}
	other, how := "ng2", []string{"Passive = yes"}
	if peer != 0 {
		other, how = "ng", []string{"Host = 127.0.0.1", fmt.Sprint("Port = ", peer)}
	}
	lines = append(lines, "[Server]", "Name = "+other+".mirrorbus.test", "MyPassword = linkpass", "PeerPassword = linkpass")
	if o.Services {
		how = append(how, "[Server]", "Name = services.mirrorbus.test", "MyPassword = linkpass", "PeerPassword = linkpass", "Passive = yes", "ServiceMask = *Serv")
	}
	conf := filepath.Join(s.Dir, "ngircd.conf")
	writeFile(t, conf, strings.Join(append(lines, how...), "\n")+"\n")
	s.server = server{t: t, argv: []string{binary, "-n", "-f", conf}, logFile: filepath.Join(s.Dir, "log"), ready: func() error { return listens(s.Port) }, limit: 20 * time.Second}
	return s
}

// StartInspIRCd starts an InspIRCd, which vouches for the accounts of its users (IRCv3 account-tag) if there are services.
func StartInspIRCd(t testing.TB, o IRCOptions) *IRCServer {
	t.Helper()
	if o.Services {
		Need(t, "anope")
	}
	s := started(t, func() *IRCServer { return newInspIRCd(t, o, 0) })
	if o.Services {
		s.startAnope()
	}
	return s
}

func newInspIRCd(t testing.TB, o IRCOptions, peer int) *IRCServer {
	t.Helper()
	binary := Need(t, "inspircd")
	s := &IRCServer{Port: FreePort(t), link: FreePort(t), Dir: t.TempDir()}
	if o.TLS != nil {
		s.TLSPort = FreePort(t)
	}
	for _, dir := range []string{"data", "log"} {
		if err := os.Mkdir(filepath.Join(s.Dir, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, filepath.Join(s.Dir, "motd"), "test\n")
	conf := filepath.Join(s.Dir, "inspircd.conf")
	writeFile(t, conf, s.inspConf(o, peer))
	argv := []string{binary, "--config", conf, "--nofork"}
	if os.Geteuid() == 0 {
		argv = append(argv, "--runasroot")
	}
	s.server = server{t: t, argv: argv, logFile: filepath.Join(s.Dir, "out"), ready: func() error { return listens(s.Port) }, limit: 20 * time.Second}
	return s
}

// inspConf is the configuration of a first server, or with a peer, of a second that links itself to the first at that port.
func (s *IRCServer) inspConf(o IRCOptions, peer int) string {
	name, id, other, autoconnect := "insp", "0MB", "insp2", ""
	if peer != 0 {
		name, id, other, autoconnect = "insp2", "1MB", "insp", `<autoconnect period="1s" server="insp.mirrorbus.test">`
	}
	lines := []string{
		fmt.Sprintf(`<server name="%s.mirrorbus.test" description="test" network="test" id="%s">`, name, id), `<admin name="h" nick="h" email="h@localhost">`,
		fmt.Sprintf(`<path configdir="%s" datadir="%[1]s/data" logdir="%[1]s/log" moduledir="/usr/lib/inspircd/modules">`, s.Dir),
		fmt.Sprintf(`<pid file="%s/pid">`, s.Dir), fmt.Sprintf(`<bind address="127.0.0.1" port="%d" type="clients">`, s.Port),
		fmt.Sprintf(`<bind address="127.0.0.1" port="%d" type="servers">`, s.link),
	}
	if o.TLS != nil {
		lines = append(lines, fmt.Sprintf(`<bind address="127.0.0.1" port="%d" type="clients" sslprofile="mb">`, s.TLSPort),
			fmt.Sprintf(`<sslprofile name="mb" provider="gnutls" certfile="%s" keyfile="%s" hash="sha256" requestclientcert="yes">`, o.TLS.Cert, o.TLS.Key),
			`<module name="ssl_gnutls">`, `<module name="sslinfo">`)
	}
	for _, m := range []string{"cap", "ircv3", "ircv3_accounttag", "ircv3_batch", "ircv3_capnotify", "ircv3_chghost", "ircv3_ctctags", "ircv3_echomessage",
		"ircv3_labeledresponse", "ircv3_msgid", "ircv3_servertime", "sasl", "services_account", "botmode", "messageflood", "spanningtree", "hidechans", "servprotect",
		"svshold", "chghost", "alias", "md5", "sha256", "cloaking"} {
		lines = append(lines, `<module name="`+m+`">`)
	}
	limits := `recvq="1M" threshold="10000" commandrate="1000000" fakelag="no"`
	switch {
	case o.Kills:
		limits = `recvq="10K" threshold="10" commandrate="1000" fakelag="no"`
	case o.Limits:
		limits = `recvq="10K" threshold="10" commandrate="1000" fakelag="yes"`
	}
	password := ""
	if o.Password != "" {
		password = fmt.Sprintf(`password="%s" `, o.Password)
	}
	lines = append(lines, `<cloak mode="full" key="aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa">`, `<sasl target="services.mirrorbus.test" requiressl="no">`,
		`<uline server="services.mirrorbus.test" silent="yes">`,
		`<link name="services.mirrorbus.test" ipaddr="127.0.0.1" port="1" allowmask="127.0.0.0/8" sendpass="linkpass" recvpass="linkpass">`,
		fmt.Sprintf(`<link name="%s.mirrorbus.test" ipaddr="127.0.0.1" port="%d" allowmask="127.0.0.0/8" sendpass="linkpass" recvpass="linkpass">`, other, max(peer, 1)), autoconnect,
		`<connect name="main" allow="*" `+password+`maxchans="20" timeout="20" pingfreq="60" hardsendq="1M" softsendq="10240" `+limits+
			` localmax="5000" globalmax="5000" resolvehostnames="no" useident="no" limit="5000" modes="">`,
		`<class name="All" commands="*" privs="*" usermodes="*" chanmodes="*">`, `<type name="NetAdmin" classes="All">`,
		`<oper name="oper" password="operpass" host="*@*" type="NetAdmin">`, `<log method="file" type="* -USERINPUT -USEROUTPUT" level="default" target="inspircd.log">`,
		`<options defaultmodes="not">`, `<security maxtargets="20">`, `<performance softlimit="12800" somaxconn="128">`, fmt.Sprintf(`<files motd="%s/motd">`, s.Dir))
	return strings.Join(lines, "\n") + "\n"
}
