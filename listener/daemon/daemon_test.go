package daemon_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/internal/doctor"
	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/listener"
	"github.com/mirrorbus/mirrorbus/listener/daemon"
	"github.com/mirrorbus/mirrorbus/listener/pace"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/mem"
	"github.com/mirrorbus/mirrorbus/transports/outlet"
)

func TestVerify(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"same", "d/same", "modified", "content", "mode", "missing", "odd\x1b", "own/left-out"} {
		w.put(name, "content", w.tree, w.mirror)
	}
	w.serve(time.Hour)
	w.put("modified", "longer content", w.mirror)
	w.put("content", "c0ntent", w.mirror) // same size, same time
	w.put("extra", "x", w.mirror)
	w.put("own/extra", "x", w.mirror)
	check(t, os.Chmod(filepath.Join(w.mirror, "mode"), 0o600))
	check(t, os.Remove(filepath.Join(w.mirror, "missing")))
	check(t, os.Remove(filepath.Join(w.mirror, "odd\x1b")))
	w.conf.Modules[0].Filter = []string{"- /own/"}
	d := w.open()
	want := []string{
		"extra extra: is not in the manifest", `missing "odd\x1b": is missing`, "missing missing: is missing",
		"mode mode: has mode 100600, not 100644", "modified modified: is 14 bytes long, not 7",
	}
	if got := w.verify(d, false); !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
	want = slices.Insert(want, 4, "modified content: content, by checksum")
	if got := w.verify(d, true); !slices.Equal(got, want) {
		t.Errorf("with --checksum found %q, want %q", got, want)
	}
	if b, err := os.ReadFile(filepath.Join(w.mirror, "content")); err != nil || string(b) != "c0ntent" {
		t.Errorf("verify has changed a file: %q, %v", b, err)
	}
}

func TestVerifyRefuses(t *testing.T) {
	w := newWorld(t)
	d := w.open()
	none := func(daemon.Finding) error { return errors.New("found something") }
	if err := d.Verify(t.Context(), "n", false, none); fault.StatusOf(err) != fault.Usage || fault.HintOf(err) == "" {
		t.Errorf("unknown module: %v", err)
	}
	if err := d.Verify(t.Context(), "m", false, none); err == nil || !strings.Contains(err.Error(), "export") {
		t.Errorf("nothing is exported: %v", err)
	}
	w.put("a", "content", w.tree)
	w.serve(time.Hour)
	stop := errors.New("enough")
	err := d.Verify(t.Context(), "m", false, func(daemon.Finding) error {
		if err := d.Verify(t.Context(), "m", false, none); fault.StatusOf(err) != fault.TryAgain {
			t.Errorf("twice at a time: %v", err)
		}
		return stop
	})
	if !errors.Is(err, stop) {
		t.Errorf("ended with %v", err)
	}
	if got := w.verify(d, true); !slices.Equal(got, []string{"missing a: is missing"}) {
		t.Errorf("and then it finds %q", got)
	}
}

// An agent without a transport finds by itself what the upstream has. Its plan then names what an announcement would make it do.
func TestStatusAndPlan(t *testing.T) {
	w := newWorld(t)
	w.put("a", "content", w.tree)
	w.put("d/it's here\n", "content", w.tree)
	w.serve(time.Hour)
	w.conf.Modules[0].Exec = nil
	d := w.open()
	if s, err := d.Status(t.Context()); err != nil || s.Running || s.Mirror != "one" || len(s.Modules) != 1 || s.Modules[0].State != "new" {
		t.Errorf("status before the first run %+v, %v", s, err)
	}
	w.run(d)
	testenv.WaitFor(t, bound, func() error {
		s, err := d.Status(t.Context())
		if err == nil && s.Modules[0].State != "current" {
			err = fmt.Errorf("it is %s: %s", s.Modules[0].State, s.Modules[0].Error)
		}
		return err
	})
	if got := w.verify(d, true); len(got) > 0 {
		t.Errorf("differences: %q", got)
	}
	if p, err := d.Plan(t.Context(), "m"); err != nil || len(p.Stages) != 0 || p.Schema != daemon.Schema || p.Next == "" {
		t.Errorf("with nothing to do the plan is %+v, %v", p, err)
	}
	if _, err := d.Plan(t.Context(), "n"); err == nil {
		t.Error("a plan of an unknown module")
	}
}

