package hub_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/internal/hostkey"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/hub"
)

// fails starts c and returns the error of its Run.
func (c *client) fails(t *testing.T) error {
	t.Helper()
	c.start(t, c.Client, &c.inbox, transports.Subscription{Topic: debian})
	return c.ended(t)
}

func TestUnknownKeyIsRefused(t *testing.T) {
	r := newRig(t)
	s := r.serve()
	c := r.client("stranger")
	r.revoke("stranger")
	err := c.fails(t)
	if !transports.IsPermanent(err) {
		t.Errorf("error is not permanent: %v", err)
	}
	for _, want := range []string{ssh.FingerprintSHA256(r.key("stranger").PublicKey()), r.conf.Listen, "mirrorbus init mirror"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not name %s", err, want)
		}
	}
	await(t, "line in the log", func() bool { return strings.Contains(r.log.String(), "not in the trust file") })
	if n := len(s.Peers()); n != 0 {
		t.Errorf("%d peers", n)
	}
}

func TestRevokedKeyIsDropped(t *testing.T) {
	r := newRig(t)
	r.conf.Keepalive = span(50 * time.Millisecond)
	r.serve()
	c := r.client("mirror").connect(t)
	r.revoke("mirror")
	if err := c.ended(t); !strings.Contains(err.Error(), "no longer welcome: not in the trust file") {
		t.Errorf("error is %v", err)
	}
}

// The stock client offers a key of which it has only the public half, is told that it would do, and proves another one. The hub must go by that.
func TestOfferedKeyGivesNoName(t *testing.T) {
	r := newRig(t)
	s := r.serve()
	public := ssh.MarshalAuthorizedKey(r.key("admin").PublicKey())
	must(t, os.WriteFile(r.keyFile("admin"), public, 0o600))
	r.key("mirror")
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	cmd := s.stock(ctx, "admin", []string{"-v", "-i", r.keyFile("mirror")}, "publish", "v1")
	cmd.Stdin = strings.NewReader("msg r1 report/debian 1\nx\n")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if !strings.Contains(string(out), "Server accepts key: "+r.keyFile("admin")) {
		t.Errorf("the first key was not offered: %s", out)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if got := (*s.got)[0].From; got != "mirror" {
		t.Errorf("message is from %q", got)
	}
}

func TestHostKey(t *testing.T) {
	r := newRig(t)
	r.serve()
	right, wrong := r.host.PublicKey(), r.key("other").PublicKey()
	known := func(key ssh.PublicKey, address string) func(*hub.ClientConfig) {
		return func(c *hub.ClientConfig) {
			file := filepath.Join(t.TempDir(), "known_hosts")
			must(t, os.WriteFile(file, []byte(knownhosts.Line([]string{address}, key)+"\n"), 0o600))
			c.HostKey, c.KnownHosts = "", config.Path(file)
		}
	}
	pinned := func(text string) func(*hub.ClientConfig) { return func(c *hub.ClientConfig) { c.HostKey = text } }
	for name, conf := range map[string]func(*hub.ClientConfig){
		"public key":  pinned(string(ssh.MarshalAuthorizedKey(right))),
		"fingerprint": pinned(ssh.FingerprintSHA256(right)),
		"known hosts": known(right, r.conf.Listen),
	} {
		t.Run("right "+name, func(t *testing.T) { r.client("mirror", conf).connect(t).stop(t) })
	}
	for name, conf := range map[string]func(*hub.ClientConfig){
		"public key":  pinned(string(ssh.MarshalAuthorizedKey(wrong))),
		"fingerprint": pinned(ssh.FingerprintSHA256(wrong)),
		"known hosts": known(wrong, r.conf.Listen),
	} {
		t.Run("wrong "+name, func(t *testing.T) {
			err := r.client("mirror", conf).fails(t)
			if !errors.Is(err, hostkey.ErrOther) || !transports.IsPermanent(err) {
				t.Errorf("error is %v", err)
			}
			for _, want := range []string{ssh.FingerprintSHA256(right), ssh.FingerprintSHA256(wrong), "operator"} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not name %s", err, want)
				}
			}
		})
	}
	t.Run("known hosts without this one", func(t *testing.T) {
		err := r.client("mirror", known(right, "elsewhere.example.org:22")).fails(t)
		if !transports.IsPermanent(err) || !strings.Contains(err.Error(), "has no key for [127.0.0.1]") {
			t.Errorf("error is %v", err)
		}
	})
}

