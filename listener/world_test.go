package listener_test

import (
	"context"
	"crypto/ed25519"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/event/sshsig"
	"github.com/mirrorbus/mirrorbus/internal/envelope"
	"github.com/mirrorbus/mirrorbus/internal/export"
	"github.com/mirrorbus/mirrorbus/internal/sqlite"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/listener"
	"github.com/mirrorbus/mirrorbus/listener/catchup"
	"github.com/mirrorbus/mirrorbus/listener/rsync"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/outbox"
)

const pub event.Module = "pub"

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/mirrorbus/mirrorbus/internal/testenv.(*server).start.func2"))
}

// waitLong bounds a wait for something that is sure to come.
const waitLong = 20 * time.Second

func nowReal() time.Time { return time.Now() }

// features probes once for all tests: it takes half a second.
var features = sync.OnceValues(func() (rsync.Features, error) { return rsync.Probe(context.Background(), "rsync") })

func signer(t testing.TB, seed int) ssh.Signer {
	t.Helper()
	s, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed([]byte(fmt.Sprintf("%032d", seed))))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// trust believes one key, as the principal master.
type trust struct{ key ssh.PublicKey }

func (r trust) KeyByID([8]byte) []ssh.PublicKey { return []ssh.PublicKey{r.key} }

func (r trust) VerifyAs(principal string, sig *sshsig.Signature, _ []byte, _ string, _ time.Time) error {
	if principal != "master" || string(sig.Key.Marshal()) != string(r.key.Marshal()) {
		return errors.New("not the master's key")
	}
	return nil
}

func gate(t testing.TB) event.Gate {
	return event.Gate{Trust: trust{signer(t, 1).PublicKey()}, Grants: []event.Grant{{Principal: "master", Modules: []string{"*"}, Kinds: []event.Kind{event.Change, event.Flip, event.HeadIs}}}}
}

// A world is a master's module, served by a real rsync daemon, with its journal, and the place of a mirror.
type world struct {
	t               testing.TB
	up, dest, state string
	daemon          *testenv.Rsyncd
	out             *export.Writer
	epoch           event.Epoch
	last            event.Digest
	serial          event.Serial
	manifest        event.Digest
	now             func() time.Time

	held   time.Duration // that heads say
	signed int           // counts heads that say something else than before
}

func newWorld(t testing.TB, options ...func(*testenv.Module)) *world {
	t.Helper()
	testenv.Need(t, "rsync")
	base := t.TempDir()
	w := &world{t: t, up: filepath.Join(base, "up"), dest: filepath.Join(base, "mirror", "dest"), state: filepath.Join(base, "state"), epoch: "7c1e9f02", now: nowReal}
	for _, dir := range []string{w.up, w.dest} {
		w.must(os.MkdirAll(dir, 0o755))
	}
	m := testenv.Module{Name: "pub", Path: w.up}
	for _, o := range options {
		o(&m)
	}
	w.daemon = testenv.StartRsyncd(t, testenv.RsyncdOptions{}, m)
	out, err := export.OpenWriter(filepath.Join(w.up, event.ExportDir))
	w.must(err)
	t.Cleanup(func() { w.must(out.Close()) })
	w.out = out
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) write(nodes ...testenv.Node) { w.t.Helper(); testenv.WriteTree(w.t, w.up, nodes...) }

// rec is a record about what is at path on the master now.
func (w *world) rec(op event.Op, path string) event.Record {
	w.t.Helper()
	r := event.Record{Op: op, Path: path}
	info, err := os.Lstat(filepath.Join(w.up, path))
	if op == event.Gone {
		return r
	}
	w.must(err)
	st := info.Sys().(*syscall.Stat_t)
	r.Mode, r.MTime = st.Mode, event.StampOf(info.ModTime())
	if !info.IsDir() {
		r.Size = info.Size()
	}
	return r
}

// announcement is a signed announcement with its body.
type announcement struct {
	event.Announcement
	line, body []byte
}

