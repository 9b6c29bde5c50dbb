package testenv

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// startAnope links services to the server.
func (s *IRCServer) startAnope() {
	s.t.Helper()
	dir := filepath.Join(s.Dir, "anope")
	for _, sub := range []string{"", "conf", "db", "log"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			s.t.Fatal(err)
		}
	}
	writeFile(s.t, filepath.Join(dir, "conf/motd"), "test\n")
	writeFile(s.t, filepath.Join(dir, "conf/services.conf"), anopeConf(dir, s.link, s.Port))
	log := filepath.Join(dir, "out")
	s.anope = &server{t: s.t, argv: []string{Need(s.t, "anope"), "--config=services.conf", "--confdir=" + dir + "/conf", "--dbdir=" + dir + "/db", "--logdir=" + dir + "/log",
		"--localedir=/usr/share/anope/locale", "--modulesdir=/usr/lib/anope", "--nofork"}, logFile: log, limit: 30 * time.Second}
	s.anope.ready = func() error {
		if text := s.anope.Log(); !strings.Contains(text, "is done syncing") {
			return fmt.Errorf("anope has not linked: %s", text)
		}
		return nil
	}
	if err := s.anope.start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(s.anope.Kill)
}

// Register makes an account of this name and password. With a client's certificate, that stands for the account as well.
func (s *IRCServer) Register(t testing.TB, account, password string, client *Certificate) {
	t.Helper()
	conn, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", s.Port))
	if client != nil {
		pair, failed := tls.LoadX509KeyPair(client.Cert, client.Key)
		if failed != nil {
			t.Fatal(failed)
		}
		conn, err = tls.Dial("tcp", fmt.Sprint("127.0.0.1:", s.TLSPort), &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{pair}})
	}
	if err != nil {
		t.Fatal(err)
	}
	u := newIRCUser(t, conn, account, "")
	u.Await(" 001 " + account)
	u.Send("PRIVMSG NickServ :REGISTER " + password + " " + account + "@mirrorbus.test")
	if s.link != 0 {
		u.Await(" 900 ")
	} else {
		u.Await(" registered")
	}
	if client != nil {
		u.Send("PRIVMSG NickServ :CERT ADD")
		u.Await("added to")
	}
	u.Send("QUIT")
	u.AwaitEnd()
}

// anopeConf is for an InspIRCd with a port for servers, or if that is 0 for an ngIRCd, which has one port for all.
func anopeConf(dir string, link, port int) string {
	protocol, casemap := "inspircd3", "rfc1459"
	if link == 0 {
		protocol, casemap, link = "ngircd", "ascii", port
	}
	const nickServ = `command { service = "NickServ"; name = "%s"; command = "nickserv/%s"; }`
	lines := []string{
		fmt.Sprintf(`uplink { host = "127.0.0.1"; ipv6 = no; ssl = no; port = %d; password = "linkpass" }`, link),
		fmt.Sprintf(`serverinfo { name = "services.mirrorbus.test"; description = "Services"; pid = "%s/pid"; motd = "%[1]s/conf/motd" }`, dir),
		`module { name = "` + protocol + `"; use_server_side_mlock = yes; use_server_side_topiclock = yes }`,
		`networkinfo { networkname = "test"; nicklen = 30; userlen = 20; hostlen = 64; chanlen = 50; modelistsize = 100; vhost_chars = "abcdefghijklmnopqrstuvwxyz0123456789.-"; allow_undotted_vhosts = false; disallow_start_or_end = ".-" }`,
		`options { casemap = "` + casemap + `"; strictpasswords = no; badpasslimit = 0; updatetimeout = 5m; expiretimeout = 30m; readtimeout = 5s; warningtimeout = 4h; timeoutcheck = 3s; retrywait = 2s; seed = 123456 }`,
		`log { target = "services.log"; logage = 7; admin = "*"; override = "*"; commands = "*"; servers = "*"; users = "connect disconnect nick"; other = "*"; rawio = no; debug = no }`,
		`opertype { name = "Services Root"; commands = "*"; privs = "*" }`, `mail { usemail = no; sendmailpath = "/bin/false"; sendfrom = "s@localhost"; delay = 5m }`,
		`module { name = "db_flatfile"; database = "services.db"; keepbackups = 1; fork = no }`, `module { name = "enc_sha256" }`,
		`service { nick = "NickServ"; user = "services"; host = "services.mirrorbus.test"; gecos = "Nickname Service" }`,
		`module { name = "nickserv"; client = "NickServ"; forceemail = no; confirmemailchanges = no; defaults = "ns_secure memo_signon memo_receive"; regdelay = 0s; expire = 0; secureadmins = yes; modeonid = yes; guestnickprefix = "Guest"; nonicknameownership = no; passlen = 350; killquick = 20s; kill = 60s; releasetimeout = 1m; restrictopernicks = no }`,
		`module { name = "ns_register"; registration = "none"; nickregdelay = 0s }`, `module { name = "ns_identify" }`, `module { name = "ns_group"; maxaliases = 16 }`,
		`module { name = "ns_recover"; restoreonrecover = yes }`, `module { name = "ns_cert"; max = 5 }`, `module { name = "ns_set" }`, `module { name = "m_sasl" }`,
	}
	for name, command := range map[string]string{"REGISTER": "register", "IDENTIFY": "identify", "GROUP": "group", "RECOVER": "recover", "GHOST": "recover", "CERT": "cert"} {
		lines = append(lines, fmt.Sprintf(nickServ, name, command))
	}
	return strings.Join(lines, "\n") + "\n"
}
