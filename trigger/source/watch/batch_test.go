package watch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
)

const index = "repodata/repomd.xml"

func isIndex(path string) bool { return strings.HasPrefix(path, "repodata/") }

// asked writes names with what they were: op, path and size.
func asked(names []Name) string {
	var all []string
	for _, n := range names {
		s := n.Path
		if n.Op != 0 {
			s = string(rune(n.Op)) + s
		}
		if n.As != nil {
			s += fmt.Sprint(":", n.As.Size)
		}
		all = append(all, s)
	}
	return strings.Join(all, " ")
}

// A still is a watcher whose events a test makes up.
type still struct {
	*rig
	steps []func() // what happens before the reader has caught up for the first time, the second …
}

func newStill(t *testing.T) *still {
	t.Helper()
	r := newRig(t)
	r.w = New(Options{Root: r.root, Index: isIndex}, r.m, slog.New(slog.DiscardHandler))
	for n := range 3 {
		r.write(fmt.Sprint("c", n), "c")
	}
	r.write("old/c", "c")
	return &still{rig: r}
}

// says writes a file and tells the watcher.
func (s *still) says(name string, size int) {
	s.Helper()
	s.write(name, strings.Repeat("x", size))
	s.w.in.touch(name, closed)
}

func (s *still) loses(name string) {
	s.Helper()
	s.remove(name)
	s.w.in.touch(name, left)
}

// collect is the next batch, as asked writes it.
func (s *still) collect() string {
	s.Helper()
	at, err := openPlace(s.root)
	s.must(err)
	defer at.close() //nolint:errcheck // only read
	b, _, err := s.w.collect(s.Context(), at, false, func(context.Context) error {
		if len(s.steps) > 0 {
			s.steps[0]()
			s.steps = s.steps[1:]
		}
		return nil
	})
	s.must(err)
	var names []Name
	for _, e := range b.entries() {
		n := Name{Path: e.path}
		switch {
		case e.from != "":
			n.Op = event.Renamed
		case e.tree:
			n.Op = event.Tree
		}
		names = append(names, b.name(n))
	}
	return asked(names)
}

// What is announced together with an index is what had happened when it was looked at; an index that changes meanwhile, and what goes with that, is announced next.
func TestBatch(t *testing.T) {
	for name, c := range map[string]struct {
		before func(s *still)
		steps  []func(s *still)
		want   []string // the batches
	}{
		"no index": {
			func(s *still) { s.says("c3", 1); s.loses("c0") },
			[]func(*still){func(s *still) { s.says("c4", 1) }},
			[]string{"c0 c3", ""},
		},
		"content that comes with the index": {
			func(s *still) { s.says(index, 1); s.loses("c0") },
			[]func(*still){func(s *still) { s.says("c3", 2) }},
			[]string{"-c0 c3:2 " + index + ":1", ""},
		},
		"replaced meanwhile": {
			func(s *still) { s.says(index, 1); s.says("c1", 3) },
			[]func(*still){func(s *still) { s.says("c3", 2); s.says(index, 2); s.loses("c0"); s.loses("c1") }},
			[]string{"c1:3 c3:2 " + index + ":1", "-c0 -c1 " + index + ":2"},
		},
		"heard of twice": {
			func(s *still) { s.says(index, 1) },
			[]func(*still){func(s *still) { s.w.in.touch(index, closed); s.loses("c0") }},
			[]string{"-c0 " + index + ":1", ""},
		},
		"gone meanwhile": {
			func(s *still) { s.says(index, 1) },
			[]func(*still){func(s *still) { s.loses("c0"); s.loses(index) }},
			[]string{"c0 " + index, ""}, // there is no index whose version matters
		},
		"renamed meanwhile": {
			func(s *still) { s.says(index, 1) },
			[]func(*still){func(s *still) { s.rename("old", "new"); s.w.in.renamed("old", "new", isDir); s.says(index, 2) }},
			[]string{"rnew " + index + ":1", "-old " + index + ":2"},
		},
		"an index that lists another": {
			func(s *still) { s.says(index, 1) },
			[]func(*still){func(s *still) { s.says("repodata/primary", 2) }, func(s *still) { s.says("c3", 3); s.loses("c0") }},
			[]string{"-c0 c3:3 repodata/primary:2 " + index + ":1", ""},
		},
		"more and more indexes": {
			func(s *still) { s.says("repodata/1", 1) },
			[]func(*still){func(s *still) { s.says("repodata/2", 2) }, func(s *still) { s.says("repodata/3", 3) }, func(s *still) { s.says("repodata/4", 4); s.says("c3", 3); s.loses("c0") }},
			[]string{"c3:3 repodata/1:1 repodata/2:2 repodata/3:3", "-c0 repodata/4:4"},
		},
		"events are missing": {
			func(s *still) {
				s.w.in.gap("test")
				s.says(index, 1)
				s.says("c3", 3)
				s.loses("c0")
				s.rename("old", "new")
				s.w.in.renamed("old", "new", isDir)
			},
			nil,
			[]string{"c3:3", ""},
		},
		"events were lost meanwhile": {
			func(s *still) { s.says(index, 1); s.says("c3", 3); s.loses("c0") },
			[]func(*still){func(s *still) { s.w.in.gap("test") }},
			[]string{"c3:3", ""},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStill(t)
			c.before(s)
			for _, step := range c.steps {
				s.steps = append(s.steps, func() { step(s) })
			}
			var got []string
			for range c.want {
				got = append(got, s.collect())
				s.steps = nil
			}
			if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", c.want) {
				t.Errorf("batches %q, want %q", got, c.want)
			}
		})
	}
}

