package trigger_test

import (
	"context"
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/internal/envelope"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/mem"
	"github.com/mirrorbus/mirrorbus/transports/outlet"
	"github.com/mirrorbus/mirrorbus/trigger"
)

// bound is how long anything may take. It only says when to give up.
const bound = 15 * time.Second

// A master is the folder, the keys and the configuration of one, with a bus.
type master struct {
	t    *testing.T
	tree string
	conf trigger.Config
	keys map[string]ssh.Signer
	bus  *mem.Bus
	caps transports.Capabilities
	log  buffer
}

// newMaster makes a master of the module m that trusts the mirrors one and two; the test fails if a goroutine is left at its end.
func newMaster(t *testing.T) *master {
	t.Helper()
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
	dir := t.TempDir()
	m := &master{t: t, tree: filepath.Join(dir, "tree"), keys: map[string]ssh.Signer{}, caps: mem.All(), conf: trigger.Defaults()}
	check(t, os.Mkdir(m.tree, 0o755))
	var trust strings.Builder
	for _, name := range []string{"master", "one", "two", "stranger"} {
		m.keys[name] = writeKey(t, filepath.Join(dir, name))
		if name != "stranger" {
			fmt.Fprintf(&trust, "%s namespaces=\"report@mirrorbus\" %s", name, ssh.MarshalAuthorizedKey(m.keys[name].PublicKey()))
		}
	}
	m.conf.Trust = config.Path(filepath.Join(dir, "trust"))
	check(t, os.WriteFile(string(m.conf.Trust), []byte(trust.String()), 0o600))
	m.conf.Key, m.conf.State = config.Path(filepath.Join(dir, "master")), config.Path(filepath.Join(dir, "state"))
	m.conf.Modules = []trigger.ModuleConfig{{Name: "m", Path: config.Path(m.tree)}}
	m.conf.Transport = config.Sections{"mem": &mem.Config{}}
	m.validate()
	return m
}

// validate fills the defaults in.
func (m *master) validate() {
	m.t.Helper()
	check(m.t, m.conf.Validate())
	for i := range m.conf.Modules {
		check(m.t, m.conf.Modules[i].Validate())
	}
}

func writeKey(t *testing.T, path string) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(nil)
	check(t, err)
	block, err := ssh.MarshalPrivateKey(private, "")
	check(t, err)
	check(t, os.WriteFile(path, pem.EncodeToMemory(block), 0o600))
	signer, err := ssh.NewSignerFromKey(private)
	check(t, err)
	return signer
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// write puts files into the tree.
func (m *master) write(names ...string) {
	m.t.Helper()
	for _, name := range names {
		p := filepath.Join(m.tree, name)
		check(m.t, os.MkdirAll(filepath.Dir(p), 0o755))
		check(m.t, os.WriteFile(p, []byte(name), 0o644))
	}
}

// open opens the parts, until close is called or the test ends.
func (m *master) open() (parts *trigger.Parts, closeParts func()) {
	m.t.Helper()
	parts, err := trigger.OpenParts(m.t.Context(), &m.conf, m.logger())
	check(m.t, err)
	closed := false
	closeParts = func() {
		if !closed {
			closed = true
			check(m.t, parts.Close())
		}
	}
	m.t.Cleanup(closeParts)
	return parts, closeParts
}

// hub makes a hub that does not run, on a bus of its own.
func (m *master) hub() *trigger.Hub {
	m.t.Helper()
	parts, _ := m.open()
	return m.hubOf(parts)
}

func (m *master) hubOf(parts *trigger.Parts) *trigger.Hub {
	h := trigger.NewHub(&m.conf, parts, m.logger())
	if m.bus == nil {
		m.bus = mem.NewBus(mem.Options{Capabilities: m.caps, Backlog: h.Env(parts.Signer).Backlog})
	}
	if len(m.conf.Transport) > 0 {
		h.AddOutlets(outlet.Outlet{Name: "mem", Transport: m.bus.Connect(m.conf.Name), Caps: m.caps})
	}
	return h
}

// start runs a hub until stop is called or the test ends.
func (m *master) start() (h *trigger.Hub, stop func()) {
	m.t.Helper()
	m.write("there")
	parts, closeParts := m.open()
	h = m.hubOf(parts)
	end := run(m.t, func(ctx context.Context) error {
		err := h.Run(ctx)
		if ctx.Err() == nil {
			m.t.Errorf("the hub ended by itself: %v", err)
		}
		return err
	})
	stop = func() {
		end()
		closeParts()
	}
	testenv.WaitFor(m.t, bound, func() error {
		s, err := h.Status(m.t.Context())
		switch {
		case err != nil:
			return err
		case len(s.Transports) > 0 && !s.Transports[0].Connected:
			return errors.New("the hub is not connected")
		case s.Modules[0].Entries == 0 || s.Modules[0].Building != "":
			return errors.New("the manifest is not built")
		}
		return nil
	})
	return h, stop
}

