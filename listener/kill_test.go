package listener_test

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/listener"
	"github.com/mirrorbus/mirrorbus/listener/rsync"
)

// killAt is the environment variable that tells a child of TestKilledAnywhereResumes where to die.
const killAt = "LISTENER_KILL_AT"

// deadly is a Runner that kills the process before or after a stage.
type deadly struct {
	listener.Runner
	at string
}

func (d deadly) Run(ctx context.Context, stage string, j rsync.Job) (rsync.Result, error) {
	if d.at == "before "+stage {
		die()
	}
	res, err := d.Runner.Run(ctx, stage, j)
	if d.at == "after "+stage {
		die()
	}
	return res, err
}

func die() {
	if err := unix.Kill(os.Getpid(), unix.SIGKILL); err != nil {
		panic(err)
	}
	select {}
}

// child opens an agent on the world that its parent describes, receives what the parent has left and reconciles until it dies.
func child(t *testing.T, at string) {
	w := &world{t: t, dest: os.Getenv("W_DEST"), state: os.Getenv("W_STATE"), now: nowReal}
	url := os.Getenv("W_URL")
	r := w.runnerOf(url)
	a := w.agentOf(r, func(o *listener.Options) {
		m := &o.Modules[0]
		m.Runner, m.Last = deadly{m.Runner, at}, []string{cmp.Or(os.Getenv("LISTENER_LAST"), "dists/")}
		switch at {
		case "pre":
			m.Pre = []string{"sh", "-c", "kill -9 $PPID"}
		case "post":
			m.Post = []string{"sh", "-c", "kill -9 $PPID"}
		}
	})
	for _, name := range []string{"two", "three"} {
		body, err := os.ReadFile(filepath.Join(w.state, name))
		w.must(err)
		w.deliver(a, body)
		if at == "received" {
			die()
		}
	}
	t.Fatalf("still alive after %v", a.Reconcile(t.Context(), pub))
}

func TestKilledAnywhereResumes(t *testing.T) {
	if at := os.Getenv(killAt); at != "" {
		child(t, at)
	}
	for _, at := range []string{"received", "pre", "before content", "after content", "before metadata", "after metadata", "before delete", "after delete", "post"} {
		t.Run(at, func(t *testing.T) {
			w := newWorld(t)
			w.write(testenv.File("pool/a", "1"), testenv.File("pool/b", "1"), testenv.File("dists/Release", "1"))
			w.announce(w.rec(event.Write, "pool/a"))
			w.must(w.adopted().Close())
			w.write(testenv.File("pool/a", "changed"), testenv.File("dists/Release", "changed"))
			two := w.announce(w.rec(event.Write, "pool/a"), w.rec(event.Write, "dists/Release"))
			w.must(os.Remove(filepath.Join(w.up, "pool/b")))
			three := w.announce(event.Record{Op: event.Gone, Path: "pool/b"}, w.rec(event.Write, "pool"))
			w.must(os.WriteFile(filepath.Join(w.state, "two"), two.body, 0o600))
			w.must(os.WriteFile(filepath.Join(w.state, "three"), three.body, 0o600))

			cmd := exec.Command(os.Args[0], "-test.run=^TestKilledAnywhereResumes$", "-test.v")
			cmd.Env = append(os.Environ(), killAt+"="+at, "W_DEST="+w.dest, "W_STATE="+w.state, "W_URL="+w.daemon.URL("pub", ""))
			if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(err.Error(), "killed") {
				t.Fatalf("%v\n%s", err, out)
			}

			a := w.agent(func(o *listener.Options) { o.Modules[0].Last = []string{"dists/"} })
			w.send(a, two, three) // what was not acknowledged is delivered again
			testenv.WaitFor(t, waitLong, func() error {
				w.must(a.SyncNow(t.Context(), pub)) // the dead agent's rsync may hold the lock for a moment
				return a.Reconcile(t.Context(), pub)
			})
			w.same(a, 3)
			if n := appliedTwice(w.reports(a)); n != "" {
				t.Error(n)
			}
		})
	}
}

// appliedTwice tells which serial was reported as applied twice.
func appliedTwice(all []event.Report) string {
	seen := map[event.Serial]bool{}
	for _, r := range all {
		if r.Outcome == event.Applied && seen[r.Serial] {
			return fmt.Sprintf("serial %d was reported as applied twice", r.Serial)
		}
		seen[r.Serial] = seen[r.Serial] || r.Outcome == event.Applied
	}
	return ""
}
