package crash_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/control"
	"github.com/mirrorbus/mirrorbus/internal/enrol"
	"github.com/mirrorbus/mirrorbus/internal/sqlite"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/listener"
	"github.com/mirrorbus/mirrorbus/listener/daemon"
	"github.com/mirrorbus/mirrorbus/trigger"
)

const (
	module = "m"
	alpha  = "alpha"               // the mirror
	bound  = 90 * time.Second      // whatever does not come within this time does not come
	short  = 50 * time.Millisecond // between two looks
)

// A world is a master with a real rsync daemon and a hub, and a mirror with its agent, all as processes of the program.
type world struct {
	t          testing.TB
	master     string // folder of tree and state
	mirror     string // likewise
	dir        string // of everything else
	hub, agent *process

	turns     int
	moved     int // times that a directory was renamed
	history   history
	unsaid    *trigger.Request              // what publish has not answered
	acked     map[event.Serial]string       // lines that publish returned
	seen      map[event.Serial]event.Digest // every line that ever was in the journal
	reported  event.Serial
	forgetful bool // the mirror has lost what it knew, so it may report less
}

// newWorld enrols a mirror with a master. Their trees and states lie in the folders master and mirror; nothing runs yet.
func newWorld(t testing.TB, master, mirror string, settings ...string) *world {
	t.Helper()
	testenv.Need(t, "rsync")
	file, err := program()
	must(t, err)
	dir, err := os.MkdirTemp("", "mbc") // a socket's path must be short
	must(t, err)
	w := &world{t: t, dir: dir, master: master, mirror: mirror, history: history{}, acked: map[event.Serial]string{}, seen: map[event.Serial]event.Digest{}}
	t.Cleanup(w.close)
	must(t, errors.Join(os.MkdirAll(w.tree(), 0o755), os.MkdirAll(w.copy(), 0o755)))
	rsyncd := testenv.StartRsyncd(t, testenv.RsyncdOptions{}, testenv.Module{Name: module, Path: w.tree()})
	address := fmt.Sprint("127.0.0.1:", testenv.FreePort(t))
	conf, join, err := enrol.InitMaster(enrol.Master{Dir: filepath.Join(dir, "m"), State: filepath.Join(master, "state"), Socket: filepath.Join(dir, "ms"), Name: "master",
		Listen: address, Address: address, Modules: []enrol.Module{{Name: module, Path: w.tree(), Upstream: rsyncd.URL(module)}}})
	must(t, err)
	w.hub = &process{argv: []string{file, "hub", "-v", "-c", conf}, log: filepath.Join(dir, "hub.log")}
	conf, key, err := enrol.InitMirror(enrol.Mirror{Dir: filepath.Join(dir, "a"), State: w.inbox(), Socket: filepath.Join(dir, "as"), Name: alpha,
		Join: join, Modules: []enrol.Module{{Name: module, Path: w.copy()}}})
	must(t, err)
	must(t, enrol.AddMirror(filepath.Join(dir, "m", "allowed_signers"), alpha, key))
	text, err := os.ReadFile(conf)
	must(t, err)
	lines := append([]string{"[[module]]", `last = ["dists/"]`, "max_delete_ratio = 1.0"}, settings...)
	must(t, os.WriteFile(conf, []byte(strings.Replace(string(text), "[[module]]", strings.Join(lines, "\n"), 1)), 0o600))
	w.agent = &process{argv: []string{file, "agent", "-v", "-c", conf}, log: filepath.Join(dir, "agent.log")}
	return w
}

func (w *world) tree() string  { return filepath.Join(w.master, "tree") }
func (w *world) copy() string  { return filepath.Join(w.mirror, "tree") }
func (w *world) inbox() string { return filepath.Join(w.mirror, "state") }

// close ends the daemons. What they said is printed if something went wrong.
func (w *world) close() {
	err := errors.Join(w.hub.signal(9), w.agent.signal(9), w.hub.kill(), w.agent.kill())
	if w.t.Failed() {
		w.explain()
	}
	if err := errors.Join(err, os.RemoveAll(w.dir)); err != nil {
		w.t.Error(err)
	}
}

func (w *world) explain() {
	w.t.Logf("--- hub ---\n%s\n--- agent ---\n%s", w.hub.tail(4000), w.agent.tail(6000))
}

// begin fills the master's tree, starts both daemons and waits for the mirror.
func (w *world) begin() {
	w.t.Helper()
	for i := range 20 {
		w.write(fmt.Sprintf("pool/base-%d", i), 0)
	}
	w.write("moving-0/file", 0)
	w.write("dists/index", 0)
	must(w.t, w.hub.start())
	testenv.WaitFor(w.t, bound, func() error {
		s, err := w.hubStatus()
		if err == nil && s.Entries == 0 {
			err = errors.New("no manifest yet")
		}
		return err
	})
	must(w.t, w.agent.start())
	must(w.t, w.turn())
	w.current()
}

