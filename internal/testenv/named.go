package testenv

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A Named is BIND as the primary server of one zone, which a key may change.
type Named struct {
	server
	Port    int
	Zone    string // without the dot at its end
	Key     string // the name of the key
	Secret  string // in base64
	KeyFile string // as nsupdate -k takes it
}

// StartNamed starts a server of the zone. records are further lines of the zone file; answers by UDP have at most 512 bytes, so that long ones are cut off.
func StartNamed(t testing.TB, zone string, records ...string) *Named {
	t.Helper()
	binary := Need(t, "named")
	return started(t, func() *Named { return newNamed(t, binary, zone, records) })
}

func newNamed(t testing.TB, binary, zone string, records []string) *Named {
	t.Helper()
	dir, secret := t.TempDir(), make([]byte, 32)
	if _, err := rand.Read(secret); err != nil {
		t.Fatal(err)
	}
	n := &Named{Port: FreePort(t), Zone: zone, Key: "mirrorbus", Secret: base64.StdEncoding.EncodeToString(secret), KeyFile: filepath.Join(dir, "key")}
	writeFile(t, n.KeyFile, fmt.Sprintf("key %q {\n\talgorithm hmac-sha256;\n\tsecret %q;\n};\n", n.Key, n.Secret))
	writeFile(t, filepath.Join(dir, "zone"), fmt.Sprintf("$TTL 1\n@ SOA ns hostmaster 1 3600 600 86400 1\n@ NS ns\nns A 127.0.0.1\n%s\n", strings.Join(records, "\n")))
	conf := filepath.Join(dir, "named.conf")
	writeFile(t, conf, fmt.Sprintf(`options {
	directory %[1]q;
	pid-file none;
	session-keyfile %[2]q;
	listen-on port %[3]d { 127.0.0.1; };
	listen-on-v6 { none; };
	recursion no;
	dnssec-validation no;
	max-udp-size 512;
	allow-query { any; };
};
controls { };
include %[4]q;
zone %[5]q {
	type primary;
	file %[6]q;
	update-policy { grant %[7]s zonesub TXT; };
};
`, dir, filepath.Join(dir, "session"), n.Port, n.KeyFile, zone, filepath.Join(dir, "zone"), n.Key))
	n.server = server{t: t, argv: []string{binary, "-g", "-c", conf, "-n", "1"}, logFile: filepath.Join(dir, "log"), ready: n.serves, limit: 20 * time.Second}
	return n
}

// serves tells whether the server has read its zone, and takes connections.
func (n *Named) serves() error {
	if !strings.Contains(n.Log(), " running\n") {
		return errors.New("it does not run yet")
	}
	c, err := net.DialTimeout("tcp", n.Addr(), time.Second)
	if err != nil {
		return err
	}
	return c.Close()
}

// Addr is the host and port.
func (n *Named) Addr() string { return fmt.Sprint("127.0.0.1:", n.Port) }