// The plan of what was heard shows command lines that a shell runs as they are.
func TestPlanOfWhatWasHeard(t *testing.T) {
	w := newWorld(t)
	w.put("a", "content", w.tree, w.mirror)
	w.serve(time.Hour)
	first := w.open()
	w.runUntilCurrent(first)
	w.put("d/it's here\n", "content", w.tree)
	w.put("repodata/repomd.xml", "content", w.tree)
	w.announce("d/it's here\n", "repodata/repomd.xml")
	stored, err := w.journal.Latest(t.Context(), "m")
	check(t, err)
	hear(t, first, transports.Message{Topic: transports.Topic{Kind: transports.Announce, Module: "m"}, ID: "1", Body: stored.Body()})
	p, err := first.Plan(t.Context(), "m")
	check(t, err)
	if p.From != 0 || p.To != 1 || len(p.Stages) < 2 {
		t.Fatalf("the plan is %+v", p)
	}
	var names []string
	for _, s := range p.Stages {
		for _, r := range s.Runs {
			names = append(names, r.Names...)
			if out, err := exec.Command("sh", "-nc", r.Command).CombinedOutput(); err != nil || !strings.Contains(r.Command, "rsync") {
				t.Errorf("command line %s: %v, %s", r.Command, err, out)
			}
		}
	}
	for _, want := range []string{`"d/it's here\n"`, "repodata/repomd.xml"} {
		if !slices.Contains(names, want) {
			t.Errorf("the plan names %q, not %s", names, want)
		}
	}
	if _, err := os.Stat(filepath.Join(w.mirror, "d")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a plan has changed the tree: %v", err)
	}
}

// runUntilCurrent runs the daemon until it has all, and ends it.
func (w *world) runUntilCurrent(d *daemon.Daemon) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	testenv.WaitFor(w.t, bound, func() error {
		s, err := d.Status(w.t.Context())
		if err == nil && s.Modules[0].State != "current" {
			err = fmt.Errorf("it is %s: %s", s.Modules[0].State, s.Modules[0].Error)
		}
		return err
	})
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		w.t.Errorf("ended with %v", err)
	}
}

// hear hands a message to the agent as a transport does.
func hear(t *testing.T, d *daemon.Daemon, m transports.Message) {
	t.Helper()
	check(t, d.Agent().Receiver("test").Receive(t.Context(), m))
}

// On connecting a mirror says where it stands, and after a restart without a transport its reports do not wait for it for ever.
func TestPositionAndReports(t *testing.T) {
	w := newWorld(t)
	w.put("a", "content", w.tree, w.mirror)
	w.serve(time.Hour)
	w.announce("a")
	bus := mem.NewBus(mem.Options{Capabilities: mem.All()})
	w.conf.Transport = config.Sections{"mem": &mem.Config{}}
	d := w.open()
	w.runUntilCurrent(d)
	have := make(chan string, 1)
	d.AddOutlets(outlet.Outlet{Name: "mem", Transport: asked{bus.Connect("one"), have}, Caps: mem.All()})
	w.run(d)
	st, err := w.journal.State(t.Context(), "m")
	check(t, err)
	select {
	case got := <-have:
		if want := fmt.Sprintf("%s:%d", st.Epoch, st.Serial); got != want {
			t.Errorf("it stands at %q, want %q", got, want)
		}
	case <-time.After(bound):
		t.Fatal("it does not connect")
	}
	testenv.WaitFor(t, bound, func() error {
		s, err := d.Status(t.Context())
		if err == nil && (len(s.Transports) != 1 || !s.Transports[0].Connected || s.Transports[0].Waiting != 0) {
			err = fmt.Errorf("transports are %+v", s.Transports)
		}
		return err
	})
}

// heardOnly is the configuration of a transport that reports cannot go by.
type heardOnly struct{ mem.Config }

// SendsNothing implements transports.SendsNothing.
func (*heardOnly) SendsNothing() {}

// Reports go by the transports that carry them, and do not wait for the others.
func TestReportsDoNotWaitForWhatCarriesNone(t *testing.T) {
	w := newWorld(t)
	w.put("a", "content", w.tree, w.mirror)
	w.serve(time.Hour)
	w.announce("a")
	w.conf.Transport = config.Sections{"mem": &mem.Config{}, "ears": &heardOnly{}}
	d := w.open()
	w.runUntilCurrent(d)
	bus := mem.NewBus(mem.Options{Capabilities: mem.All()})
	for _, name := range []string{"mem", "ears"} {
		d.AddOutlets(outlet.Outlet{Name: name, Transport: bus.Connect(name), Caps: mem.All()})
	}
	s, err := d.Status(t.Context())
	check(t, err)
	if len(s.Transports) != 2 || s.Transports[0].Waiting == 0 || s.Transports[1].Waiting != 0 {
		t.Errorf("transports are %+v", s.Transports)
	}
}

// asked tells where a subscriber says that it stands.
type asked struct {
	transports.Transport
	have chan<- string
}

