package listener_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/listener"
	"github.com/mirrorbus/mirrorbus/listener/inbox"
	"github.com/mirrorbus/mirrorbus/listener/pace"
	"github.com/mirrorbus/mirrorbus/listener/rsync"
)

// A plain world is one whose upstream exports nothing: its mirrors are told that something has changed, and not what.
type plain struct {
	*world
	stages []string // that ran, in order
	before func(stage string)
}

// newPlain has a mirror that has all of its upstream: a package, and the index that names it.
func newPlain(t testing.TB, options ...func(*testenv.Module)) *plain {
	t.Helper()
	p := &plain{world: newWorld(t, options...), before: func(string) {}}
	p.release(1)
	return p
}

// release writes a package and the index that names it.
func (p *plain) release(n int) {
	p.t.Helper()
	p.write(testenv.File(fmt.Sprint("pool/", n), "x"), testenv.File("dists/Release", fmt.Sprint("names pool/", n, strings.Repeat("!", n))))
}

// mirror opens the mirror's agent. Its rate of pushes has no limit unless change sets one.
func (p *plain) mirror(change ...func(*listener.Module)) *listener.Agent {
	p.t.Helper()
	return p.agent(func(o *listener.Options) {
		m := &o.Modules[0]
		m.Pushed, m.Last, m.Budgets, m.MaxDeleteRatio = true, []string{"dists/"}, map[string]pace.Budget{pace.WorkFull: {Burst: 1, Every: time.Hour}}, 0.5
		m.Runner = meddler{m.Runner, func(stage string, j rsync.Job) {
			if j.Way != rsync.Survey && j.Mode != rsync.Discard && j.Mode != rsync.Fetch {
				p.stages = append(p.stages, stage)
			}
			p.before(stage)
		}, p.whole}
		for _, c := range change {
			c(m)
		}
	})
}

// whole checks that the index that readers find names nothing that is missing.
func (p *plain) whole() {
	p.t.Helper()
	text, err := os.ReadFile(filepath.Join(p.dest, "dists/Release"))
	if err != nil {
		return
	}
	name := strings.TrimRight(strings.TrimPrefix(string(text), "names "), "!?")
	if _, err := os.Stat(filepath.Join(p.dest, name)); err != nil {
		p.t.Errorf("the index names %s: %v", name, err)
	}
}

func (p *plain) push(a *listener.Agent, whole bool) uint64 {
	p.t.Helper()
	n, err := a.Push(p.t.Context(), pub, inbox.Order{Whole: whole, From: "192.0.2.1"})
	p.must(err)
	return n
}

// done makes sure that a push is done, and the tree as the upstream's.
func (p *plain) done(a *listener.Agent, n uint64) {
	p.t.Helper()
	p.await(a, n, true)
	p.same(a, 0)
}

func (p *plain) await(a *listener.Agent, n uint64, whole bool) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), waitLong)
	defer cancel()
	p.must(a.AwaitPush(ctx, pub, n, whole, func(string) error { return nil }))
}

// An upstream that exports nothing is fetched once by itself; a push brings what has changed since; one of the first stage brings content and no index.
func TestPushBringsWhatAPlainUpstreamHas(t *testing.T) {
	t.Parallel()
	p := newPlain(t)
	a := p.mirror()
	p.must(a.Reconcile(t.Context(), pub))
	p.same(a, 0)
	if s := p.status(a); s.State != listener.Current || s.Since.IsZero() {
		t.Errorf("%+v", s)
	}
	p.release(2)
	p.must(os.Remove(filepath.Join(p.up, "pool/1")))
	first := p.push(a, false)
	if s := p.status(a); s.State != listener.Behind {
		t.Errorf("%+v", s)
	}
	p.must(a.Reconcile(t.Context(), pub))
	p.await(a, first, false)
	if text, err := os.ReadFile(filepath.Join(p.dest, "dists/Release")); err != nil || !strings.Contains(string(text), "pool/1") {
		t.Errorf("after the first stage the index is %q, %v", text, err)
	}
	for _, name := range []string{"pool/1", "pool/2"} {
		if _, err := os.Stat(filepath.Join(p.dest, name)); err != nil {
			t.Errorf("after the first stage: %v", err)
		}
	}
	second := p.push(a, true)
	p.must(a.Reconcile(t.Context(), pub))
	p.done(a, second)
}

