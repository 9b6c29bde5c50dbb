package hub_test

import (
	"context"
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"

	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/hub"
)

// bound is how long anything may take that has no time of its own. It only says when to give up.
const bound = 30 * time.Second

var (
	debian  = transports.Topic{Kind: transports.Announce, Module: "debian"}
	reports = transports.Topic{Kind: transports.Report, Module: "debian"}
)

func msg(t transports.Topic, id, body string) transports.Message {
	return transports.Message{Topic: t, ID: id, Body: []byte(body)}
}

func span(d time.Duration) config.Duration { return config.Duration{Duration: d} }

// rig is the keys and settings of one hub and those who talk to it.
type rig struct {
	t       testing.TB
	dir     string
	host    ssh.Signer
	conf    hub.ServerConfig // what Start uses
	backlog func(ctx context.Context, t transports.Topic, have string) iter.Seq2[transports.Message, error]
	allowed func(peer string, t transports.Topic, subscribe bool) error
	log     testenv.Buffer

	mu     sync.Mutex
	keys   map[string]ssh.Signer
	owners map[string]string // by fingerprint
}

// newRig also checks, at the end of the test, that nothing of it runs any more.
func newRig(t testing.TB) *rig {
	t.Helper()
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
	r := &rig{t: t, dir: t.TempDir(), conf: *hub.DefaultServerConfig(), keys: make(map[string]ssh.Signer), owners: make(map[string]string)}
	r.conf.Listen, r.conf.HostKey = "127.0.0.1:0", config.Path(filepath.Join(r.dir, "host"))
	r.host = writeKey(t, string(r.conf.HostKey))
	return r
}

// writeKey makes a key in the file path.
func writeKey(t testing.TB, path string) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(nil)
	must(t, err)
	block, err := ssh.MarshalPrivateKey(private, "")
	must(t, err)
	must(t, os.WriteFile(path, pem.EncodeToMemory(block), 0o600))
	signer, err := ssh.NewSignerFromKey(private)
	must(t, err)
	return signer
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// key returns the key of a name, known to the hub.
func (r *rig) key(name string) ssh.Signer {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.keys[name] == nil {
		r.keys[name] = writeKey(r.t, r.keyFile(name))
		r.owners[ssh.FingerprintSHA256(r.keys[name].PublicKey())] = name
	}
	return r.keys[name]
}

func (r *rig) keyFile(name string) string { return filepath.Join(r.dir, name) }

func (r *rig) revoke(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.owners, ssh.FingerprintSHA256(r.keys[name].PublicKey()))
}

func (r *rig) owner(key ssh.PublicKey) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if name := r.owners[ssh.FingerprintSHA256(key)]; name != "" {
		return name, nil
	}
	return "", errors.New("not in the trust file")
}

func (r *rig) masterEnv() transports.Env {
	log := slog.New(slog.NewTextHandler(&r.log, nil))
	return transports.Env{Self: "master", Log: log, PeerName: r.owner, Allowed: r.allowed, Backlog: r.backlog}
}

// server is a running hub.
type server struct {
	*hub.Server
	inbox
	run
	rig *rig
}

// serve starts a hub that takes reports on debian.
func (r *rig) serve() *server {
	r.t.Helper()
	h, err := hub.NewServer(r.conf, r.masterEnv())
	must(r.t, err)
	s := &server{Server: h, inbox: newInbox(), rig: r}
	s.start(r.t, h, &s.inbox, transports.Subscription{Topic: reports})
	s.awaitConnected(r.t)
	r.conf.Listen = h.Addr().String() // the next one listens there too
	return s
}

// clientConf is the configuration of those who talk to the hub that runs.
func (r *rig) clientConf() hub.ClientConfig {
	c := *hub.DefaultClientConfig()
	c.Address, c.HostKey = r.conf.Listen, string(ssh.MarshalAuthorizedKey(r.host.PublicKey()))
	return c
}

// client is an agent's end.
type client struct {
	*hub.Client
	inbox
	run
}

func (r *rig) client(name string, change ...func(*hub.ClientConfig)) *client {
	r.t.Helper()
	conf := r.clientConf()
	for _, f := range change {
		f(&conf)
	}
	h, err := hub.NewClient(conf, transports.Env{Self: name, Signer: r.key(name)})
	must(r.t, err)
	return &client{Client: h, inbox: newInbox()}
}

// connect starts c on debian and waits until it is connected.
func (c *client) connect(t testing.TB, subs ...transports.Subscription) *client {
	t.Helper()
	if subs == nil {
		subs = []transports.Subscription{{Topic: debian}}
	}
	c.start(t, c.Client, &c.inbox, subs...)
	c.awaitConnected(t)
	return c
}

// run is a Run in the background.
type run struct {
	cancel context.CancelCauseFunc
	done   chan struct{}
	err    error // once done is closed
}

var errTestOver = errors.New("the test is over")

// start begins a Run that ends with the test at the latest.
func (r *run) start(t testing.TB, tr transports.Transport, in transports.Receiver, subs ...transports.Subscription) {
	ctx, cancel := context.WithCancelCause(context.Background())
	r.cancel, r.done = cancel, make(chan struct{})
	done := r.done
	go func() {
		defer close(done)
		r.err = tr.Run(ctx, subs, in)
	}()
	t.Cleanup(func() {
		cancel(errTestOver)
		<-done
	})
}

// ended waits for the end of the Run and returns its error.
func (r *run) ended(t testing.TB) error {
	t.Helper()
	select {
	case <-r.done:
		return r.err
	case <-time.After(bound):
		t.Fatal("Run has not ended")
		return nil
	}
}

// stop ends the Run.
func (r *run) stop(t testing.TB) {
	t.Helper()
	r.cancel(errTestOver)
	if err := r.ended(t); !errors.Is(err, errTestOver) {
		t.Fatalf("stopped Run returned %v", err)
	}
}

func (s *server) publish(t testing.TB, m transports.Message) {
	t.Helper()
	must(t, s.Publish(t.Context(), m))
}

// names lists the connected peers.
func (s *server) names() []string {
	var names []string
	for _, p := range s.Peers() {
		names = append(names, p.Name)
	}
	return names
}

func numbered(n int) string { return fmt.Sprintf("m%06d", n) }
