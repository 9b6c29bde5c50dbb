package ssh_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	cryptossh "golang.org/x/crypto/ssh"

	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"

	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/ssh"
)

// receiveSocket tells the test program that sshd has started it in the place of `mirrorbus receive`: to connect its input and output with a socket.
const receiveSocket = "MIRRORBUS_TEST_RECEIVE"

func TestMain(m *testing.M) {
	if socket := os.Getenv(receiveSocket); socket != "" {
		if err := receive(socket); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(75)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func receive(socket string) error {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	if err := ssh.Greet(conn, os.Getenv("SSH_CONNECTION")); err != nil {
		return err
	}
	go func() {
		io.Copy(conn, os.Stdin)           //nolint:errcheck // the other direction notices
		conn.(*net.UnixConn).CloseWrite() //nolint:errcheck // likewise
	}()
	_, err = io.Copy(os.Stdout, conn)
	return err
}

// A rig is a real sshd and the mirrors behind it. Each has a key of its own by which the master is let in, and a socket.
type rig struct {
	t      *testing.T
	dir    string
	sshd   *testenv.SSHD
	secret string

	keys []string // lines of authorized_keys
}

// names are the mirrors that the conformance suite opens.
var names = []string{"mirror", "mirror-1", "mirror-2", "mirror-3", "one", "every", "slow", "quick"}

func newRig(t *testing.T) *rig {
	t.Helper()
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
	r := &rig{t: t, dir: t.TempDir(), sshd: testenv.StartSSHD(t, "")}
	for _, name := range names {
		r.letIn(name)
	}
	return r
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// letIn makes a key that may hand over to the named mirror, and nothing else.
func (r *rig) letIn(name string) {
	r.t.Helper()
	program, err := os.Executable()
	must(r.t, err)
	r.keys = append(r.keys, r.keyLine(name, fmt.Sprintf(`restrict,command="env %s=%s %s"`, receiveSocket, r.socket(name), program)))
	r.writeKeys()
}

// keyLine makes a key, and the line of authorized_keys that lets it in.
func (r *rig) keyLine(name, options string) string {
	r.t.Helper()
	key := r.makeKey(r.keyFile(name))
	return options + " " + string(cryptossh.MarshalAuthorizedKey(key))
}

// makeKey makes a private key in a file.
func (r *rig) makeKey(file string) cryptossh.PublicKey {
	r.t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	must(r.t, err)
	block, err := cryptossh.MarshalPrivateKey(private, "")
	must(r.t, err)
	text := pem.EncodeToMemory(block)
	must(r.t, os.WriteFile(file, text, 0o600))
	key, err := cryptossh.NewPublicKey(public)
	must(r.t, err)
	r.secret = string(text)
	return key
}

func (r *rig) writeKeys() {
	r.t.Helper()
	must(r.t, os.WriteFile(filepath.Join(filepath.Dir(r.sshd.KeyFile), "authorized_keys"), []byte(strings.Join(r.keys, "")), 0o600))
}

// strangerKey is the file of a key that nobody lets in.
func (r *rig) strangerKey() string {
	file := filepath.Join(r.dir, "stranger")
	r.makeKey(file)
	return file
}

// lockedKey is the file of a key with a passphrase.
func (r *rig) lockedKey() string {
	r.t.Helper()
	_, private, err := ed25519.GenerateKey(nil)
	must(r.t, err)
	block, err := cryptossh.MarshalPrivateKeyWithPassphrase(private, "", []byte("x"))
	must(r.t, err)
	file := filepath.Join(r.dir, "locked")
	must(r.t, os.WriteFile(file, pem.EncodeToMemory(block), 0o600))
	return file
}

// certify puts a certificate for the user of sshd beside a key, signed by the key in another file.
func (r *rig) certify(file, by string) {
	r.t.Helper()
	signer := func(file string) cryptossh.Signer {
		text, err := os.ReadFile(file)
		must(r.t, err)
		s, err := cryptossh.ParsePrivateKey(text)
		must(r.t, err)
		return s
	}
	cert := &cryptossh.Certificate{Key: signer(file).PublicKey(), CertType: cryptossh.UserCert, ValidPrincipals: []string{r.sshd.User}, ValidBefore: cryptossh.CertTimeInfinity}
	must(r.t, cert.SignCert(rand.Reader, signer(by)))
	must(r.t, os.WriteFile(file+"-cert.pub", cryptossh.MarshalAuthorizedKey(cert), 0o600))
}

func (r *rig) keyFile(name string) string { return filepath.Join(r.dir, name+".key") }
func (r *rig) socket(name string) string  { return filepath.Join(r.dir, name+".sock") }

// masterConf calls every mirror.
func (r *rig) masterConf() *ssh.MasterConfig {
	c := ssh.DefaultMasterConfig()
	c.User, c.KnownHosts, c.RetryMax = r.sshd.User, config.Path(r.sshd.KnownHosts), config.Duration{Duration: 500 * time.Millisecond}
	for _, name := range names {
		c.Mirrors = append(c.Mirrors, ssh.MirrorAddress{Name: name, Address: fmt.Sprint("127.0.0.1:", r.sshd.Port), Keys: []config.Path{config.Path(r.keyFile(name))}})
	}
	return c
}

func (r *rig) mirrorConf(name string) *ssh.MirrorConfig {
	c := ssh.DefaultMirrorConfig()
	c.Socket = config.Path(r.socket(name))
	return c
}

// opener opens transports the way a process does.
func (r *rig) opener(lent transports.Env) func(transports.Role, string) (transports.Transport, error) {
	return func(role transports.Role, name string) (transports.Transport, error) {
		env := lent
		env.Self = name
		var conf any = r.mirrorConf(name)
		if role == transports.Master {
			conf = r.masterConf()
		}
		return transports.Registry{ssh.Driver()}.Open(role, ssh.Name, conf, env)
	}
}
