package listener_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/export"
	"github.com/mirrorbus/mirrorbus/internal/filter"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/listener"
	"github.com/mirrorbus/mirrorbus/listener/catchup"
	"github.com/mirrorbus/mirrorbus/listener/exec"
	"github.com/mirrorbus/mirrorbus/listener/inbox"
	"github.com/mirrorbus/mirrorbus/listener/rsync"
)

func TestAdoptsTreeAndAppliesAnnouncements(t *testing.T) {
	w := newWorld(t)
	w.write(testenv.File("pool/a", "one"), testenv.File("pool/b", "two"), testenv.Symlink("latest", "pool"))
	w.announce(w.rec(event.Write, "pool/a"))
	testenv.WriteTree(t, w.dest, testenv.File("old", "x"))
	a := w.adopted()
	if s := w.status(a); s.State != listener.Current || s.Head != 1 || s.Via != "upstream" {
		t.Errorf("%+v", s)
	}
	w.write(testenv.File("pool/a", "changed"), testenv.File("pool/new/c", "three"))
	w.send(a, w.announce(w.rec(event.Write, "pool/a"), w.rec(event.Write, "pool/new"), w.rec(event.Write, "pool/new/c"), w.rec(event.Write, "pool")))
	if s := w.status(a); s.State != listener.Behind || s.Heard != 2 {
		t.Errorf("%+v", s)
	}
	w.must(a.Reconcile(t.Context(), pub))
	w.same(a, 2)
	last := w.reports(a)[len(w.reports(a))-1]
	if last.Outcome != event.Applied || last.Applied != 2 || last.Serial != 2 || last.Files != 2 || last.Head != w.last || last.Via != "mem" {
		t.Errorf("%+v, want head %s", last, w.last)
	}
}

// gated is a Runner that waits before its first job until it is let go, and counts jobs.
type gated struct {
	listener.Runner
	started, letGo chan struct{}
	once           sync.Once
	jobs           atomic.Int64
}

func newGated(r listener.Runner) *gated {
	return &gated{Runner: r, started: make(chan struct{}), letGo: make(chan struct{})}
}

func (g *gated) Run(ctx context.Context, stage string, j rsync.Job) (rsync.Result, error) {
	g.jobs.Add(1)
	g.once.Do(func() { close(g.started); <-g.letGo })
	return g.Runner.Run(ctx, stage, j)
}

// start runs the agent until the test ends.
func start(t *testing.T, a *listener.Agent) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("run: %v", err)
		}
	})
}

func (w *world) waitFor(a *listener.Agent, what string, ok func(listener.ModuleStatus) bool) {
	w.t.Helper()
	testenv.WaitFor(w.t, waitLong, func() error {
		if s := w.status(a); !ok(s) {
			return fmt.Errorf("not %s: %+v", what, s)
		}
		return nil
	})
}

func TestAnnouncementsDuringARunAreMergedAndRunOnce(t *testing.T) {
	w := newWorld(t)
	var g *gated
	a := w.adopted()
	w.must(a.Close())
	a = w.reopen(func(o *listener.Options) {
		g = newGated(o.Modules[0].Runner)
		o.Modules[0].Runner = g
	})
	start(t, a)
	w.write(testenv.File("a", "1"))
	w.send(a, w.announce(w.rec(event.Write, "a")))
	<-g.started
	w.write(testenv.File("b", "2"), testenv.File("c", "3"))
	w.send(a, w.announce(w.rec(event.Write, "b")), w.announce(w.rec(event.Write, "c")))
	close(g.letGo)
	w.waitFor(a, "applied", func(s listener.ModuleStatus) bool { return s.Applied == 4 })
	w.same(a, 4)
	if n := g.jobs.Load(); n != 2 {
		t.Errorf("rsync ran %d times, want 2", n)
	}
	if n := w.count(a, event.Applied); n != 3 { // the adoption, the first, the other two together
		t.Errorf("%d applied reports, want 3", n)
	}
}

func TestRepeatedAndReorderedAnnouncementsRunOnce(t *testing.T) {
	w := newWorld(t)
	var g *gated
	w.must(w.adopted().Close())
	a := w.reopen(func(o *listener.Options) { g = newGated(o.Modules[0].Runner); close(g.letGo); o.Modules[0].Runner = g })
	var all []announcement
	for i := range 3 {
		name := fmt.Sprint("f", i)
		w.write(testenv.File(name, name))
		all = append(all, w.announce(w.rec(event.Write, name)))
	}
	for range 100 {
		w.send(a, all[2], all[0], all[1])
	}
	w.must(a.Reconcile(t.Context(), pub))
	w.send(a, all...)
	w.must(a.Reconcile(t.Context(), pub))
	w.same(a, 4)
	if n := g.jobs.Load(); n != 1 {
		t.Errorf("rsync ran %d times, want once", n)
	}
	if n := w.count(a, event.Received); n != 3 {
		t.Errorf("%d received reports, want 3", n)
	}
}