// write writes a file of the master's tree as a compose should: under another name, synced, then renamed.
func (w *world) write(path string, version int) {
	w.t.Helper()
	file := filepath.Join(w.tree(), path)
	must(w.t, os.MkdirAll(filepath.Dir(file), 0o755))
	f, err := os.Create(file + ".new")
	must(w.t, err)
	_, err = f.WriteString(content(path, version))
	must(w.t, errors.Join(err, f.Sync(), f.Close(), os.Rename(file+".new", file)))
}

// ask asks a daemon.
func (w *world) ask(socket, method, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	return w.client(socket).Do(ctx, method, path, in, out)
}

func (w *world) client(socket string) *control.Client {
	return control.NewClient(filepath.Join(w.dir, socket))
}

func (w *world) hubStatus() (trigger.ModuleStatus, error) {
	var s trigger.Status
	if err := w.ask("ms", "GET", "/v1/status", nil, &s); err != nil {
		return trigger.ModuleStatus{}, err
	}
	return s.Modules[0], nil
}

func (w *world) agentStatus() (listener.ModuleStatus, error) {
	var s daemon.Status
	if err := w.ask("as", "GET", "/v1/status", nil, &s); err != nil {
		return listener.ModuleStatus{}, err
	}
	return s.Modules[0], nil
}

// publish announces what a request names. Nothing of it is forgotten until publish has answered.
func (w *world) publish(r trigger.Request, states map[string]string) error {
	r.Module = module
	w.history.says(states)
	w.unsaid = &r
	return w.again()
}

// again publishes what publish has not answered, as a compose hook would.
func (w *world) again() error {
	if w.unsaid == nil {
		return nil
	}
	var p trigger.Published
	if err := w.ask("ms", "POST", "/v1/publish", w.unsaid, &p); err != nil {
		return err
	}
	w.answered(p)
	return nil
}

func (w *world) answered(p trigger.Published) {
	if before, twice := w.acked[p.Serial]; twice {
		w.t.Errorf("serial %d was given twice: %s and %s", p.Serial, before, p.Line)
	}
	w.acked[p.Serial] = p.Line
	w.history.said(p.Serial)
	w.unsaid = nil
}

// settled tells why the mirror is not at the master's serial, or that the master does not know that it is.
func (w *world) settled() error {
	h, err := w.hubStatus()
	if err != nil {
		return err
	}
	a, err := w.agentStatus()
	if err != nil {
		return err
	}
	if len(h.Mirrors) != 1 || h.Mirrors[0].State != trigger.Current || a.Applied != h.Serial || a.Epoch != h.Epoch || h.Mirrors[0].Applied != h.Serial || a.State != listener.Current {
		return fmt.Errorf("master at %d, mirror at %d (%s %s), reported %+v", h.Serial, a.Applied, a.State, a.Error, h.Mirrors)
	}
	return nil
}

// current waits until the mirror has everything, the master knows, and says what is not as it should be then.
func (w *world) current() {
	w.t.Helper()
	testenv.WaitFor(w.t, bound, func() error { return errors.Join(w.watch(), w.settled()) })
	for _, d := range testenv.Diff(w.t, w.tree(), w.copy(), event.ExportDir) {
		w.t.Error(d)
	}
	w.journal()
}

// watch looks at what the mirror has reported: it never goes back.
func (w *world) watch() error {
	h, err := w.hubStatus()
	if err != nil || len(h.Mirrors) == 0 {
		return err
	}
	m := h.Mirrors[0]
	if w.forgetful {
		w.reported = min(w.reported, m.Applied)
	}
	if m.Applied < w.reported || m.Applied > h.Serial || m.State == trigger.Diverged {
		w.t.Errorf("the mirror reports %d (%s) after %d, of %d", m.Applied, m.State, w.reported, h.Serial)
	}
	w.reported = max(w.reported, m.Applied)
	return nil
}

// journal looks at the master's history: what publish returned is there, and what was there once does not change.
func (w *world) journal() {
	w.t.Helper()
	var entries []trigger.LogEntry
	must(w.t, w.ask("ms", "GET", fmt.Sprintf("/v1/log?module=%s&n=100000", module), nil, &entries))
	now := map[event.Serial]string{}
	for _, e := range entries {
		now[e.Serial] = e.Line
		if was, ok := w.seen[e.Serial]; ok && was != e.Digest {
			w.t.Errorf("serial %d was used again: %s", e.Serial, e.Line)
		}
		w.seen[e.Serial] = e.Digest
	}
	for serial, line := range w.acked {
		if now[serial] != line {
			w.t.Errorf("publish returned serial %d, and the journal has %q of it", serial, now[serial])
		}
	}
}

// rested gives the mirror back what it may ask of its upstream, as hours would. The agent must not run.
func (w *world) rested() {
	w.t.Helper()
	db, err := sqlite.Open(w.t.Context(), filepath.Join(w.inbox(), "state.db"), sqlite.Options{})
	must(w.t, err)
	_, err = db.Exec("DELETE FROM budget")
	must(w.t, errors.Join(err, db.Close()))
}
