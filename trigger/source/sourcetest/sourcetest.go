// Package sourcetest is the suite that every source of changes must pass. It makes real changes to a real tree and looks at what the hub has announced for them:
// taken into the manifest of before, it must make the manifest of now; and nothing may be announced that did not change.
package sourcetest

import (
	"context"
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/internal/control"
	"github.com/mirrorbus/mirrorbus/internal/envelope"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/trigger"
	"github.com/mirrorbus/mirrorbus/trigger/manifest"
)

// A Harness is a source to be tested.
type Harness struct {
	// Start starts the source on the module of m. It is stopped with Stop, or else ends with the test.
	Start func(t *testing.T, m Master) Running

	// Miss, if it is not nil, makes f be changes that the source does not see, as when a queue overflows; but it knows that it missed something. It returns names
	// that came and went in the tree for it.
	Miss func(t *testing.T, s Running, f func()) []string

	// LinksApart says that the source may announce a name of a file together with the directory that it is in, and so not tell that it is one of several: mirrors
	// then have two files, until the next scan. All the same each of them is announced whenever the file changes.
	LinksApart bool
}

// A Running is a source at work.
type Running interface {
	// Sync returns once all that was changed before the call is announced.
	Sync(ctx context.Context) error
	// Stop ends the source as a kill does: what it had not handed over is lost with it.
	Stop()
}

// Module is the module of a Master.
const Module = event.Module("m")

// A Master is a module whose hub runs.
type Master struct {
	Tree   string // root of the module
	Hub    *trigger.Hub
	Socket string // control socket of the hub
	parts  *trigger.Parts
	apart  bool // as of Harness
}

const bound = 30 * time.Second

// in is where a name lies.
func (m Master) in(name string) string { return filepath.Join(m.Tree, name) }

// Run runs the suite.
func Run(t *testing.T, h Harness) {
	t.Run("changes", func(t *testing.T) { changes(t, h) })
	t.Run("at random", func(t *testing.T) { random(t, h) })
	t.Run("stopped meanwhile", func(t *testing.T) { stopped(t, h) })
	t.Run("missed", func(t *testing.T) { missed(t, h) })
	t.Run("announced by another", func(t *testing.T) { announced(t, h) })
	t.Run("an index", func(t *testing.T) { indexed(t, h) })
}

// start makes a master, and waits until its manifest is built.
func start(t *testing.T, h Harness) Master {
	t.Helper()
	dir := t.TempDir()
	m := Master{Tree: filepath.Join(dir, "tree"), Socket: filepath.Join(dir, "socket"), apart: h.LinksApart}
	check(t, os.Mkdir(m.Tree, 0o755))
	check(t, os.WriteFile(filepath.Join(m.Tree, "start"), nil, 0o644))
	conf := configure(t, dir, m.Tree)
	var err error
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	m.parts, err = trigger.OpenParts(t.Context(), conf, log)
	check(t, err)
	t.Cleanup(func() { check(t, m.parts.Close()) })
	m.Hub = trigger.NewHub(conf, m.parts, log)
	l, err := control.Listen(m.Socket)
	check(t, err)
	background(t, m.Hub.Run)
	background(t, func(ctx context.Context) error { return control.Serve(ctx, l, m.Hub.Handler()) })
	testenv.WaitFor(t, bound, func() error {
		s, err := m.Hub.Status(t.Context())
		if err == nil && (s.Modules[0].Entries == 0 || s.Modules[0].Building != "") {
			err = errors.New("the manifest is not built")
		}
		return err
	})
	return m
}

func configure(t *testing.T, dir, tree string) *trigger.Config {
	t.Helper()
	_, private, err := ed25519.GenerateKey(nil)
	check(t, err)
	block, err := ssh.MarshalPrivateKey(private, "")
	check(t, err)
	conf := trigger.Defaults()
	conf.Key, conf.Trust, conf.State = config.Path(filepath.Join(dir, "key")), config.Path(filepath.Join(dir, "trust")), config.Path(filepath.Join(dir, "state"))
	check(t, os.WriteFile(string(conf.Key), pem.EncodeToMemory(block), 0o600))
	check(t, os.WriteFile(string(conf.Trust), nil, 0o600))
	conf.Modules = []trigger.ModuleConfig{{Name: string(Module), Path: config.Path(tree)}}
	check(t, conf.Validate())
	check(t, conf.Modules[0].Validate())
	return &conf
}

// background runs f until the test ends.
func background(t *testing.T, f func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("it ended by itself: %v", err)
		}
	})
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func sync(t *testing.T, s Running) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	check(t, s.Sync(ctx))
}

// A mark is how a tree was, and up to where it was announced.
type mark struct {
	m      Master
	facts  Facts
	known  *manifest.Manifest
	serial event.Serial
}

// mark notes how things are. All must be announced.
func (m Master) mark(t *testing.T) *mark {
	t.Helper()
	known, err := manifest.Open(t.Context(), filepath.Join(t.TempDir(), "manifest.db"), Module, manifest.Options{})
	check(t, err)
	t.Cleanup(func() { check(t, known.Close()) })
	st, err := m.parts.Journal.State(t.Context(), Module)
	check(t, err)
	_, err = known.Build(t.Context(), m.Tree, st.Epoch, st.Serial, nil)
	check(t, err)
	return &mark{m, Look(t, m.Tree), known, st.Serial}
}

// announced are the path sets since the mark.
func (k *mark) announced(t *testing.T) (sets []event.PathSet) {
	t.Helper()
	st, err := k.m.parts.Journal.State(t.Context(), Module)
	check(t, err)
	for s, err := range k.m.parts.Journal.Since(t.Context(), Module, st.Epoch, k.serial) {
		check(t, err)
		if s.Set == nil {
			t.Fatal("it was announced that anything may have changed")
		}
		set, err := envelope.PathSet(s.Set, s.Announcement.Set)
		check(t, err)
		sets = append(sets, set)
	}
	return sets
}

// check fails the test unless what was announced since the mark is what has changed since, and nothing else. touched are names that may be announced
// though they are as they were. The mark then stands for now.
func (k *mark) check(t *testing.T, touched ...string) {
	t.Helper()
	now := Look(t, k.m.Tree)
	all := k.announced(t)
	for _, set := range all {
		for _, wrong := range k.facts.Superfluous(now, set, touched...) {
			t.Error(wrong)
		}
		k.serial++
		_, err := k.known.Apply(t.Context(), manifest.Change{Serial: k.serial, Set: set, Before: time.Now().Add(time.Hour)}, k.m.Tree)
		check(t, err)
	}
	fresh := k.m.mark(t)
	for _, wrong := range Agree(k.m.seen(records(t, k.known)), k.m.seen(records(t, fresh.known))) {
		t.Error(wrong)
	}
	if t.Failed() {
		for _, set := range all {
			t.Logf("announced %q", lines(set))
		}
	}
	k.facts = now
}

func records(t *testing.T, m *manifest.Manifest) (all []event.Record) {
	t.Helper()
	for r, err := range m.Records(t.Context(), "") {
		check(t, err)
		all = append(all, r)
	}
	return slices.DeleteFunc(all, func(r event.Record) bool { return r.Op == event.Gone })
}

// seen are records without what the source need not tell.
func (m Master) seen(all []event.Record) []event.Record {
	for i := range all {
		if m.apart {
			all[i].Link = 0
		}
	}
	return all
}

func lines(set event.PathSet) (all []string) {
	for _, d := range trigger.Describe(set) {
		all = append(all, fmt.Sprint(d))
	}
	return all
}