func TestSubsetIsSkippedAndTheSerialAdvances(t *testing.T) {
	w := newWorld(t)
	rules, err := filter.Parse([]string{"- /other/"})
	w.must(err)
	w.write(testenv.File("mine/a", "x"), testenv.File("other/b", "x"))
	w.announce(w.rec(event.Write, "mine/a"))
	a := w.adopted2(rules)
	w.write(testenv.File("other/c", "x"))
	w.send(a, w.announce(w.rec(event.Write, "other/c")))
	w.must(a.Reconcile(t.Context(), pub))
	w.same(a, 2, "other")
	if _, err := os.Stat(filepath.Join(w.dest, "other")); !os.IsNotExist(err) {
		t.Error("what is not ours was brought", err)
	}
	if n := w.count(a, event.Skipped); n != 1 {
		t.Errorf("%d skipped reports, want 1", n)
	}
}

// A new mirror learns in one connection where the upstream is and how its tree differs; one that heard nothing for a while, where the upstream is
// and everything that it missed.
func TestCatchingUpIsOneConnection(t *testing.T) {
	w := newWorld(t)
	fetched := &counted{}
	a := w.adopted(func(o *listener.Options) {
		src := o.Modules[0].CatchUp.(*catchup.Source)
		fetched.Fetcher, src.Fetcher = src.Fetcher, fetched
	})
	if fetched.times != 1 {
		t.Errorf("%d connections for head and manifest", fetched.times)
	}
	for i := range 20 {
		name := fmt.Sprintf("missed%d", i)
		w.write(testenv.File(name, "x"))
		w.announce(w.rec(event.Write, name))
	}
	a.Receiver("mem").Connected()
	fetched.times = 0
	w.must(a.Reconcile(t.Context(), pub))
	w.same(a, w.serial)
	if fetched.times != 1 {
		t.Errorf("%d connections for head and journal", fetched.times)
	}
}

// counted counts connections that fetch what the upstream exports.
type counted struct {
	catchup.Fetcher
	times int
}

func (c *counted) Fetch(ctx context.Context, names []string, into string, max int64) ([]string, error) {
	c.times++
	return c.Fetcher.Fetch(ctx, names, into, max)
}

func (w *world) adopted2(rules *filter.Rules) *listener.Agent {
	w.publishManifest()
	a := w.agent(func(o *listener.Options) {
		m := &o.Modules[0]
		m.Rules = rules
		m.CatchUp.(*catchup.Source).Rules = rules
	})
	w.must(a.Reconcile(w.t.Context(), pub))
	return a
}

func TestSymlinkedDirectoryOnTheMirrorIsPreserved(t *testing.T) {
	w := newWorld(t)
	elsewhere := filepath.Join(filepath.Dir(w.dest), "data2")
	w.must(os.Mkdir(elsewhere, 0o755))
	w.must(os.Symlink(elsewhere, filepath.Join(w.dest, "iso")))
	w.write(testenv.File("iso/a", "x"), testenv.File("b", "x"))
	w.announce(w.rec(event.Write, "iso"), w.rec(event.Write, "iso/a"))
	w.publishManifest()
	a := w.agent(func(o *listener.Options) {
		m := &o.Modules[0]
		m.Links = []string{"iso"}
		r := w.runner(func(c *rsync.Config) { c.Links = []rsync.Link{{Path: "iso"}} })
		m.Runner = listener.Rsync(r)
		src := w.source(r)
		src.Links = m.Links
		m.CatchUp = src
	})
	w.must(a.Reconcile(t.Context(), pub))
	w.write(testenv.File("iso/n", "new"))
	w.send(a, w.announce(w.rec(event.Write, "iso/n")))
	w.must(a.Reconcile(t.Context(), pub))
	if s := w.status(a); s.Applied != 2 {
		t.Errorf("%+v", s)
	}
	if to, err := os.Readlink(filepath.Join(w.dest, "iso")); err != nil || to != elsewhere {
		t.Errorf("the link is %q: %v", to, err)
	}
	if d := testenv.Diff(t, filepath.Join(w.up, "iso"), elsewhere); len(d) > 0 {
		t.Errorf("behind the link: %q", d)
	}
}

