package watch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/internal/filter"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/trigger/source/rules"
)

// Each kind of change is announced as it is, by events alone. Before each the tree is what the ones before left.
func TestChanges(t *testing.T) {
	onEach(t, func(t *testing.T, backend string) {
		r := newRig(t)
		r.write("pool/a", "a")
		r.write("pool/b", "b")
		r.fill("many", 20, 10)
		r.fill("old", 3, 3)
		r.must(os.MkdirAll(r.outside+"/in/sub", 0o755))
		r.must(os.WriteFile(r.outside+"/in/sub/f", []byte("f"), 0o644))
		r.must(os.WriteFile(r.outside+"/file", []byte("f"), 0o644))
		r.watch(Options{Backend: backend})
		for _, c := range []struct {
			name   string
			change func()
		}{
			{"a new file", func() { r.write("pool/new", "new") }},
			{"a file written again", func() { r.write("pool/a", "longer") }},
			{"a file appended to", func() { r.appendTo("pool/a", "more") }},
			{"the mode of a file", func() { r.must(os.Chmod(r.path("pool/a"), 0o600)) }},
			{"the mode of a directory", func() { r.must(os.Chmod(r.path("pool"), 0o700)) }},
			{"the time of a file", func() { r.must(os.Chtimes(r.path("pool/b"), time.Unix(1, 2), time.Unix(3, 4))) }},
			{"an empty directory", func() { r.mkdir("empty") }},
			{"a symbolic link", func() { r.must(os.Symlink("a", r.path("pool/link"))) }},
			{"another name of a file", func() { r.must(os.Link(r.path("pool/a"), r.path("pool/hard"))) }},
			{"a file replaced by renaming", func() { r.write("pool/.tmp", "replaced"); r.rename("pool/.tmp", "pool/b") }},
			{"a file renamed", func() { r.rename("pool/new", "pool/newer") }},
			{"a file moved to another directory", func() { r.rename("pool/newer", "empty/newer") }},
			{"a file in a directory", func() { r.write("many/3/3", "changed") }},
			{"that directory renamed", func() { r.rename("many", "lots") }},
			{"changes below it", func() { r.write("lots/3/3", "again"); r.write("lots/3/new", "new") }},
			{"a directory renamed twice, with changes between", func() {
				r.write("lots/1/x", "before")
				r.rename("lots", "l2")
				r.write("l2/1/y", "between")
				r.rename("l2", "l3")
				r.write("l3/1/z", "after")
			}},
			{"a directory renamed and back", func() { r.rename("l3", "l4"); r.write("l4/2/x", "there"); r.rename("l4", "l3") }},
			{"directories renamed, the inner one first", func() { r.rename("l3/5", "l3/5b"); r.rename("l3", "l5") }},
			{"and the outer one first", func() { r.rename("l5", "l6"); r.rename("l6/6", "l6/6b") }},
			{"a directory takes the name of another", func() { r.rename("old", "older"); r.fill("old", 2, 2) }},
			{"two directories change names", func() { r.rename("old", "x"); r.rename("older", "old"); r.rename("x", "older") }},
			{"a directory made aside and renamed", func() { r.fill(".new", 3, 3); r.rename(".new", "made") }},
			{"a deep path at once", func() { r.write("a/b/c/d/e/f/g", "deep") }},
			{"many directories at once", func() { r.fill("burst", 200, 3) }},
			{"a file in the place of a directory", func() { r.remove("made/1"); r.write("made/1", "file") }},
			{"a directory in the place of a file", func() { r.remove("made/1"); r.write("made/1/a", "file") }},
			{"removed", func() { r.remove("pool/hard") }},
			{"removed with all that is below", func() { r.remove("burst") }},
			{"removed and made again", func() { r.remove("older"); r.fill("older", 1, 1) }},
			{"a file moved in", func() { r.must(os.Rename(r.outside+"/file", r.path("file"))) }},
			{"a directory moved in", func() { r.must(os.Rename(r.outside+"/in", r.path("in"))) }},
			{"a change in it", func() { r.write("in/sub/f", "changed"); r.mkdir("in/sub2") }},
			{"a file moved out", func() { r.must(os.Rename(r.path("file"), r.outside+"/file2")) }},
			{"a directory moved out", func() { r.must(os.Rename(r.path("in"), r.outside+"/in2")) }},
			{"and another one of that name", func() { r.write("in/other", "other") }},
			{"names of any bytes", func() {
				for _, n := range []string{"new\nline", "in\xff\xfevalid", " ", "-rf", "größe", "*", "\\", strings.Repeat("long", 63), "...", "a (deleted)"} {
					r.write("odd/"+n, n)
					r.write("odd/dir "+n[:min(len(n), 200)]+"/x", n)
				}
			}},
			{"and they are renamed", func() { r.rename("odd/in\xff\xfevalid", "odd/\xffvalid"); r.rename("odd/dir new\nline", "odd/\n") }},
			{"and removed", func() {
				r.remove("odd/\xffvalid")
				r.remove("odd/\n")
				r.remove("odd/a (deleted)")
				r.remove("odd/dir a (deleted)")
			}},
		} {
			_, before := r.m.times()
			c.change()
			r.sync()
			if err := r.m.differs(everyName); err != nil {
				t.Errorf("%s:\n%v", c.name, err)
			}
			if _, scans := r.m.times(); scans != before {
				t.Errorf("%s: it took a scan", c.name)
			}
		}
		if s := r.w.Status(); s.Backend != backend || s.State != Watching || s.Waiting != 0 || s.Lost != 0 || s.Serial == 0 || s.Trouble != "" {
			t.Errorf("status %+v", s)
		}
	})
}

