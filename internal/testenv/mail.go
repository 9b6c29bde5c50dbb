package testenv

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// PostfixOptions describe a Postfix.
type PostfixOptions struct {
	// Sockets are the NAMEs of which mail for NAME@lmtp.test goes to a socket by LMTP. As long as it is not there the mail waits and is tried every second.
	Sockets []string

	// Maildirs are the NAMEs of which mail for NAME@imap.test goes to a mailbox that StartDovecot serves.
	Maildirs []string

	// Routes are further lines of its transport map, regular expressions.
	Routes []string

	// Pipe are command lines that mail for a domain is piped into, by pipe(8) and as the user of PipeUser. @DIR@ in them is Dir.
	Pipe     map[string]string
	PipeUser string

	// Aliases are command lines that mail for NAME@alias.test is piped into by a table of aliases(5): by local(8), and as nobody. @DIR@ in them is Dir.
	Aliases map[string]string

	// Conf are further lines of main.cf, Services of master.cf.
	Conf, Services []string

	// Cert makes it offer STARTTLS, SASL lets those log in whom its Dovecot knows, which is to be started as well.
	Cert Certificate
	SASL bool
}

// A Postfix is a mail server with a queue and a configuration of its own. Mail for nobody.test and later.test is refused at the door, for good and for
// now, and that for bounced.test is taken and comes back.
type Postfix struct {
	server
	Port int
	Dir  string // anybody may enter

	conf string
	sasl string // the socket where it asks whether somebody is let in, or ""
}

// StartPostfix starts a Postfix, as root: it needs to be, to change to its users.
func StartPostfix(t testing.TB, o PostfixOptions) *Postfix {
	t.Helper()
	needPostfix(t)
	var err error
	for range 3 { // another process may take the port first
		p := newPostfix(t, o)
		if err = p.start(); err == nil {
			t.Cleanup(p.Kill)
			return p
		}
		err = fmt.Errorf("%w\n%s", err, p.Log())
	}
	t.Fatal(err)
	return nil
}

func needPostfix(t testing.TB) {
	t.Helper()
	Need(t, "postconf", "postsuper", "postqueue", "postalias")
	NeedRoot(t)
}

func newPostfix(t testing.TB, o PostfixOptions) *Postfix {
	t.Helper()
	p := &Postfix{Port: FreePort(t), Dir: openDir(t), server: server{t: t}}
	p.conf = filepath.Join(p.Dir, "conf")
	for _, dir := range []string{p.conf, filepath.Join(p.Dir, "spool"), filepath.Join(p.Dir, "data"), filepath.Join(p.Dir, "mail")} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	run := func(program string, args ...string) string {
		out, err := exec.Command(Need(t, program), args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s %s: %v: %s", program, strings.Join(args, " "), err, out)
		}
		return strings.TrimSpace(string(out))
	}
	daemons := run("postconf", "-d", "-h", "daemon_directory")
	writeFile(t, filepath.Join(p.conf, "main.cf"), p.mainCF(daemons, o))
	writeFile(t, filepath.Join(p.conf, "master.cf"), p.masterCF(o))
	writeFile(t, filepath.Join(p.conf, "access"), "/@nobody\\.test$/ 550 5.1.1 nobody here\n/@later\\.test$/ 450 4.2.0 not now\n")
	writeFile(t, filepath.Join(p.conf, "transport"), strings.Join(p.routes(o), "\n")+"\n")
	if len(o.Aliases) > 0 {
		writeFile(t, filepath.Join(p.conf, "aliases"), p.aliases(o))
		run("postalias", "-c", p.conf, run("postconf", "-d", "-h", "default_database_type")+":"+filepath.Join(p.conf, "aliases"))
	}
	p.folders(run)
	p.server = server{t: t, argv: []string{filepath.Join(daemons, "master"), "-c", p.conf, "-s"}, logFile: filepath.Join(p.Dir, "output"), ready: p.greets, limit: 30 * time.Second, session: true}
	return p
}