// relayed waits until nothing waits to be sent.
func (m *master) relayed(h *trigger.Hub) {
	m.t.Helper()
	testenv.WaitFor(m.t, bound, func() error {
		s, err := h.Status(m.t.Context())
		if err == nil && s.Transports[0].Waiting != 0 {
			err = fmt.Errorf("%d wait", s.Transports[0].Waiting)
		}
		return err
	})
}

// run runs f until the function that is returned is called, or the test ends.
func run(t *testing.T, f func(context.Context) error) (end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	ended := false
	end = func() {
		if ended {
			return
		}
		ended = true
		cancel()
		select {
		case err := <-done:
			if err == nil {
				t.Error("it ended without an error")
			}
		case <-time.After(bound):
			t.Error("it does not end")
		}
	}
	t.Cleanup(end)
	return end
}

func (m *master) logger() *slog.Logger { return slog.New(slog.NewTextHandler(&m.log, nil)) }

// buffer is a log that can be read while it is written.
type buffer struct{ testenv.Buffer }

func (b *buffer) count(s string) int { return strings.Count(b.String(), s) }

var announcements, reports = topic(transports.Announce), topic(transports.Report)

func topic(k transports.Kind) transports.Topic { return transports.Topic{Kind: k, Module: "m"} }

// A mirror is one that takes what comes and says what it is told to say.
type mirror struct {
	m         *master
	name      string
	transport transports.Transport
	connected chan struct{}

	mu    sync.Mutex
	heard []event.Sealed
	sets  []int // bytes of the path set of each
}

// mirror connects one that stands at the position have.
func (m *master) mirror(name, have string) *mirror {
	m.t.Helper()
	x := &mirror{m: m, name: name, transport: m.bus.Connect(name), connected: make(chan struct{})}
	run(m.t, func(ctx context.Context) error {
		return x.transport.Run(ctx, []transports.Subscription{{Topic: announcements, Have: func() string { return have }}}, x)
	})
	select {
	case <-x.connected:
	case <-time.After(bound):
		m.t.Fatal("the mirror does not get connected")
	}
	return x
}

// Connected implements transports.Receiver.
func (x *mirror) Connected() { close(x.connected) }

// Receive implements transports.Receiver.
func (x *mirror) Receive(_ context.Context, msg transports.Message) error {
	line, set, err := envelope.Decode(msg.Body)
	if err != nil {
		return err
	}
	s, err := event.Read(line)
	if err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.heard, x.sets = append(x.heard, s), append(x.sets, len(set))
	return nil
}

// said lists what came, as "change 1" or "head 2".
func (x *mirror) said() []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	var all []string
	for i, s := range x.heard {
		switch {
		case s.Head != nil:
			all = append(all, fmt.Sprint("head ", s.Head.Serial))
		case x.sets[i] == 0:
			all = append(all, fmt.Sprint("bare ", s.Announcement.Serial))
		default:
			all = append(all, fmt.Sprint(s.Kind, " ", s.Announcement.Serial))
		}
	}
	return all
}

// hears waits until what came ends with want.
func (x *mirror) hears(want ...string) {
	x.m.t.Helper()
	testenv.WaitFor(x.m.t, bound, func() error {
		got := x.said()
		for n := len(got); n > 0 && strings.HasPrefix(got[n-1], "head ") && !strings.HasPrefix(want[len(want)-1], "head "); n-- {
			got = got[:n-1] // a head may come at any time
		}
		if !strings.HasSuffix(strings.Join(got, ", "), strings.Join(want, ", ")) {
			return fmt.Errorf("%s heard %q, want %q at the end", x.name, got, want)
		}
		return nil
	})
}

// says publishes a report, signed by this mirror.
func (x *mirror) says(r event.Report) {
	x.m.t.Helper()
	r.Mirror = x.name
	x.sends(x.m.seal(r, x.name), reports)
}

func (x *mirror) sends(body []byte, t transports.Topic) {
	x.m.t.Helper()
	id := event.Sum(body).String()
	check(x.m.t, x.transport.Publish(x.m.t.Context(), transports.Message{Topic: t, ID: id, Body: body}))
}

func (m *master) seal(r event.Texter, by string) []byte {
	m.t.Helper()
	line, err := event.Seal(r, m.keys[by])
	check(m.t, err)
	return envelope.Encode(line, nil)
}