func TestHooks(t *testing.T) {
	w := newWorld(t)
	clock := time.Now()
	w.now = func() time.Time { return clock }
	w.must(w.adopted().Close())
	dir := t.TempDir()
	script := `cd ` + dir + `; [ $MIRRORBUS_STAGE = pre ] && [ -e fail ] && { echo no >&2; exit 1; }
echo $MIRRORBUS_MODULE $MIRRORBUS_SERIAL $MIRRORBUS_STAGE $MIRRORBUS_OUTCOME $MIRRORBUS_FILES $MIRRORBUS_BYTES $(tr '\0' ' ' <$MIRRORBUS_PATHS) >>said`
	a := w.reopen(func(o *listener.Options) {
		m := &o.Modules[0]
		m.Pre, m.Post = []string{"sh", "-c", script}, []string{"sh", "-c", script}
	})
	w.must(os.WriteFile(filepath.Join(dir, "fail"), nil, 0o600))
	w.write(testenv.File("a", "12345"))
	w.send(a, w.announce(w.rec(event.Write, "a")))
	if err := a.Reconcile(t.Context(), pub); err == nil || !strings.Contains(err.Error(), "pre hook: command sh: exit status 1: no") {
		t.Fatalf("%v", err)
	}
	if _, err := os.Stat(filepath.Join(w.dest, "a")); !os.IsNotExist(err) {
		t.Error("ran although the hook failed", err)
	}
	w.must(os.Remove(filepath.Join(dir, "fail")))
	clock = clock.Add(time.Hour)
	w.must(a.Reconcile(t.Context(), pub))
	w.same(a, 2)
	said, err := os.ReadFile(filepath.Join(dir, "said"))
	if want := "pub 2 pre a\npub 2 post applied 1 5 a\n"; err != nil || string(said) != want {
		t.Errorf("%q, want %q: %v", said, want, err)
	}
}

// A post hook may push a tier below, which then must find what was applied.
func TestWhatIsAppliedIsCarriedOnBeforeThePostHook(t *testing.T) {
	w := newWorld(t)
	w.must(w.adopted().Close())
	seen := filepath.Join(t.TempDir(), "head")
	a := w.reopen(func(o *listener.Options) {
		o.Modules[0].Post = []string{"cp", filepath.Join(event.ExportDir, export.HeadFile), seen}
	})
	w.write(testenv.File("a", "12345"))
	w.send(a, w.announce(w.rec(event.Write, "a")))
	w.must(a.Reconcile(t.Context(), pub))
	w.same(a, 2)
	line, err := os.ReadFile(seen)
	w.must(err)
	head, err := event.Read(bytes.TrimSuffix(line, []byte("\n")))
	if err != nil || head.Head == nil || head.Head.Serial != 2 {
		t.Errorf("the hook found %s: %v", line, err)
	}
}

func TestExecRunnerDoesTheWork(t *testing.T) {
	w := newWorld(t)
	w.must(w.adopted().Close())
	a := w.reopen(func(o *listener.Options) {
		o.Modules[0].Runner = &exec.Runner{Module: "pub", Upstream: w.up, Dest: w.dest,
			Argv: []string{"sh", "-c", `cd "$MIRRORBUS_UPSTREAM" && case $MIRRORBUS_MODE in delete) xargs -0 -I{} rm -rf ` + w.dest + `/{};; *) xargs -0 -I{} cp -a {} ` + w.dest + `/{};; esac`}}
	})
	w.write(testenv.File("a", "x"))
	w.must(os.Remove(filepath.Join(w.up, "README")))
	w.send(a, w.announce(w.rec(event.Write, "a"), w.rec(event.Gone, "README")))
	w.must(a.Reconcile(t.Context(), pub))
	w.same(a, 2)
}

func TestPlanChangesNothing(t *testing.T) {
	w := newWorld(t)
	a := w.adopted()
	w.write(testenv.File("a", "x"))
	w.send(a, w.announce(w.rec(event.Write, "a")))
	p, why, err := a.Plan(t.Context(), pub)
	if err != nil || len(p.Stages) != 1 || p.To != 2 || why == "" {
		t.Errorf("%+v %s %v", p, why, err)
	}
	if s := w.status(a); s.Applied != 1 {
		t.Errorf("%+v", s)
	}
	if _, _, err := a.Plan(t.Context(), "nope"); !errors.Is(err, inbox.ErrUnknownModule) {
		t.Errorf("%v", err)
	}
}

// reopen is an agent on the state of one that was closed.
func (w *world) reopen(change ...func(*listener.Options)) *listener.Agent { return w.agent(change...) }