// folders makes those of the queue, as "postfix check" does, which takes seconds.
func (p *Postfix) folders(run func(string, ...string) string) {
	p.t.Helper()
	owner, group := run("postconf", "-d", "-h", "mail_owner"), run("postconf", "-d", "-h", "setgid_group")
	spool := filepath.Join(p.Dir, "spool")
	for _, name := range strings.Fields("active bounce corrupt defer deferred flush hold incoming private saved trace maildrop public pid") {
		if err := os.Mkdir(filepath.Join(spool, name), 0o700); err != nil {
			p.t.Fatal(err)
		}
		if name != "pid" {
			run("chown", owner, filepath.Join(spool, name))
		}
	}
	run("chown", owner, filepath.Join(p.Dir, "data"))
	run("chown", boxOwner, filepath.Join(p.Dir, "mail"))
	run("chgrp", group, filepath.Join(spool, "maildrop"), filepath.Join(spool, "public"))
	run("chmod", "0730", filepath.Join(spool, "maildrop"))
	run("chmod", "0710", filepath.Join(spool, "public"))
	run("chmod", "0755", filepath.Join(spool, "pid"))
}

// openDir is a folder that other users may enter, unlike that of t.TempDir.
func openDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "mirrorbus-mail-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("testenv: %v", err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func (p *Postfix) mainCF(daemons string, o PostfixOptions) string {
	lines := []string{
		"compatibility_level = 3.6", "queue_directory = " + p.Dir + "/spool", "data_directory = " + p.Dir + "/data", "daemon_directory = " + daemons,
		"maillog_file = " + p.Dir + "/log", "maillog_file_prefixes = /", "myhostname = mx.mirrorbus.test", "inet_interfaces = 127.0.0.1",
		"inet_protocols = ipv4", "mynetworks = 127.0.0.0/8", "default_transport = error:5.1.2 no mail leaves a test", "alias_database =",
		"local_recipient_maps =", "smtpd_recipient_restrictions = check_recipient_access regexp:" + p.conf + "/access, permit_mynetworks, reject", "disable_dns_lookups = yes",
		"smtp_dns_support_level = disabled", "transport_maps = regexp:" + p.conf + "/transport", "relay_domains =", "minimal_backoff_time = 1s", "maximal_backoff_time = 2s", "queue_run_delay = 1s", "smtpd_relay_restrictions =",
		"smtpd_reject_unlisted_recipient = no", "biff = no", "default_destination_concurrency_failed_cohort_limit = 10",
	}
	if len(o.Aliases) > 0 {
		lines = append(lines, "mydestination = alias.test", "alias_maps = $default_database_type:"+p.conf+"/aliases")
	} else {
		lines = append(lines, "mydestination =", "alias_maps =")
	}
	if o.Cert.Cert != "" {
		lines = append(lines, "smtpd_tls_cert_file = "+o.Cert.Cert, "smtpd_tls_key_file = "+o.Cert.Key, "smtpd_tls_security_level = may")
	}
	if o.SASL {
		p.sasl = filepath.Join(p.Dir, "sasl")
		lines = append(lines, "smtpd_sasl_auth_enable = yes", "smtpd_sasl_type = dovecot", "smtpd_sasl_path = "+p.sasl, "smtpd_tls_auth_only = yes")
	}
	if len(o.Maildirs) > 0 {
		var boxes []string
		for _, name := range o.Maildirs {
			boxes = append(boxes, "{ "+name+"@imap.test = "+name+"/Maildir/ }")
		}
		lines = append(lines, "virtual_mailbox_domains = imap.test", "virtual_mailbox_base = "+p.Dir+"/mail", "virtual_mailbox_maps = inline:{ "+strings.Join(boxes, ", ")+" }",
			"virtual_uid_maps = static:"+boxOwner, "virtual_gid_maps = static:"+boxOwner)
	}
	return strings.Join(append(lines, o.Conf...), "\n") + "\n"
}

// aliases is the table, as /etc/aliases has it.
func (p *Postfix) aliases(o PostfixOptions) string {
	var text strings.Builder
	for name, command := range o.Aliases {
		fmt.Fprintf(&text, "%s: \"|%s\"\n", name, strings.ReplaceAll(command, "@DIR@", p.Dir))
	}
	return text.String()
}

