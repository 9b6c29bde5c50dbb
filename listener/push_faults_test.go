package listener_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/listener"
	"github.com/mirrorbus/mirrorbus/listener/inbox"
	"github.com/mirrorbus/mirrorbus/listener/pace"
	"github.com/mirrorbus/mirrorbus/listener/rsync"
)

// An upstream that has no room turns a push into a later one, and nobody takes it for done.
func TestPushAtAnUpstreamWithoutRoom(t *testing.T) {
	t.Parallel()
	p := newPlain(t, func(m *testenv.Module) { m.MaxConnections = 1 })
	a := p.mirror()
	p.must(a.Reconcile(t.Context(), pub))
	start(t, a)
	held, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", p.daemon.Port))
	p.must(err)
	defer held.Close() //nolint:errcheck // closed below, where it matters
	in := bufio.NewReader(held)
	_, err = in.ReadString('\n')
	p.must(err)
	_, err = fmt.Fprintf(held, "@RSYNCD: 31.0\npub\n")
	p.must(err)
	if line, err := in.ReadString('\n'); err != nil || !strings.HasPrefix(line, "@RSYNCD: OK") {
		t.Fatalf("%q, %v", line, err)
	}
	p.release(2)
	n := p.push(a, true)
	p.waitFor(a, "turned away", func(s listener.ModuleStatus) bool { return s.State == listener.Retrying && s.Error != "" })
	ctx, cancel := context.WithCancel(t.Context())
	err = a.AwaitPush(ctx, pub, n, true, func(string) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("a push that was not done is told as %v", err)
	}
	p.must(held.Close())
	p.must(a.SyncNow(t.Context(), pub))
	p.done(a, n)
}

// pushKillAt is the environment variable that tells a child of TestPushIsDoneAfterAKill before which stage to die.
const pushKillAt = "LISTENER_PUSH_KILL_AT"

// A push that was accepted is done, whenever the agent is killed.
func TestPushIsDoneAfterAKill(t *testing.T) {
	if at := os.Getenv(pushKillAt); at != "" {
		p := &plain{world: &world{t: t, dest: os.Getenv("W_DEST"), state: os.Getenv("W_STATE"), now: nowReal}, before: func(stage string) {
			if stage == at {
				die()
			}
		}}
		a := p.agentOf(p.runnerOf(os.Getenv("W_URL")), func(o *listener.Options) {
			m := &o.Modules[0]
			m.Pushed, m.Last, m.Runner = true, []string{"dists/"}, meddler{m.Runner, func(stage string, _ rsync.Job) { p.before(stage) }, func() {}}
		})
		p.push(a, true)
		if at == "work" {
			die()
		}
		t.Fatalf("still alive after %v", a.Reconcile(t.Context(), pub))
	}
	for _, at := range []string{"work", "capture", "content", "metadata", "delete"} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			p := newPlain(t)
			a := p.mirror()
			p.must(a.Reconcile(t.Context(), pub))
			p.must(a.Close())
			p.release(2)
			p.must(os.Remove(filepath.Join(p.up, "pool/1")))
			cmd := exec.Command(os.Args[0], "-test.run=^TestPushIsDoneAfterAKill$", "-test.v")
			cmd.Env = append(os.Environ(), pushKillAt+"="+at, "W_DEST="+p.dest, "W_STATE="+p.state, "W_URL="+p.daemon.URL("pub", ""))
			if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(err.Error(), "killed") {
				t.Fatalf("%v\n%s", err, out)
			}
			a = p.mirror()
			testenv.WaitFor(t, waitLong, func() error {
				p.must(a.SyncNow(t.Context(), pub)) // the dead agent's rsync may hold the lock for a moment
				return a.Reconcile(t.Context(), pub)
			})
			p.done(a, 1)
		})
	}
}

// An upstream whose disk is not there empties no mirror, and a person may say that it is meant so.
func TestPushFromAnEmptyUpstreamIsHeld(t *testing.T) {
	t.Parallel()
	p := newPlain(t)
	a := p.mirror()
	p.must(a.Reconcile(t.Context(), pub))
	for _, dir := range []string{"pool", "dists"} {
		p.must(os.RemoveAll(filepath.Join(p.up, dir)))
	}
	n := p.push(a, true)
	p.must(errIf(a.Reconcile(t.Context(), pub) == nil, "nothing is in the way"))
	if s := p.status(a); s.State != listener.Held {
		t.Errorf("%+v", s)
	}
	if err := a.AwaitPush(t.Context(), pub, n, true, nil); err == nil || !strings.Contains(err.Error(), "held") {
		t.Errorf("who pushed is told %v", err)
	}
	if _, err := os.Stat(filepath.Join(p.dest, "pool/1")); err != nil {
		t.Error(err)
	}
	p.must(a.Confirm(t.Context(), pub))
	p.must(a.Reconcile(t.Context(), pub))
	p.done(a, n)
	if entries, err := os.ReadDir(p.dest); err != nil || len(entries) > 1 {
		t.Errorf("%v, %v", entries, err)
	}
}