// What waits for a scan is taken right after it.
func TestReleasedAfterAScan(t *testing.T) {
	s := newStill(t)
	s.w.in.gap("test")
	s.says(index, 1)
	s.loses("c0")
	if got := s.collect(); got != "" {
		t.Errorf("announced before the scan: %s", got)
	}
	s.w.in.madeUp() // another gap came while it was made
	if due, _ := s.w.in.set.due(s.w.now()); due.Before(s.w.now().Add(time.Minute)) {
		t.Errorf("due at %v, though a scan is", due)
	}
	s.w.in.scan = nil
	s.w.in.madeUp()
	if due, some := s.w.in.set.due(s.w.now()); !some || due.After(s.w.now()) {
		t.Errorf("due at %v, %t", due, some)
	}
	if got := s.collect(); got != "-c0 "+index+":1" {
		t.Errorf("after the scan %s", got)
	}
}

// A batch that is not complete is not lost.
func TestBatchThatCannotBeCompleted(t *testing.T) {
	s := newStill(t)
	s.says(index, 1)
	at, err := openPlace(s.root)
	s.must(err)
	defer at.close() //nolint:errcheck // only read
	broken := errors.New("no reader")
	if _, _, err := s.w.collect(s.Context(), at, false, func(context.Context) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	if got := s.collect(); got != index+":1" {
		t.Errorf("afterwards %s", got)
	}
}

// An index that is replaced while it is announced goes as it was before, together with all that had come by then, and again after that.
func TestIndexIsReplacedWhileAnnounced(t *testing.T) {
	onEach(t, func(t *testing.T, backend string) {
		r := newRig(t)
		r.mkdir("pool")
		r.mkdir("repodata")
		r.watch(Options{Backend: backend, Index: isIndex})
		const versions = 5
		put := func(n int) {
			r.write(fmt.Sprint("pool/", n), "c")
			r.write(".new", strings.Repeat("x", n))
			r.rename(".new", index)
		}
		n := 1
		r.m.set(func() {
			r.m.refuse = func(name Name) error {
				if name.Path == index && n < versions {
					n++
					put(n)
				}
				return nil
			}
		})
		put(1)
		testenv.WaitFor(t, 10*time.Second, func() error { return r.m.differs(everyName) })
		r.sync()
		r.check()
		told, last := map[string]bool{}, int64(0)
		r.m.mu.Lock()
		defer r.m.mu.Unlock()
		for _, batch := range r.m.asked {
			for _, name := range batch {
				told[name.Path] = true
			}
			for _, name := range batch {
				if name.Path != index {
					continue
				}
				if name.As == nil || name.As.Size < last {
					t.Fatalf("after version %d it is announced as %v", last, name.As)
				}
				if last = name.As.Size; !told[fmt.Sprint("pool/", last)] {
					t.Fatalf("version %d is announced and what it names is not", last)
				}
			}
		}
		if last != versions {
			t.Errorf("the last version announced is %d", last)
		}
	})
}

// While a scan makes up for lost events no index is announced, and nothing is said to be gone; what else changes is.
func TestIndexWaitsForTheScanAfterAGap(t *testing.T) {
	onEach(t, func(t *testing.T, backend string) {
		r := newRig(t)
		r.mkdir("repodata")
		r.write("old", "c")
		r.watch(Options{Backend: backend, Index: isIndex})
		hold := make(chan struct{})
		release := sync.OnceFunc(func() { close(hold) })
		t.Cleanup(release) // or the watcher would not end
		r.m.set(func() { r.m.hold = hold })
		n, _ := r.m.times()
		r.w.in.gap("test")
		token(r.w.scan)
		r.write(index, "x")
		r.remove("old")
		r.write("new", "c")
		testenv.WaitFor(t, 10*time.Second, func() error { return r.m.differs(func(p string) bool { return p == "new" }) })
		testenv.WaitFor(t, 10*time.Second, func() error {
			if s := r.w.Status(); s.Held != 2 || s.Waiting != 2 || !s.Scanning {
				return fmt.Errorf("status %+v", s)
			}
			return nil
		})
		for _, name := range r.m.names(n) {
			if name.Path == index || name.Path == "old" {
				t.Errorf("%s is announced before the scan", name.Path)
			}
		}
		release()
		testenv.WaitFor(t, 10*time.Second, func() error {
			if names := asked(r.m.names(n)); !strings.Contains(names, "-old "+index+":1") {
				return fmt.Errorf("announced are %s", names)
			}
			return nil
		})
		r.sync()
		r.check()
	})
}
