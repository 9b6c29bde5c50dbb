package testenv

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A Module is one module of an rsync daemon.
type Module struct {
	Name, Path, Comment string
	Secrets             map[string]string // user to password; empty means that anyone may read
	MaxConnections      int               // 0 means no limit
	Exclude             string
	Writable            bool
	Extra               []string // further lines of the module's section
}

// RsyncdOptions are what concerns the whole daemon. The zero value is a plain one.
type RsyncdOptions struct {
	Binary string   // if empty what RsyncdBinary says, and "rsync" without that
	MOTD   string   // message of the day
	Extra  []string // further global lines
}

// An Rsyncd is a running rsync daemon.
type Rsyncd struct {
	server
	Port   int
	Config string // its configuration file, which it reads anew for each connection
}

// StartRsyncd starts an rsync daemon. It runs as the user of the test; as root it changes root into the module and stays root, so that it can read
// every tree a test makes.
func StartRsyncd(t testing.TB, o RsyncdOptions, modules ...Module) *Rsyncd {
	t.Helper()
	if o.Binary == "" {
		o.Binary = Need(t, cmp.Or(os.Getenv(RsyncdBinary), "rsync"))
	}
	return started(t, func() *Rsyncd { return newRsyncd(t, o, modules) })
}

func newRsyncd(t testing.TB, o RsyncdOptions, modules []Module) *Rsyncd {
	t.Helper()
	dir, port := t.TempDir(), FreePort(t)
	lines := []string{
		"address = 127.0.0.1", fmt.Sprint("port = ", port), "lock file = " + dir + "/lock", "socket options = TCP_NODELAY", "reverse lookup = no",
	}
	if os.Geteuid() == 0 {
		lines = append(lines, "use chroot = yes", "uid = 0", "gid = 0")
	} else {
		lines = append(lines, "use chroot = no")
	}
	if o.MOTD != "" {
		writeFile(t, filepath.Join(dir, "motd"), o.MOTD)
		lines = append(lines, "motd file = "+dir+"/motd")
	}
	lines = append(lines, o.Extra...)
	for _, m := range modules {
		lines = append(lines, moduleLines(t, dir, m)...)
	}
	conf := filepath.Join(dir, "rsyncd.conf")
	writeFile(t, conf, strings.Join(lines, "\n")+"\n")
	d := &Rsyncd{Port: port, Config: conf}
	d.server = server{
		t: t, logFile: filepath.Join(dir, "log"), ready: func() error { return greets(d.Port, "@RSYNCD:") },
		argv: []string{o.Binary, "--daemon", "--no-detach", "--config=" + conf, "--log-file=/dev/stderr"},
	}
	return d
}

func moduleLines(t testing.TB, dir string, m Module) []string {
	t.Helper()
	lines := []string{"[" + m.Name + "]", "path = " + m.Path, "comment = " + m.Comment, fmt.Sprintf("read only = %t", !m.Writable)}
	if m.MaxConnections != 0 {
		lines = append(lines, fmt.Sprint("max connections = ", m.MaxConnections))
	}
	if m.Exclude != "" {
		lines = append(lines, "exclude = "+m.Exclude)
	}
	if len(m.Secrets) > 0 {
		var users, secrets []string
		for user, password := range m.Secrets {
			users, secrets = append(users, user), append(secrets, user+":"+password)
		}
		file := filepath.Join(dir, m.Name+".secrets")
		writeFile(t, file, strings.Join(secrets, "\n")+"\n")
		lines = append(lines, "auth users = "+strings.Join(users, ","), "secrets file = "+file)
	}
	return append(lines, m.Extra...)
}

// URL returns the rsync:// address of a module, or of a path in it.
func (d *Rsyncd) URL(module string, path ...string) string {
	return fmt.Sprintf("rsync://127.0.0.1:%d/%s", d.Port, strings.Join(append([]string{module}, path...), "/"))
}

func writeFile(t testing.TB, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