func errIf(wrong bool, what string) error {
	if wrong {
		return errors.New(what)
	}
	return nil
}

// An upstream that is being brought up to date itself gives its content, and its indexes when it is done.
func TestPushFromAnUpstreamThatIsUnderway(t *testing.T) {
	t.Parallel()
	p := newPlain(t)
	a := p.mirror()
	p.must(a.Reconcile(t.Context(), pub))
	p.release(2)
	p.write(testenv.File("Archive-Update-in-Progress-up.example.org", "1"))
	n := p.push(a, true)
	p.must(errIf(a.Reconcile(t.Context(), pub) == nil, "nothing is in the way"))
	if s := p.status(a); s.State != listener.Waiting || !strings.Contains(s.Error, "Archive-Update-in-Progress-up.example.org") {
		t.Errorf("%+v", s)
	}
	if _, err := os.Stat(filepath.Join(p.dest, "pool/2")); err != nil {
		t.Error(err)
	}
	p.must(os.Remove(filepath.Join(p.up, "Archive-Update-in-Progress-up.example.org")))
	p.must(a.SyncNow(t.Context(), pub))
	p.must(a.Reconcile(t.Context(), pub))
	p.done(a, n)
}

// Where the upstream says what has changed, a push costs a look at that, and nothing is looked through.
func TestPushAtAnUpstreamThatAnnounces(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(w.adopted().Close())
	var stages []string
	a := w.reopen(func(o *listener.Options) {
		m := &o.Modules[0]
		m.Pushed, m.Runner = true, meddler{m.Runner, func(stage string, _ rsync.Job) { stages = append(stages, stage) }, func() {}}
	})
	w.write(testenv.File("a", "1"))
	w.announce(w.rec(event.Write, "a")) // and no transport brings it
	n, err := a.Push(t.Context(), pub, inbox.Order{Whole: true})
	w.must(err)
	w.must(a.Reconcile(t.Context(), pub))
	w.must(a.AwaitPush(t.Context(), pub, n, true, nil))
	w.same(a, 2)
	if got := strings.Join(stages, " "); got != "content" {
		t.Errorf("ran %q", got)
	}
	w.flip(event.Announcement{NotBefore: time.Hour, Expires: 2 * time.Hour}, "a") // it waits, and who pushes does not wait for it
	n, err = a.Push(t.Context(), pub, inbox.Order{Whole: true})
	w.must(err)
	w.must(a.Reconcile(t.Context(), pub))
	ctx, cancel := context.WithTimeout(t.Context(), waitLong)
	defer cancel()
	w.must(a.AwaitPush(ctx, pub, n, true, nil))
	w.must(os.WriteFile(filepath.Join(w.up, "unannounced"), nil, 0o600))
	_, err = a.Push(t.Context(), pub, inbox.Order{Whole: true})
	w.must(err)
	w.must(a.Reconcile(t.Context(), pub))
	if _, err := os.Stat(filepath.Join(w.dest, "unannounced")); err == nil {
		t.Error("a push brought what the master has not announced")
	}
}

// However often somebody pushes, the upstream is looked through no more often than is allowed.
func TestPushesAreLimited(t *testing.T) {
	t.Parallel()
	p := newPlain(t)
	a := p.mirror(func(m *listener.Module) { m.Budgets[pace.WorkPush] = pace.Budget{Burst: 2, Every: time.Hour} })
	for n := range 5 {
		p.release(n)
		p.push(a, true)
		p.must(noLimit(a.Reconcile(t.Context(), pub)))
	}
	if got := strings.Count(strings.Join(p.stages, " "), "content"); got != 2 {
		t.Errorf("content was brought %d times: %q", got, p.stages)
	}
	if s := p.status(a); s.State != listener.Behind {
		t.Errorf("what was pushed and not done shows as %+v", s)
	}
}

// noLimit lets a mirror wait until it may go on.
func noLimit(err error) error {
	var rate *listener.RateError
	if errors.As(err, &rate) {
		return nil
	}
	return err
}

// A module that nobody may push so takes no such push.
func TestPushOfAModuleThatTakesNone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.adopted()
	if _, err := a.Push(t.Context(), pub, inbox.Order{Whole: true}); !errors.Is(err, listener.ErrNotPushed) {
		t.Errorf("%v", err)
	}
}