func TestLoadHostKey(t *testing.T) {
	file := filepath.Join(t.TempDir(), "host")
	key := writeKey(t, file)
	got, err := hub.LoadHostKey(file)
	if err != nil || ssh.FingerprintSHA256(got.PublicKey()) != ssh.FingerprintSHA256(key.PublicKey()) {
		t.Fatalf("got another key or %v", err)
	}
	must(t, os.Chmod(file, 0o640))
	if _, err := hub.LoadHostKey(file); err == nil || !strings.Contains(err.Error(), "mode 0640): chmod 600 "+file) {
		t.Errorf("key readable by the group: %v", err)
	}
	must(t, os.WriteFile(file, []byte("no key"), 0o600))
	must(t, os.Chmod(file, 0o600))
	if _, err := hub.LoadHostKey(file); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("no key: %v", err)
	}
	if _, err := hub.LoadHostKey(file + "2"); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "init master") {
		t.Errorf("no file: %v", err)
	}
}

func TestNotAllowed(t *testing.T) {
	r := newRig(t)
	r.allowed = func(peer string, topic transports.Topic, subscribe bool) error {
		if subscribe == (peer == "reader") {
			return nil
		}
		return fmt.Errorf("%s may not: subscribe %v, %s", peer, subscribe, topic)
	}
	s := r.serve()
	if err := r.client("writer").fails(t); !transports.IsPermanent(err) || !strings.Contains(err.Error(), "writer may not: subscribe true, announce/debian") {
		t.Errorf("subscribe: %v", err)
	}
	reader := r.client("reader").connect(t)
	if err := reader.Publish(t.Context(), msg(reports, "r1", "x")); err == nil || !strings.Contains(err.Error(), "reader may not: subscribe false, report/debian") {
		t.Errorf("publish: %v", err)
	}
	s.publish(t, msg(debian, "m1", "x")) // the connection has survived
	reader.awaitID(t, "m1")
	if got := s.ids(); len(got) != 0 {
		t.Errorf("the hub took %v", got)
	}
}

func TestConfigFaults(t *testing.T) {
	r := newRig(t)
	faults := []struct {
		name string
		make func() error
		want string
	}{
		{"no host key", func() error { _, err := hub.NewServer(*hub.DefaultServerConfig(), r.masterEnv()); return err }, "host_key: is required"},
		{"no port", func() error {
			c := r.conf
			c.Listen = "localhost"
			_, err := hub.NewServer(c, r.masterEnv())
			return err
		}, `listen: "localhost" is no host and port`},
		{"no connections", func() error {
			c := r.conf
			c.MaxConnections = 0
			_, err := hub.NewServer(c, r.masterEnv())
			return err
		}, "max_connections: is 0"},
		{"no trust file", func() error { _, err := hub.NewServer(r.conf, transports.Env{}); return err }, "trust file"},
		{"no address", func() error { c := r.clientConf(); c.Address = ""; return newClient(c, r) }, "address:"},
		{"no pin", func() error { c := r.clientConf(); c.HostKey = ""; return newClient(c, r) }, "host_key: is required, or known_hosts"},
		{"bad pin", func() error { c := r.clientConf(); c.HostKey = "SHA256:short"; return newClient(c, r) }, "host_key: a fingerprint is"},
		{"two pins", func() error { c := r.clientConf(); c.KnownHosts = "/x"; return newClient(c, r) }, "known_hosts: is given together"},
		{"no such file", func() error {
			c := r.clientConf()
			c.HostKey, c.KnownHosts = "", "/nonexistent"
			return newClient(c, r)
		}, "known_hosts:"},
		{"no time", func() error { c := r.clientConf(); c.Keepalive = span(0); return newClient(c, r) }, "keepalive: must be longer"},
	}
	for _, tt := range faults {
		if err := tt.make(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error is %v, want %q", tt.name, err, tt.want)
		}
	}
}

func newClient(c hub.ClientConfig, r *rig) error {
	_, err := hub.NewClient(c, transports.Env{Signer: r.key("mirror")})
	return err
}