func (a asked) Run(ctx context.Context, subs []transports.Subscription, r transports.Receiver) error {
	select {
	case a.have <- subs[0].Have():
	default:
	}
	return a.Transport.Run(ctx, subs, r)
}

func TestCheckUpstream(t *testing.T) {
	w := newWorld(t)
	look := func(level doctor.Level, detail string) {
		t.Helper()
		f := daemon.CheckUpstream(t.Context(), &w.conf, w.conf.Modules[0])
		if f.Level != level || !strings.Contains(f.Detail, detail) || level != doctor.OK && f.Remedy == "" {
			t.Errorf("found %+v, want %s with %q", f, level, detail)
		}
	}
	look(doctor.Bad, "export") // nothing is
	w.put("a", "content", w.tree)
	w.serve(time.Hour)
	look(doctor.OK, "serial 0, signed at ")
	w.trust(t.TempDir(), writeKey(t, filepath.Join(t.TempDir(), "other")))
	look(doctor.Bad, "head")
	w.trust(t.TempDir(), w.key)
	w.conf.Grants[0].Kinds = []event.Kind{event.Change}
	look(doctor.Bad, "head")
	w.conf.Grants[0].Kinds = []event.Kind{event.HeadIs}
	line, _, err := w.journal.Head(t.Context(), "m", time.Minute, time.Now().Add(-time.Hour))
	check(t, err)
	check(t, os.WriteFile(filepath.Join(w.tree, event.ExportDir, "head"), append(line, '\n'), 0o644))
	look(doctor.Warn, "has expired")
	good := w.conf.Modules[0].Upstream
	w.conf.Modules[0].Upstream = good + "x"
	look(doctor.Bad, "")
	w.conf.Modules[0].Upstream = fmt.Sprintf("rsync://127.0.0.1:%d/m", testenv.FreePort(t))
	look(doctor.Bad, "")
	w.conf.Modules[0].Upstream = good
	w.conf.Trust += "x"
	look(doctor.Bad, "trust")
}

// A mirror that is where its upstream is says so only if that upstream is up to date.
func TestFresh(t *testing.T) {
	w := newWorld(t)
	w.put("a", "content", w.tree)
	w.serve(time.Hour)
	d := w.open()
	line, _, err := w.journal.Head(t.Context(), "m", time.Minute, time.Now().Add(-time.Hour))
	check(t, err)
	file := filepath.Join(w.tree, event.ExportDir, "head")
	good, err := os.ReadFile(file)
	check(t, err)
	check(t, os.WriteFile(file, append(line, '\n'), 0o644))
	check(t, d.Agent().Reconcile(t.Context(), "m"))
	if err := d.Fresh(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "module m: ") || !strings.Contains(err.Error(), "has expired") {
		t.Errorf("with an old head: %v", err)
	}
	check(t, os.WriteFile(file, good, 0o644))
	check(t, d.Look(t.Context(), ""))
	check(t, d.Agent().Reconcile(t.Context(), "m"))
	if err := d.Fresh(t.Context(), "m"); err != nil {
		t.Errorf("with a fresh one: %v", err)
	}
}

// A look that was asked for is not forgotten because the rate of looks is limited: what is only there for a moment waits until it may.
func TestRestWaitsUntilItMayLook(t *testing.T) {
	w := newWorld(t)
	w.put("a", "content", w.tree)
	w.serve(time.Hour)
	d := w.open()
	var rate *listener.RateError
	for range 2 * pace.DefaultBudgets()[pace.WorkLook].Burst {
		check(t, d.Look(t.Context(), ""))
		if err := d.Agent().Reconcile(t.Context(), "m"); errors.As(err, &rate) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if rate == nil || rate.Module != "m" || time.Until(rate.At) <= 0 || time.Until(rate.At) > 10*time.Second {
		t.Fatalf("one look after the other ends with %v", rate)
	}
	w.put("b", "news", w.tree)
	w.announce("b")
	check(t, d.Rest(t.Context(), bound))
	if _, err := os.Stat(filepath.Join(w.mirror, "b")); err != nil {
		t.Errorf("it rests, and the news are not here: %v", err)
	}
}

func TestCheckRsync(t *testing.T) {
	path := testenv.Need(t, "rsync")
	if f := daemon.CheckRsync(t.Context(), path); f.Level == doctor.Bad || !strings.Contains(f.Detail, "3.") {
		t.Errorf("%s: %+v", path, f)
	}
	if f := daemon.CheckRsync(t.Context(), filepath.Join(t.TempDir(), "rsync")); f.Level != doctor.Bad || f.Remedy == "" {
		t.Errorf("none: %+v", f)
	}
}
