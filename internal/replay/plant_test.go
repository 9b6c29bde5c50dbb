package replay_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/replay"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
)

// A scene is a mirror that a watcher watches, with an agent that says what the test wants.
type scene struct {
	t              *testing.T
	master, mirror string
	claims         string
	applied, asked atomic.Uint64 // asked: how often the watcher wanted to know
	figures        chan replay.Figures
	end            context.CancelFunc
}

// newScene makes a master and a mirror with one complete repository, and lets the watcher know them.
func newScene(t *testing.T) *scene {
	t.Helper()
	dir := t.TempDir()
	s := &scene{t: t, master: filepath.Join(dir, "master"), mirror: filepath.Join(dir, "mirror"), claims: filepath.Join(dir, "claims"), figures: make(chan replay.Figures, 1)}
	s.both("repos/0/pool/a.rpm", "content of a")
	s.both("repos/0/repodata/1-primary", index("pool/a.rpm", "content of a"))
	s.both("repos/0/repodata/repomd.xml", index("repodata/1-primary", index("pool/a.rpm", "content of a")))
	s.both("other/file", "x")
	socket := filepath.Join(dir, "sock")
	s.serve(socket)
	ctx, end := context.WithCancel(t.Context())
	s.end = end
	t.Cleanup(end)
	ready := make(chan struct{})
	go func() {
		f, err := replay.Watch{Master: s.master, Claims: s.claims, Mirrors: []replay.Watched{{Name: "m", Tree: s.mirror, Socket: socket}}}.
			Run(ctx, func() error { close(ready); return nil })
		if err != nil {
			t.Error(err)
		}
		s.figures <- f
	}()
	<-ready
	return s
}

// serve is an agent's status.
func (s *scene) serve(socket string) {
	s.t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		s.t.Fatal(err)
	}
	server := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s.asked.Add(1)
		json.NewEncoder(w).Encode(map[string]any{"modules": []any{map[string]any{"module": "m", "applied": s.applied.Load()}}}) //nolint:errcheck // the watcher asks again
	})}
	var serving sync.WaitGroup
	serving.Go(func() { server.Serve(l) }) //nolint:errcheck // ends with the test
	s.t.Cleanup(func() {
		server.Close() //nolint:errcheck // it served a test
		serving.Wait()
	})
}

func index(path, content string) string {
	return fmt.Sprintf("%d %x %s\n", len(content), sha256.Sum256([]byte(content)), path)
}

func (s *scene) write(root, path, text string) {
	s.t.Helper()
	testenv.WriteTree(s.t, root, testenv.File(path, text).At(time.Unix(1_700_000_000, 0)))
}

func (s *scene) both(path, text string) {
	s.t.Helper()
	s.write(s.master, path, text)
	s.write(s.mirror, path, text)
}

func (s *scene) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// say claims what is true of names on the master now.
func (s *scene) say(serial int, names ...string) {
	s.t.Helper()
	c, err := replay.NewClaim(s.master, names)
	s.must(err)
	s.must(c.Append(s.claims))
	s.must(json.Unmarshal(fmt.Appendf(nil, `{"Serial":%d}`, serial), &c))
	s.must(replay.Claim{Serial: c.Serial}.Append(s.claims))
}

// looks waits until the watcher has looked at everything several times more.
func (s *scene) looks() {
	s.t.Helper()
	from := s.asked.Load()
	testenv.WaitFor(s.t, time.Minute, func() error {
		if n := s.asked.Load() - from; n < 5 {
			return fmt.Errorf("%d rounds", n)
		}
		return nil
	})
}

// found ends the watch after it had time to see what was planted, and returns what it found.
func (s *scene) found() []string {
	s.t.Helper()
	s.looks()
	s.end()
	return (<-s.figures).Violations
}

// Each kind of violation, planted, is caught; what is announced is not taken for one.
func TestTheWatcherCatchesWhatIsPlanted(t *testing.T) {
	for _, c := range []struct {
		name, want string
		do         func(*scene)
	}{
		{"nothing", "", func(*scene) {}},
		{"an announced change", "", func(s *scene) {
			s.write(s.master, "other/file", "longer")
			s.say(1, "other/file")
			s.write(s.mirror, "other/file", "longer")
			s.applied.Store(1)
		}},
		{"an announced release", "", func(s *scene) {
			s.say(1, "r:repos/0")
			s.both("repos/0/pool/b.rpm", "b")
			s.both("repos/0/repodata/2-primary", index("pool/b.rpm", "b"))
			s.both("repos/0/repodata/repomd.xml", index("repodata/2-primary", index("pool/b.rpm", "b")))
			s.must(os.Remove(filepath.Join(s.mirror, "repos/0/pool/a.rpm")))
		}},
		{"a package is missing", "I3", func(s *scene) { s.say(1, "r:repos"); s.must(os.Remove(filepath.Join(s.mirror, "repos/0/pool/a.rpm"))) }},
		{"a package is short", "I3", func(s *scene) { s.say(1, "r:repos"); s.write(s.mirror, "repos/0/pool/a.rpm", "content") }},
		{"a package has other content", "I3", func(s *scene) { s.say(1, "r:repos"); s.write(s.mirror, "repos/0/pool/a.rpm", "CONTENT of a") }},
		{"a list is missing", "I3", func(s *scene) {
			s.say(1, "r:repos")
			s.must(os.Remove(filepath.Join(s.mirror, "repos/0/repodata/1-primary")))
		}},
		{"a new file that nobody announced", "I2", func(s *scene) { s.write(s.mirror, "other/new", "x") }},
		{"a file is gone that nobody announced", "I2", func(s *scene) { s.must(os.Remove(filepath.Join(s.mirror, "other/file"))) }},
		{"another size", "I2", func(s *scene) { s.say(1, "other/new"); s.write(s.mirror, "other/file", "longer") }},
		{"another mode", "I2", func(s *scene) { s.must(os.Chmod(filepath.Join(s.mirror, "other/file"), 0o600)) }},
		{"a directory's mode", "I2", func(s *scene) { s.must(os.Chmod(filepath.Join(s.mirror, "other"), 0o700)) }},
		{"a serial before its content", "I5", func(s *scene) { s.write(s.master, "other/file", "longer"); s.say(1, "other/file"); s.applied.Store(1) }},
		{"a serial before its deletion", "I5", func(s *scene) {
			s.must(os.Remove(filepath.Join(s.master, "other/file")))
			s.say(1, "other/file")
			s.applied.Store(1)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			c.do(s)
			found := s.found()
			if c.want == "" && len(found) > 0 || c.want != "" && (len(found) == 0 || !strings.Contains(found[0], c.want)) {
				t.Errorf("found %q, want %s", found, c.want)
			}
		})
	}
}

func TestTheWatcherCatchesASerialThatGoesBack(t *testing.T) {
	s := newScene(t)
	s.applied.Store(5)
	s.looks()
	s.applied.Store(4)
	if found := s.found(); len(found) == 0 || !strings.Contains(found[0], "I5") {
		t.Errorf("found %q", found)
	}
}