// make signs the next announcement without exporting it.
func (w *world) make(a event.Announcement, records ...event.Record) announcement {
	w.t.Helper()
	set, err := event.NewPathSet(records)
	w.must(err)
	a.Module, a.Epoch, a.Serial, a.Prev, a.Set = pub, w.epoch, w.serial+1, w.last, set.Digest()
	if a.At.IsZero() {
		a.At = w.now().UTC().Truncate(time.Second)
	}
	if a.Kind == "" {
		a.Kind = event.Change
	}
	if a.Kind == event.Change {
		a.Count = len(set)
	}
	line, err := event.Seal(a, signer(w.t, 1))
	w.must(err)
	return announcement{a, line, envelope.Encode(line, envelope.Compress(set.Encode()))}
}

// put exports an announcement as the newest.
func (w *world) put(a announcement) announcement {
	w.t.Helper()
	line, set, err := envelope.Decode(a.body)
	w.must(err)
	w.must(w.out.PutEntry(a.Epoch, a.Serial, line, set))
	said, err := event.Read(line)
	w.must(err)
	w.serial, w.last = a.Serial, said.Digest
	w.must(w.out.PutHead(w.head()))
	return a
}

// announce makes and exports an announcement.
func (w *world) announce(records ...event.Record) announcement {
	w.t.Helper()
	return w.put(w.make(event.Announcement{}, records...))
}

func (w *world) flip(a event.Announcement, paths ...string) announcement {
	w.t.Helper()
	a.Kind = event.Flip
	var records []event.Record
	for _, p := range paths {
		records = append(records, w.rec(event.Meta, p))
	}
	return w.put(w.make(a, records...))
}

func (w *world) head() []byte {
	w.t.Helper()
	at := w.now().UTC().Truncate(time.Second).Add(time.Duration(w.signed) * time.Second)
	line, err := event.Seal(event.Head{Module: pub, Epoch: w.epoch, Serial: w.serial, At: at, TTL: 15 * time.Minute, Last: w.last, Manifest: w.manifest, Hold: w.held},
		signer(w.t, 1))
	w.must(err)
	return line
}

// publishManifest exports a manifest of the tree as it is now, at the present serial, and a head that names it.
func (w *world) publishManifest() {
	w.t.Helper()
	records := walk(w.t, w.up)
	shard, b := export.EncodeShard(records)
	ix := export.Index{Module: pub, Epoch: w.epoch, Serial: w.serial, Floor: w.serial, Entries: int64(len(records)), Shards: []export.Shard{shard}}
	if len(records) == 0 {
		ix.Shards = nil
	}
	digest, err := w.out.PutManifest(ix, w.manifest, func(export.Shard) ([]byte, error) { return b, nil })
	w.must(err)
	w.manifest = digest
	w.must(w.out.PutHead(w.head()))
}

