package daemon_test

import (
	"context"
	"crypto/ed25519"
	"encoding/pem"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/listener"
	"github.com/mirrorbus/mirrorbus/listener/daemon"
	"github.com/mirrorbus/mirrorbus/trigger/journal"
	"github.com/mirrorbus/mirrorbus/trigger/manifest"
)

// bound is how long anything may take. It only says when to give up.
const bound = 30 * time.Second

// A world is a master that exports the module m behind a real rsync daemon, and the configuration of a mirror of it.
type world struct {
	t            *testing.T
	tree, mirror string // the two trees
	key          ssh.Signer
	journal      *journal.Journal
	exporter     *journal.Exporter
	conf         listener.Config
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newWorld(t *testing.T) *world {
	t.Helper()
	dir := t.TempDir()
	w := &world{t: t, tree: filepath.Join(dir, "master"), mirror: filepath.Join(dir, "mirror"), conf: listener.Defaults()}
	for _, d := range []string{w.tree, w.mirror} {
		check(t, os.Mkdir(d, 0o755))
	}
	w.key = writeKey(t, filepath.Join(dir, "master-key"))
	writeKey(t, filepath.Join(dir, "mirror-key"))
	w.trust(dir, w.key)
	daemon := testenv.StartRsyncd(t, testenv.RsyncdOptions{}, testenv.Module{Name: "m", Path: w.tree})
	w.conf.Name, w.conf.Key, w.conf.State = "one", config.Path(filepath.Join(dir, "mirror-key")), config.Path(filepath.Join(dir, "state"))
	w.conf.Grants = []listener.GrantConfig{{Principal: "master", Modules: []string{"*"}, Kinds: []event.Kind{event.Change, event.Flip, event.HeadIs}}}
	w.conf.Modules = []listener.ModuleConfig{{Name: "m", Path: config.Path(w.mirror), Upstream: daemon.URL("m")}}
	w.conf.Modules[0].Upstream = strings.TrimSuffix(w.conf.Modules[0].Upstream, "/")
	check(t, w.conf.Validate())
	check(t, w.conf.Modules[0].Validate())
	return w
}

// trust makes the mirror trust a key as the master's.
func (w *world) trust(dir string, key ssh.Signer) {
	w.conf.Trust = config.Path(filepath.Join(dir, "trust"))
	check(w.t, os.WriteFile(string(w.conf.Trust), fmt.Appendf(nil, "master %s", ssh.MarshalAuthorizedKey(key.PublicKey())), 0o600))
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

// serve exports the master's tree as it is now; heads hold for ttl.
func (w *world) serve(ttl time.Duration) {
	w.t.Helper()
	state := w.t.TempDir()
	var err error
	w.journal, err = journal.Open(w.t.Context(), state, journal.Options{Signer: w.key})
	check(w.t, err)
	w.t.Cleanup(func() { check(w.t, w.journal.Close()) })
	_, err = w.journal.CreateModule(w.t.Context(), "m")
	check(w.t, err)
	m, err := manifest.Open(w.t.Context(), filepath.Join(state, "manifest.db"), "m", manifest.Options{})
	check(w.t, err)
	w.t.Cleanup(func() { check(w.t, m.Close()) })
	w.exporter, err = w.journal.NewExporter(w.t.Context(), journal.ExportOptions{Module: "m", Tree: w.tree, Manifest: m, HeadEvery: ttl / 3, HeadTTL: ttl})
	check(w.t, err)
	w.t.Cleanup(func() { check(w.t, w.exporter.Close()) })
	_, err = w.exporter.BuildManifest(w.t.Context(), func(manifest.Progress) {})
	check(w.t, err)
}

// announce says that paths were written.
func (w *world) announce(paths ...string) {
	w.t.Helper()
	var set event.PathSet
	for _, p := range paths {
		info, err := os.Stat(filepath.Join(w.tree, p))
		check(w.t, err)
		set = append(set, event.Record{Op: event.Write, Mode: event.ModeFile | uint32(info.Mode().Perm()), Size: info.Size(), MTime: event.StampOf(info.ModTime()), Path: p})
	}
	_, err := w.journal.Append(w.t.Context(), journal.Entry{Module: "m", Kind: event.Change, Set: set})
	check(w.t, err)
	check(w.t, w.exporter.Export(w.t.Context()))
}

// put writes a file with a time of its own into each of the trees.
func (w *world) put(name, content string, trees ...string) {
	w.t.Helper()
	for _, tree := range trees {
		p := filepath.Join(tree, name)
		check(w.t, os.MkdirAll(filepath.Dir(p), 0o755))
		check(w.t, os.WriteFile(p, []byte(content), 0o644))
		check(w.t, os.Chtimes(p, time.Time{}, time.Unix(1_700_000_000, 0)))
	}
}

// open opens the mirror's daemon until the test ends.
func (w *world) open() *daemon.Daemon {
	w.t.Helper()
	d, err := daemon.Open(w.t.Context(), &w.conf, slog.New(slog.DiscardHandler))
	check(w.t, err)
	w.t.Cleanup(func() { check(w.t, d.Close()) })
	return d
}

// run runs the daemon until the test ends.
func (w *world) run(d *daemon.Daemon) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		select {
		case <-done:
		case <-time.After(bound):
			w.t.Error("the daemon does not end")
		}
	})
}

// verify lists what Verify finds, as "kind path: what".
func (w *world) verify(d *daemon.Daemon, checksum bool) []string {
	w.t.Helper()
	var all []string
	check(w.t, d.Verify(w.t.Context(), "m", checksum, func(f daemon.Finding) error {
		all = append(all, fmt.Sprintf("%s %s: %s", f.Kind, f.Path, f.What))
		return nil
	}))
	slices.Sort(all)
	return all
}