// routes are the regular expressions of where mail goes.
func (p *Postfix) routes(o PostfixOptions) []string {
	lines := slices.Clone(o.Routes)
	for _, name := range o.Sockets {
		lines = append(lines, `/^`+name+`@lmtp\.test$/ lmtp:unix:`+p.Socket(name))
	}
	for domain := range o.Pipe {
		lines = append(lines, `/@`+strings.ReplaceAll(domain, ".", `\.`)+`$/ `+pipeName(domain)+`:`)
	}
	return append(lines, `/@bounced\.test$/ error:5.1.1 nobody here`)
}

// Socket is the path of the socket to which mail for NAME@lmtp.test goes.
func (p *Postfix) Socket(name string) string { return filepath.Join(p.Dir, name+".sock") }

func pipeName(domain string) string { return "pipe-" + strings.ReplaceAll(domain, ".", "-") }

func (p *Postfix) masterCF(o PostfixOptions) string {
	lines := []string{fmt.Sprintf("127.0.0.1:%d inet n - n - - smtpd", p.Port)}
	lines = append(lines,
		"pickup unix n - n 1 1 pickup", "cleanup unix n - n - 0 cleanup", "qmgr unix n - n 1 1 qmgr", "tlsmgr unix - - n 1000? 1 tlsmgr",
		"rewrite unix - - n - - trivial-rewrite", "bounce unix - - n - 0 bounce", "defer unix - - n - 0 bounce", "trace unix - - n - 0 bounce",
		"verify unix - - n - 1 verify", "flush unix n - n 1000? 0 flush", "proxymap unix - - n - - proxymap", "smtp unix - - n - - smtp",
		"relay unix - - n - - smtp", "showq unix n - n - - showq", "error unix - - n - - error", "retry unix - - n - - error", "discard unix - - n - - discard",
		"lmtp unix - - n - - lmtp", "virtual unix - n n - - virtual", "anvil unix - - n - 1 anvil", "scache unix - - n - 1 scache", "postlog unix-dgram n - n - 1 postlogd",
	)
	if len(o.Aliases) > 0 {
		lines = append(lines, "local unix - n n - - local") // it starts as root, and runs commands as others
	}
	for domain, command := range o.Pipe {
		lines = append(lines, pipeName(domain)+" unix - n n - 4 pipe", "  flags=Rq user="+o.PipeUser+" argv="+strings.ReplaceAll(command, "@DIR@", p.Dir))
	}
	return strings.Join(append(lines, o.Services...), "\n") + "\n"
}

// greets tells whether it lets one say whom mail is for: the port is open long before.
func (p *Postfix) greets() error {
	c, err := net.DialTimeout("tcp", p.Addr(), time.Second)
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // it was only asked
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	in := bufio.NewScanner(c)
	for _, say := range []string{"HELO test", "MAIL FROM:<probe@mirrorbus.test>", "RCPT TO:<x@bounced.test>", "QUIT"} {
		if !in.Scan() || in.Text()[0] != '2' {
			return fmt.Errorf("port %d answers %q", p.Port, in.Text())
		}
		if _, err := fmt.Fprint(c, say, "\r\n"); err != nil {
			return err
		}
	}
	return in.Err()
}

// Addr is the host and port.
func (p *Postfix) Addr() string { return fmt.Sprint("127.0.0.1:", p.Port) }

// Log is what the mail server has logged, and what it has written elsewhere.
func (p *Postfix) Log() string {
	text, err := os.ReadFile(filepath.Join(p.Dir, "log"))
	if err != nil {
		return p.server.Log()
	}
	return p.server.Log() + string(text)
}

// Purge throws away what waits.
func (p *Postfix) Purge() {
	p.t.Helper()
	if out, err := exec.Command(Need(p.t, "postsuper"), "-c", p.conf, "-d", "ALL").CombinedOutput(); err != nil {
		p.t.Fatalf("postsuper: %v: %s", err, out)
	}
}

// Queue is what waits, in the words of postqueue.
func (p *Postfix) Queue() string {
	p.t.Helper()
	out, err := exec.Command(Need(p.t, "postqueue"), "-c", p.conf, "-p").CombinedOutput()
	if err != nil {
		p.t.Fatalf("postqueue: %v: %s", err, out)
	}
	return string(out)
}