func walk(t testing.TB, dir string) []event.Record {
	t.Helper()
	var all []event.Record
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		rel, relErr := filepath.Rel(dir, p)
		if err != nil || relErr != nil || rel == "." {
			return errors.Join(err, relErr)
		}
		if rel == event.ExportDir {
			return fs.SkipDir
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		r := event.Record{Op: event.Write, Mode: info.Sys().(*syscall.Stat_t).Mode, MTime: event.StampOf(info.ModTime()), Path: rel}
		if !d.IsDir() {
			r.Size = info.Size()
		}
		all = append(all, r)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	set, err := event.NewPathSet(all)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// runner is an rsync runner of the mirror.
func (w *world) runner(change ...func(*rsync.Config)) *rsync.Runner {
	w.t.Helper()
	return w.runnerOf(w.daemon.URL("pub", ""), change...)
}

func (w *world) runnerOf(url string, change ...func(*rsync.Config)) *rsync.Runner {
	w.t.Helper()
	f, err := features()
	w.must(err)
	cfg := rsync.Config{Upstream: rsync.Upstream{URL: url}, Dest: w.dest, LockFile: filepath.Join(w.state, "lock.rsync"), Features: f}
	for _, c := range change {
		c(&cfg)
	}
	r, err := rsync.New(cfg)
	w.must(err)
	return r
}

// source reads the upstream's export.
func (w *world) source(r *rsync.Runner) *catchup.Source {
	s := &catchup.Source{Module: pub, Fetcher: catchup.Rsync{Runner: r}, State: filepath.Join(w.state, "fetched"), Tree: w.dest, Mask: 0o6000}
	if w.daemon != nil {
		s.From = w.daemon.URL("pub", "")
	}
	return s
}

// options are those of a mirror of this world.
func (w *world) options(r *rsync.Runner, change ...func(*listener.Options)) listener.Options {
	w.t.Helper()
	o := listener.Options{
		Mirror: "mirror1", Signer: signer(w.t, 2), Gate: gate(w.t), State: w.state, Schema: []sqlite.Component{outbox.Schema()}, Now: w.now,
		Enqueue: func(ctx context.Context, tx *sql.Tx, m transports.Message) error {
			return outbox.Put(ctx, tx, outbox.Entry{Message: m}, []string{"mem"})
		},
		Modules: []listener.Module{{Name: pub, Dir: w.dest, Runner: listener.Rsync(r), CatchUp: w.source(r)}},
	}
	if testing.Verbose() {
		o.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	for _, c := range change {
		c(&o)
	}
	return o
}

// agent opens a mirror's agent; it is closed when the test ends.
func (w *world) agent(change ...func(*listener.Options)) *listener.Agent {
	w.t.Helper()
	return w.agentOf(w.runner(), change...)
}

func (w *world) agentOf(r *rsync.Runner, change ...func(*listener.Options)) *listener.Agent {
	w.t.Helper()
	a, err := listener.Open(w.t.Context(), w.options(r, change...))
	w.must(err)
	w.t.Cleanup(func() { a.Close() }) //nolint:errcheck // some tests close it themselves
	return a
}

// adopted is an agent that has compared its tree with the manifest of the world's present state.
func (w *world) adopted(change ...func(*listener.Options)) *listener.Agent {
	w.t.Helper()
	if w.serial == 0 {
		w.write(testenv.File("README", "hello"))
		w.announce(w.rec(event.Write, "README"))
	}
	w.publishManifest()
	a := w.agent(change...)
	w.must(a.Reconcile(w.t.Context(), pub))
	w.same(a, w.serial)
	return a
}

func (w *world) send(a *listener.Agent, all ...announcement) {
	w.t.Helper()
	for _, x := range all {
		w.deliver(a, x.body)
	}
}

func (w *world) deliver(a *listener.Agent, body []byte) {
	w.t.Helper()
	err := a.Receiver("mem").Receive(w.t.Context(), transports.Message{Topic: transports.Topic{Kind: transports.Announce, Module: string(pub)}, ID: "x", Body: body, From: "hub"})
	var refusal *transports.Refusal
	if !errors.As(err, &refusal) { // which is no failure of the agent
		w.must(err)
	}
}

// status is that of the module.
func (w *world) status(a *listener.Agent) listener.ModuleStatus {
	w.t.Helper()
	s, err := a.Status(w.t.Context())
	w.must(err)
	return s.Modules[0]
}

// same checks that the mirror is at a serial and its tree is as the master's.
func (w *world) same(a *listener.Agent, serial event.Serial, ignore ...string) {
	w.t.Helper()
	if s := w.status(a); s.Applied != serial {
		w.t.Errorf("applied %d, want %d: %+v", s.Applied, serial, s)
	}
	d := slices.DeleteFunc(testenv.Diff(w.t, w.up, w.dest, append(ignore, event.ExportDir)...), w.dirTime)
	if len(d) > 0 {
		w.t.Errorf("the mirror differs: %q", d)
	}
}

// dirTime tells whether a difference is only the time of a directory, which nothing promises: a deletion in it changes it.
func (w *world) dirTime(difference string) bool {
	path, what, _ := strings.Cut(difference, ": ")
	name, err := strconv.Unquote(path)
	w.must(err)
	info, err := os.Lstat(filepath.Join(w.dest, name))
	return err == nil && info.IsDir() && strings.HasPrefix(what, "time ")
}

// reports are those in the outbox, as "outcome serial/applied".
func (w *world) reports(a *listener.Agent) (all []event.Report) {
	w.t.Helper()
	rows, err := a.DB().Query("SELECT body FROM outbox_message ORDER BY message")
	w.must(err)
	defer rows.Close() //nolint:errcheck // read only
	for rows.Next() {
		var line []byte
		w.must(rows.Scan(&line))
		s, err := event.Read(line)
		w.must(err)
		all = append(all, *s.Report)
	}
	w.must(rows.Err())
	return all
}

// count counts the reports of an outcome.
func (w *world) count(a *listener.Agent, o event.Outcome) (n int) {
	w.t.Helper()
	for _, r := range w.reports(a) {
		if r.Outcome == o {
			n++
		}
	}
	return n
}