// A first stage that mirrors below are to have as well is passed on by the post hook, with the content in place and the index not, before it is done. One
// that they need not have is not passed on; everything always is.
func TestAFirstStageIsPassedOn(t *testing.T) {
	t.Parallel()
	p := newPlain(t)
	below := filepath.Join(t.TempDir(), "below")
	a := p.mirror(func(m *listener.Module) {
		m.Post = []string{"/bin/sh", "-c", `echo "$MIRRORBUS_PUSH" $(ls pool) $(cat dists/Release) >>` + below}
	})
	told := func(want string) {
		t.Helper()
		text, err := os.ReadFile(below)
		p.must(err)
		if string(text) != want {
			t.Errorf("those below were told %q, want %q", text, want)
		}
		p.must(os.WriteFile(below, nil, 0o600))
	}
	order := func(o inbox.Order, want string) {
		t.Helper()
		n, err := a.Push(t.Context(), pub, o)
		p.must(err)
		p.must(a.Reconcile(t.Context(), pub))
		p.await(a, n, o.Whole)
		told(want)
	}
	p.must(a.Reconcile(t.Context(), pub))
	told("all 1 names pool/1!\n")
	p.release(2)
	order(inbox.Order{}, "")
	order(inbox.Order{Hops: true}, "mhop 1 2 names pool/1!\n")
	order(inbox.Order{}, "")
	order(inbox.Order{Whole: true}, "all 1 2 names pool/2!!\n")
	p.release(3)
	_, err := a.Push(t.Context(), pub, inbox.Order{Hops: true})
	p.must(err)
	order(inbox.Order{Whole: true}, "all 1 2 3 names pool/3!!!\n")
}

// An index that was written again within the second and kept its size is another one.
func TestPushOfAnIndexThatLooksTheSame(t *testing.T) {
	t.Parallel()
	p := newPlain(t)
	a := p.mirror()
	p.must(a.Reconcile(t.Context(), pub))
	name := filepath.Join(p.up, "dists/Release")
	info, err := os.Stat(name)
	p.must(err)
	p.write(testenv.File("dists/Release", "names pool/1?"))
	p.must(os.Chtimes(name, time.Time{}, info.ModTime().Truncate(time.Second).Add((info.ModTime().Sub(info.ModTime().Truncate(time.Second))+time.Millisecond)%time.Second)))
	n := p.push(a, true)
	p.must(a.Reconcile(t.Context(), pub))
	p.await(a, n, true)
	if text, err := os.ReadFile(filepath.Join(p.dest, "dists/Release")); err != nil || string(text) != "names pool/1?" {
		t.Errorf("%q, %v", text, err)
	}
}

// A push comes while all is done but the hook: it is not taken for done with the one before.
func TestPushInTheTailOfAnother(t *testing.T) {
	t.Parallel()
	p := newPlain(t)
	dir := t.TempDir()
	a := p.mirror(func(m *listener.Module) {
		m.Post = []string{"sh", "-c", "cd " + dir + "; echo x >>tail; until [ -e go ]; do sleep 0.02; done"}
	})
	start(t, a)
	p.push(a, true)
	testenv.WaitFor(t, waitLong, func() error { _, err := os.Stat(filepath.Join(dir, "tail")); return err })
	p.release(2)
	n := p.push(a, true)
	p.must(os.WriteFile(filepath.Join(dir, "go"), nil, 0o600))
	p.done(a, n)
}

// The second stage, or a push of everything, comes while the first stage runs: the index is brought.
func TestSecondStageIsPushedDuringTheFirst(t *testing.T) {
	t.Parallel()
	p := newPlain(t)
	a := p.mirror()
	p.must(a.Reconcile(t.Context(), pub))
	var n uint64
	p.before = func(stage string) {
		if stage == "content" && n == 0 {
			p.release(3)
			n = p.push(a, true)
		}
	}
	p.release(2)
	p.push(a, false)
	p.must(a.Reconcile(t.Context(), pub))
	p.done(a, n)
}

// Pushes never stop: each run is of what was asked for when it began, so the index comes with the first.
func TestPushesThatNeverStopDoNotHoldBackTheIndex(t *testing.T) {
	t.Parallel()
	p := newPlain(t)
	a := p.mirror()
	p.must(a.Reconcile(t.Context(), pub))
	p.stages = nil
	var n uint64
	left, early := 40, 0
	p.before = func(stage string) {
		if left--; left < 0 {
			return
		}
		if stage == "metadata" {
			early++
		}
		p.release(50 - left)
		n = p.push(a, true)
	}
	p.release(2)
	p.push(a, true)
	p.must(a.Reconcile(t.Context(), pub))
	p.done(a, n)
	if early < 3 {
		t.Errorf("the index was shown %d times while pushes came", early)
	}
}

// Many pushes while one is worked on are one more run.
func TestPushesThatComeTogetherAreOneRun(t *testing.T) {
	t.Parallel()
	p := newPlain(t)
	a := p.mirror()
	p.must(a.Reconcile(t.Context(), pub))
	p.stages = nil
	var n uint64
	p.before = func(stage string) {
		if stage == "content" && n == 0 {
			p.release(3)
			for range 10 {
				n = p.push(a, true)
			}
		}
	}
	p.release(2)
	p.push(a, true)
	p.must(a.Reconcile(t.Context(), pub))
	p.done(a, n)
	if got := strings.Count(strings.Join(p.stages, " "), "content"); got != 2 {
		t.Errorf("content was brought %d times: %q", got, p.stages)
	}
}
