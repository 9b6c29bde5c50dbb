package testenv

import (
	"bufio"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// boxOwner is the uid and gid of those who own mailboxes: nobody.
const boxOwner = "65534"

// A Dovecot serves the mailboxes of a Postfix by IMAP. Every NAME logs in with the one password.
type Dovecot struct {
	server
	Port, TLSPort int // TLSPort is 0 without a certificate
	Password      string

	mail string
}

// StartDovecot starts a Dovecot, with TLS if there is a certificate.
func StartDovecot(t testing.TB, p *Postfix, cert Certificate) *Dovecot {
	t.Helper()
	binary := Need(t, "dovecot")
	NeedRoot(t)
	return started(t, func() *Dovecot { return newDovecot(t, binary, p, cert) })
}

func newDovecot(t testing.TB, binary string, p *Postfix, cert Certificate) *Dovecot {
	t.Helper()
	dir := openDir(t)
	d := &Dovecot{Port: FreePort(t), Password: rand.Text(), mail: filepath.Join(p.Dir, "mail")}
	ssl, listener, sasl := "ssl = no", "", ""
	if cert.Cert != "" {
		d.TLSPort = FreePort(t)
		ssl = fmt.Sprintf("ssl = yes\nssl_cert = <%s\nssl_key = <%s", cert.Cert, cert.Key)
		listener = fmt.Sprintf("  inet_listener imaps {\n    port = %d\n    ssl = yes\n  }\n", d.TLSPort)
	} else {
		listener = "  inet_listener imaps {\n    port = 0\n  }\n"
	}
	if p.sasl != "" {
		sasl = "service auth {\n  unix_listener " + p.sasl + " {\n    mode = 0666\n  }\n}\n"
	}
	conf := filepath.Join(dir, "dovecot.conf")
	writeFile(t, conf, fmt.Sprintf(`base_dir = %[1]s/run
state_dir = %[1]s/state
protocols = imap
listen = 127.0.0.1
log_path = %[1]s/log
%[2]s
disable_plaintext_auth = no
mail_location = maildir:~/Maildir
first_valid_uid = 1
first_valid_gid = 1
mail_max_userip_connections = 100
passdb {
  driver = static
  args = password=%[3]s
}
userdb {
  driver = static
  args = uid=%[4]s gid=%[4]s home=%[5]s/%%n
}
service imap-login {
  inet_listener imap {
    port = %[6]d
  }
%[7]s  process_min_avail = 1
}
service stats {
  unix_listener stats-writer {
    mode = 0666
  }
}
%[8]s`, dir, ssl, d.Password, boxOwner, d.mail, d.Port, listener, sasl))
	d.server = server{t: t, argv: []string{binary, "-F", "-c", conf}, logFile: filepath.Join(dir, "output"), ready: d.letsIn, limit: 20 * time.Second}
	return d
}

// letsIn tells whether one can log in: it greets long before.
func (d *Dovecot) letsIn() error {
	c, err := net.DialTimeout("tcp", d.Addr(), time.Second)
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // it was only asked
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(c, "a LOGIN probe %s\r\n", d.Password); err != nil {
		return err
	}
	in := bufio.NewScanner(c)
	for in.Scan() {
		if strings.HasPrefix(in.Text(), "a OK") {
			return nil
		}
		if strings.HasPrefix(in.Text(), "a ") {
			return fmt.Errorf("port %d answers %q", d.Port, in.Text())
		}
	}
	return fmt.Errorf("port %d ends the connection: %w", d.Port, in.Err())
}

// Addr is the host and port.
func (d *Dovecot) Addr() string { return fmt.Sprint("127.0.0.1:", d.Port) }

// Empty throws away all mailboxes. Nobody may be logged in.
func (d *Dovecot) Empty() {
	d.t.Helper()
	all, err := filepath.Glob(filepath.Join(d.mail, "*"))
	if err != nil {
		d.t.Fatal(err)
	}
	for _, box := range all {
		if err := os.RemoveAll(box); err != nil {
			d.t.Fatal(err)
		}
	}
}

// Doveadm runs doveadm on the mailbox of a name and returns what it says.
func (d *Dovecot) Doveadm(args ...string) string {
	d.t.Helper()
	out, err := exec.Command(Need(d.t, "doveadm"), append([]string{"-c", d.argv[len(d.argv)-1]}, args...)...).CombinedOutput()
	if err != nil {
		d.t.Fatalf("doveadm %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}