// What is announced is no more than what changed, and in the fewest words.
func TestWhatIsAsked(t *testing.T) {
	onEach(t, func(t *testing.T, backend string) {
		r := newRig(t)
		r.fill("dir", 5, 5)
		r.fill("gone", 5, 5)
		r.must(os.MkdirAll(r.outside+"/in", 0o755))
		r.watch(Options{Backend: backend, Timing: Timing{Quiet: time.Hour, AtMost: time.Hour}})
		for _, c := range []struct {
			name   string
			change func()
			want   []Name
		}{
			{"a renamed directory", func() { r.rename("dir", "new") }, []Name{{Op: event.Renamed, Path: "new", From: "dir"}}},
			{"renamed twice", func() { r.rename("new", "x"); r.rename("x", "dir") }, []Name{{Op: event.Renamed, Path: "dir", From: "new"}, {Path: "x"}}},
			{"a removed directory", func() { r.remove("gone") }, []Name{{Path: "gone"}}},
			{"a directory moved in", func() { r.must(os.Rename(r.outside+"/in", r.path("in"))) }, []Name{{Op: event.Tree, Path: "in"}}},
			{"a directory moved out", func() { r.must(os.Rename(r.path("in"), r.outside+"/in")) }, []Name{{Path: "in"}}},
			{"a directory removed and made again", func() { r.remove("dir/1"); r.mkdir("dir/1") }, []Name{{Op: event.Tree, Path: "dir/1"}}},
			{"names that come and go", func() { r.write("a.tmp", "x"); r.remove("a.tmp") }, []Name{{Path: "a.tmp"}}},                                                                   // likewise
			{"a file replaced by way of another name", func() { r.write("dir/.a.Xy12Zz", "x"); r.rename("dir/.a.Xy12Zz", "dir/a") }, []Name{{Path: "dir/.a.Xy12Zz"}, {Path: "dir/a"}}}, // of which the hub knows that nobody has it
			{"written twice", func() { r.write("dir/a", "1"); r.write("dir/a", "2"); r.must(os.Chmod(r.path("dir/a"), 0o600)) }, []Name{{Path: "dir/a"}}},
			{"what mirrorbus writes itself", func() { r.write(".mirrorbus/head", "head"); r.write(".mirrorbus/journal/1", "1") }, nil},
			{"the root itself", func() { r.must(os.Chmod(r.root, 0o700)) }, nil},
		} {
			n, _ := r.m.times()
			c.change()
			r.sync()
			if got := r.m.names(n); fmt.Sprintf("%q", got) != fmt.Sprintf("%q", c.want) {
				t.Errorf("%s: asked to announce %q, want %q", c.name, got, c.want)
			}
		}
	})
}

// A burst is one announcement, soon after it.
func TestSettling(t *testing.T) {
	onEach(t, func(t *testing.T, backend string) {
		r := newRig(t)
		r.watch(Options{Backend: backend, Timing: Timing{Quiet: 500 * time.Millisecond, AtMost: time.Minute}})
		n, _ := r.m.times()
		r.mkdir("burst")
		r.sync() // for inotify: it watches the directory now
		for i := range 1000 {
			r.write(fmt.Sprintf("burst/%d", i), "x")
		}
		testenv.WaitFor(t, 20*time.Second, func() error { return r.m.differs(everyName) })
		if times, _ := r.m.times(); times != n+2 {
			t.Errorf("%d announcements, want 2", times-n)
		}
	})
}

// What happens while nobody watches is found at the start, and what happens during that start is heard of.
func TestRestart(t *testing.T) {
	r := newRig(t)
	r.write("a", "a")
	r.watch(Options{Backend: Inotify})
	r.must(r.stop())
	r.write("b", "b")
	r.remove("a")
	r.w = nil
	r.watch(Options{Backend: Inotify})
	r.check()
	if _, scans := r.m.times(); scans != 2 {
		t.Errorf("%d scans", scans)
	}
}

