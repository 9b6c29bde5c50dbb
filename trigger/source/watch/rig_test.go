package watch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A rig is a tree with a watcher.
type rig struct {
	*testing.T
	root    string
	outside string // on the same file system
	m       *model
	w       *Watcher
	log     *logged
	stop    func() error
}

// A logged keeps what is logged.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// lines are those of the log that hold a text.
func (l *logged) lines(text string) (found []string) {
	for line := range strings.Lines(l.String()) {
		if strings.Contains(line, text) {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}

// newRig makes a tree, which is not watched yet.
func newRig(t *testing.T) *rig {
	t.Helper()
	dir := t.TempDir()
	r := &rig{T: t, root: filepath.Join(dir, "tree"), outside: filepath.Join(dir, "outside"), log: &logged{}}
	for _, d := range []string{r.root, r.outside} {
		r.must(os.Mkdir(d, 0o755))
	}
	r.m = newModel(t, r.root)
	return r
}

func (r *rig) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

// watch starts the watcher and waits until it has scanned.
func (r *rig) watch(o Options) {
	r.Helper()
	o.Module, o.Root = "fedora", r.root
	setDefault(&o.Timing.Quiet, 20*time.Millisecond)
	r.w = New(o, r.m, slog.New(slog.NewTextHandler(r.log, nil)))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.w.Run(ctx) }()
	stopped := false
	r.stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		return <-ended
	}
	r.Cleanup(func() {
		if err := r.stop(); err != nil {
			r.Error(err)
		}
		if r.Failed() {
			r.Logf("the watcher said:\n%s", r.log.String())
		}
	})
	testenv.WaitFor(r, 10*time.Second, func() error {
		select {
		case err := <-ended:
			r.stop = func() error { return nil }
			cancel()
			r.Fatalf("the watcher ended: %v", err)
		default:
		}
		if _, scans := r.m.times(); scans == 0 {
			return errors.New("not scanned yet")
		}
		return nil
	})
	r.sync()
}

// sync waits until everything is announced.
func (r *rig) sync() {
	r.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := r.w.Sync(ctx); err != nil {
		r.Fatalf("sync: %v", err)
	}
}

func (r *rig) path(name string) string { return filepath.Join(r.root, name) }

func (r *rig) write(name, content string) {
	r.Helper()
	r.must(os.MkdirAll(filepath.Dir(r.path(name)), 0o755))
	r.must(os.WriteFile(r.path(name), []byte(content), 0o644))
}

func (r *rig) rename(from, to string) {
	r.Helper()
	r.must(os.Rename(r.path(from), r.path(to)))
}

func (r *rig) remove(name string) {
	r.Helper()
	r.must(os.RemoveAll(r.path(name)))
}

func (r *rig) mkdir(name string) {
	r.Helper()
	r.must(os.MkdirAll(r.path(name), 0o755))
}

// fill makes directories with files.
func (r *rig) fill(dir string, dirs, files int) {
	r.Helper()
	for d := range dirs {
		for f := range files {
			r.write(fmt.Sprintf("%s/%d/%d", dir, d, f), fmt.Sprint(dir, d, f))
		}
	}
}

// check fails the test unless what was announced is what is there.
func (r *rig) check() {
	r.Helper()
	if err := r.m.differs(everyName); err != nil {
		r.Errorf("after all is announced:\n%v", err)
	}
}

// onEach runs a test with each backend that hears of changes.
func onEach(t *testing.T, f func(t *testing.T, backend string)) {
	for _, b := range []string{Fanotify, Inotify} {
		t.Run(b, func(t *testing.T) {
			if b == Fanotify {
				needFanotify(t, t.TempDir())
			}
			f(t, b)
		})
	}
}

// needFanotify skips the test where this user or file system does not have it.
func needFanotify(t *testing.T, dir string) {
	t.Helper()
	at, err := openPlace(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer at.close() //nolint:errcheck // only read
	f, err := openFanotify(at, false)
	if err != nil {
		testenv.Unable(t, "no fanotify: "+err.Error())
	}
	if err := f.close(); err != nil {
		t.Fatal(err)
	}
}

func (r *rig) appendTo(name, more string) {
	r.Helper()
	f, err := os.OpenFile(r.path(name), os.O_APPEND|os.O_WRONLY, 0)
	r.must(err)
	_, err = f.WriteString(more)
	r.must(errors.Join(err, f.Close()))
}

// queueSize is how many events the kernel holds.
func queueSize(t *testing.T, backend string) (n int) {
	t.Helper()
	text, err := os.ReadFile("/proc/sys/fs/" + backend + "/max_queued_events")
	if err == nil {
		_, err = fmt.Sscan(string(text), &n)
	}
	if err != nil {
		t.Fatal(err)
	}
	if n > 100_000 {
		testenv.Unable(t, fmt.Sprintf("the queue of %s holds %d events here", backend, n))
	}
	return n
}

// asNobody takes root's rights from this process until the test ends, and gives the files to whom it is then.
func asNobody(t *testing.T, files ...string) {
	t.Helper()
	const nobody = 65534
	if os.Geteuid() != 0 {
		return
	}
	for dir := files[0]; dir != filepath.Clean(os.TempDir()); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range files {
		if err := os.Chown(f, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Setresuid(-1, nobody, -1); err != nil {
		testenv.Unable(t, "cannot become another user: "+err.Error())
	}
	t.Cleanup(func() {
		if err := syscall.Setresuid(-1, 0, -1); err != nil {
			t.Fatal(err)
		}
	})
}

// mountAt mounts a tmpfs for the time of the test. Who may not skips it.
func mountAt(t *testing.T, dir, source string) {
	t.Helper()
	testenv.NeedRoot(t)
	if err := syscall.Mount(source, dir, "tmpfs", 0, "size=4m"); err != nil {
		testenv.Missing(t, "cannot mount a tmpfs: "+err.Error())
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) }) //nolint:errcheck // the test may have done it
}
