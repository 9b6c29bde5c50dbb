package rsync

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
)

// testBinary is the environment variable that names another rsync to test with.
const testBinary = "MIRRORBUS_TEST_RSYNC"

func TestMain(m *testing.M) {
	if os.Getenv("MIRRORBUS_TEST_AGENT") != "" {
		os.Exit(agentMain())
	}
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/mirrorbus/mirrorbus/internal/testenv.(*server).start.func2"))
}

// features probes once for all tests: it takes half a second.
var features = sync.OnceValues(func() (Features, error) {
	return Probe(context.Background(), os.Getenv(testBinary))
})

// world is a module on an upstream and its destination on a mirror.
type world struct {
	t        *testing.T
	up, dest string
	daemon   *testenv.Rsyncd
	cfg      Config
}

// newWorld serves up and prepares an empty destination. Options change the module.
func newWorld(t *testing.T, options ...func(*testenv.Module)) *world {
	t.Helper()
	testenv.Need(t, "rsync")
	f, err := features()
	if err != nil {
		t.Fatal(err)
	}
	base := t.TempDir()
	w := &world{t: t, up: filepath.Join(base, "up"), dest: filepath.Join(base, "mirror", "dest")}
	for _, dir := range []string{w.up, w.dest} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	m := testenv.Module{Name: "pub", Path: w.up}
	for _, o := range options {
		o(&m)
	}
	w.daemon = testenv.StartRsyncd(t, testenv.RsyncdOptions{}, m)
	w.cfg = Config{
		Upstream: Upstream{URL: w.daemon.URL("pub", "")}, Dest: w.dest, LockFile: filepath.Join(base, "state", "pub.lock"),
		Features: f, Stall: 20 * time.Second,
	}
	return w
}

func (w *world) runner() *Runner {
	w.t.Helper()
	r, err := New(w.cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// run does a job that must succeed.
func (w *world) run(j Job) Result {
	w.t.Helper()
	res, err := w.runner().Run(w.t.Context(), j)
	if err != nil {
		var e *Error
		if errors.As(err, &e) {
			w.t.Fatalf("%v\n%q", err, e.Stderr)
		}
		w.t.Fatal(err)
	}
	return res
}

// fails does a job that must fail, and returns how.
func (w *world) fails(j Job, want Class) *Error {
	w.t.Helper()
	_, err := w.runner().Run(w.t.Context(), j)
	return w.failure(err, want)
}

func (w *world) failure(err error, want Class) *Error {
	w.t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		w.t.Fatalf("error %v, want an *Error of class %q", err, want)
	}
	if e.Class != want {
		w.t.Fatalf("class %q, want %q: %v\n%q", e.Class, want, e, e.Stderr)
	}
	return e
}

// same fails the test unless the mirror is as the upstream.
func (w *world) same(ignore ...string) {
	w.t.Helper()
	if d := testenv.Diff(w.t, w.up, w.dest, ignore...); len(d) > 0 {
		w.t.Errorf("mirror is not as the upstream:\n%q", d)
	}
}

// clean fails the test unless the temporary folders are empty.
func (w *world) clean() {
	w.t.Helper()
	for _, sub := range []string{"run", "flip"} {
		entries, err := os.ReadDir(filepath.Join(filepath.Dir(w.dest), TempPrefix+"-dest", sub))
		if err != nil || len(entries) > 0 {
			w.t.Errorf("left in the temporary folder: %v %v", entries, err)
		}
	}
}

func (w *world) upstream(nodes ...testenv.Node) { w.t.Helper(); testenv.WriteTree(w.t, w.up, nodes...) }
func (w *world) mirror(nodes ...testenv.Node)   { w.t.Helper(); testenv.WriteTree(w.t, w.dest, nodes...) }

// exists tells whether the path is on the mirror.
func (w *world) exists(path string) bool {
	_, err := os.Lstat(filepath.Join(w.dest, path))
	return err == nil
}

func (w *world) read(path string) string {
	w.t.Helper()
	b, err := os.ReadFile(filepath.Join(w.dest, path))
	if err != nil {
		w.t.Fatal(err)
	}
	return string(b)
}

func (w *world) perm(path string) os.FileMode {
	w.t.Helper()
	info, err := os.Lstat(filepath.Join(w.dest, path))
	if err != nil {
		w.t.Fatal(err)
	}
	return info.Mode()
}

// onePath fails the test unless e is about exactly this path, of this kind.
func (w *world) onePath(e *Error, path string, kind Kind, local bool) {
	w.t.Helper()
	if len(e.Paths) != 1 || e.Paths[0].Path != path || e.Paths[0].Kind != kind || e.Paths[0].Local != local {
		w.t.Errorf("paths %v, want only %q: %s (local %t)", e.Paths, path, kind, local)
	}
}

func paths(items []Item) []string {
	var out []string
	for _, it := range items {
		out = append(out, it.Path)
	}
	slices.Sort(out)
	return out
}