// What has happened when it is told to end is announced before it does.
func TestFarewell(t *testing.T) {
	onEach(t, func(t *testing.T, backend string) {
		r := newRig(t)
		r.watch(Options{Backend: backend, Timing: Timing{Quiet: time.Hour, AtMost: time.Hour}})
		r.write("last", "words")
		r.must(r.stop())
		r.check()
	})
}

// It can be told to end when nothing more happens.
func TestUntilIdle(t *testing.T) {
	onEach(t, func(t *testing.T, backend string) {
		r := newRig(t)
		r.write("a", "a")
		w := New(Options{Module: "fedora", Root: r.root, Backend: backend, UntilIdle: 300 * time.Millisecond}, r.m, slog.New(slog.NewTextHandler(r.log, nil)))
		ended := make(chan error, 1)
		go func() { ended <- w.Run(context.Background()) }()
		testenv.WaitFor(t, 10*time.Second, func() error {
			if _, scans := r.m.times(); scans == 0 {
				return errors.New("no scan")
			}
			return nil
		})
		r.write("b", "b")
		select {
		case err := <-ended:
			r.must(err)
		case <-time.After(20 * time.Second):
			t.Fatal("it does not end")
		}
		r.check()
		r.m.set(func() { r.m.down = fault.With(errors.New("nobody answers"), fault.Unavailable, "") })
		w = New(Options{Module: "fedora", Root: r.root, Backend: backend, UntilIdle: time.Hour}, r.m, slog.New(slog.NewTextHandler(r.log, nil)))
		if err := w.Run(context.Background()); fault.StatusOf(err) != fault.Unavailable {
			t.Errorf("without a hub: %v", err)
		}
	})
}

// Where nothing tells of changes they are found by scans.
func TestScanning(t *testing.T) {
	r := newRig(t)
	r.watch(Options{Backend: Scanning, PollEvery: 50 * time.Millisecond})
	r.write("a", "a")
	testenv.WaitFor(t, 10*time.Second, func() error { return r.m.differs(everyName) })
	r.m.set(func() { r.m.slow = 300 * time.Millisecond })
	r.write("b", "b")
	r.sync()
	r.check()
	if n, _ := r.m.times(); n != 0 {
		t.Errorf("%d announcements by name", n)
	}
}

// What the rules leave out is not announced by any way.
func TestRules(t *testing.T) {
	onEach(t, func(t *testing.T, backend string) {
		r := newRig(t)
		f, err := filter.Parse([]string{"- /incoming/", "- *.part"})
		r.must(err)
		x, err := rules.New(f, []string{`-f\.tmp$`, `-w(^|/)cache$`})
		r.must(err)
		r.mkdir("pool")
		r.mkdir("incoming/ready")
		r.watch(Options{Backend: backend, Rules: x})
		r.write("incoming/a", "a")
		r.write("pool/a.tmp", "a")
		r.write("pool/a.part", "a")
		r.write("pool/cache/a", "a")
		r.sync()
		r.rename("pool/a.part", "pool/a")
		r.write("incoming/ready/b", "b")
		r.write("incoming/ready/b.tmp", "b")
		r.rename("incoming/ready", "pool/ready")
		r.write("pool/out/a", "a")
		r.sync()
		r.rename("pool/out", "incoming/out")
		r.sync()
		announced := func(p string) bool {
			fi, err := os.Lstat(r.path(p))
			return x.Announced(p, err == nil && fi.IsDir())
		}
		if err := r.m.differs(announced); err != nil {
			t.Error(err)
		}
		for _, n := range r.m.names(0) {
			if strings.HasPrefix(n.Path, "incoming") || strings.HasSuffix(n.Path, ".tmp") || strings.HasPrefix(n.Path, "pool/cache/") {
				t.Errorf("%q is announced", n)
			}
		}
	})
}

// A file that is being written is held back while it grows, and announced in the end.
func TestFileBeingWritten(t *testing.T) {
	onEach(t, func(t *testing.T, backend string) {
		r := newRig(t)
		r.watch(Options{Backend: backend})
		n, _ := r.m.times()
		f, err := os.Create(r.path("big"))
		r.must(err)
		for begun := time.Now(); time.Since(begun) < 2*openEvery; {
			_, err := f.WriteString("more and more")
			r.must(err)
			time.Sleep(10 * time.Millisecond) // as a slow writer does
		}
		if got := r.m.names(n); len(got) > 0 {
			t.Errorf("%q is announced while it grows", got)
		}
		r.must(f.Close())
		testenv.WaitFor(t, 10*time.Second, func() error { return r.m.differs(everyName) })
	})
}
