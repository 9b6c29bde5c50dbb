package filelist

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mirrorbus/mirrorbus/event"
)

var start = time.Unix(1_763_752_000, 0)

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// seq yields records in order of their paths, then an error if there is one.
func seq(err error, all ...event.Record) iter.Seq2[event.Record, error] {
	slices.SortFunc(all, func(a, b event.Record) int { return strings.Compare(a.Path, b.Path) })
	return func(yield func(event.Record, error) bool) {
		for _, r := range all {
			if !yield(r, nil) {
				return
			}
		}
		if err != nil {
			yield(event.Record{}, err)
		}
	}
}

// rec is a record of a path: mode, size, mtime in seconds before start, serial.
func rec(path string, mode uint32, size, ago int64, serial event.Serial) event.Record {
	r := event.Record{Op: event.Write, Path: path, Mode: mode, Size: size, MTime: event.Stamp{Sec: start.Unix() - ago}, Serial: serial}
	if mode == 0 {
		r.Op = event.Gone
	}
	return r
}

// newState is a state of records in an empty tree, where serial n was announced n minutes after start.
func newState(t *testing.T, records ...event.Record) State {
	t.Helper()
	dir := t.TempDir()
	check(t, os.Mkdir(filepath.Join(dir, event.ExportDir), 0o755))
	root, err := os.OpenRoot(dir)
	check(t, err)
	t.Cleanup(func() { check(t, root.Close()) })
	return State{Module: "m", Epoch: "0123abcd", Root: root, Files: seq(nil, records...), Now: start.Add(time.Hour), Built: 10,
		At: func(s event.Serial) time.Time {
			if s < 5 {
				return time.Time{}
			}
			return start.Add(time.Duration(s) * time.Minute)
		}}
}

func read(t *testing.T, s State, name string) string {
	t.Helper()
	b, err := s.Root.ReadFile(name)
	check(t, err)
	return string(b)
}

// clean fails the test if a draft was left.
func clean(t *testing.T, s State) {
	t.Helper()
	left, err := os.ReadDir(filepath.Join(s.Root.Name(), event.ExportDir))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

const (
	file = event.ModeFile
	dir  = event.ModeDir
	link = event.ModeLink
)

func TestTimelist(t *testing.T) {
	s := newState(t,
		rec("d", dir|0o755, 0, 100, 3), rec("d/f", file|0o644, 3, 100, 3), rec("d/announced later", file|0o644, 4, 100, 11), rec("d/newer", file|0o644, 5, -7200, 11),
		rec("d/tab\tname", file|0o644, 1, 100, 3), rec("d/line\nend", dir|0o755, 0, 100, 3), rec("d/line\nend/below", file|0o644, 1, 100, 3), rec("d/link", link|0o777, 6, 100, 3),
		rec("embargo", dir|0o750, 0, 100, 3), rec("embargo/f", file|0o644, 1, 100, 3), rec("embargo/sub", dir|0o755, 0, 100, 3), rec("embargo/sub/f", file|0o644, 1, 100, 3),
		rec("embargo/sub/not", file|0o640, 1, 100, 3), rec("hidden", dir|0o700, 0, 100, 3), rec("hidden/f", file|0o644, 1, 100, 3), rec("hidden/sub", dir|0o755, 0, 100, 3),
		rec("hidden/sub/f", file|0o644, 1, 100, 3), rec("mine", file|0o600, 1, 100, 3), rec("group", file|0o640, 1, 100, 3), rec(".nfs0001", file|0o644, 1, 100, 3),
		rec("gone", 0, 0, 0, 12), rec("r/repodata/repomd.xml", file|0o644, 5, 100, 3), rec("r/repodata/changed/repomd.xml", file|0o644, 7, 100, 3),
		rec("fullfiletimelist-m", file|0o644, 9, 0, 12), rec("fullfilelist", file|0o644, 9, 0, 12), rec("d/fullfilelist", file|0o644, 9, 100, 3), rec("RECENT-1h.yaml", file|0o644, 9, 0, 12))
	check(t, s.Root.MkdirAll("r/repodata/changed", 0o755))
	for _, name := range []string{"r/repodata/repomd.xml", "r/repodata/changed/repomd.xml"} {
		check(t, s.Root.WriteFile(name, []byte("hello"), 0o644))
		check(t, s.Root.Chtimes(name, start, start.Add(-100*time.Second)))
	}
	changed, err := Write(t.Context(), Fullfiletimelist, s)
	check(t, err)
	if d := cmp.Diff([]string{"fullfilelist", "fullfiletimelist-m"}, changed); d != "" {
		t.Error(d)
	}
	old, told, later := start.Unix()-100, start.Add(11*time.Minute).Unix(), start.Unix()+7200
	want := fmt.Sprintf(`[Version]
2

[Files]
%[1]d	d	0	d
%[2]d	f	4	d/announced later
%[1]d	f	3	d/f
%[1]d	f	9	d/fullfilelist
%[1]d	l	6	d/link
%[3]d	f	5	d/newer
%[1]d	d-	0	embargo
%[1]d	f*	1	embargo/f
%[1]d	d*	0	embargo/sub
%[1]d	f*	1	embargo/sub/f
%[1]d	f-	1	embargo/sub/not
%[1]d	f-	1	group
%[1]d	f	7	r/repodata/changed/repomd.xml
%[1]d	f	5	r/repodata/repomd.xml

[Checksums SHA1]
aaf4c61ddcc5e8a2dabede0f3b482cd9aea9434d	r/repodata/repomd.xml

[End]
`, old, told, later)
	if d := cmp.Diff(want, read(t, s, "fullfiletimelist-m")); d != "" {
		t.Error(d)
	}
	plain := read(t, s, "fullfilelist")
	if !strings.HasPrefix(plain, "./d\n./d/announced later\n") || strings.Count(plain, "\n") != 14 {
		t.Errorf("fullfilelist is %q", plain)
	}
	clean(t, s)
	for name, want := range map[string][]string{"as it was": nil, "another mode": {"fullfilelist"}} {
		if want != nil {
			check(t, s.Root.Chmod("fullfilelist", 0o600))
		}
		before, err := s.Root.Stat("fullfiletimelist-m")
		check(t, err)
		changed, err := Write(t.Context(), Fullfiletimelist, s)
		check(t, err)
		after, err := s.Root.Stat("fullfiletimelist-m")
		check(t, err)
		if !slices.Equal(changed, want) || !os.SameFile(before, after) {
			t.Errorf("%s: %q was written again", name, changed)
		}
	}
	clean(t, s)
}

func TestNothingIsPutInPlaceOfHalfAManifest(t *testing.T) {
	broken := errors.New("the disk is broken")
	for _, kind := range Kinds() {
		s := newState(t)
		s.Files = seq(broken, rec("a", file|0o644, 1, 0, 11))
		if changed, err := Write(t.Context(), kind, s); !errors.Is(err, broken) || len(changed) > 0 {
			t.Errorf("%s: %q %v", kind, changed, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		s.Files = seq(nil, rec("a", file|0o644, 1, 0, 11))
		if changed, err := Write(ctx, kind, s); !errors.Is(err, context.Canceled) || len(changed) > 0 {
			t.Errorf("%s: %q %v", kind, changed, err)
		}
		clean(t, s)
		for _, path := range Paths(kind, "m") {
			if _, err := s.Root.Lstat(path); err == nil {
				t.Errorf("%s: %s was written", kind, path)
			}
		}
	}
	if _, err := Write(t.Context(), "other", newState(t)); err == nil {
		t.Error("an unknown kind is taken")
	}
}

// epochs are those of a RECENT file, in its order.
func epochs(t *testing.T, text string) (all []string) {
	t.Helper()
	_, list, ok := strings.Cut(text, "\nrecent:\n")
	if !ok {
		t.Fatalf("no list in %q", text)
	}
	for line := range strings.Lines(list) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), "epoch: "); ok {
			all = append(all, strings.Trim(value, `"`))
		}
	}
	return all
}

// happened is what a RECENT file tells, in its order.
func happened(t *testing.T, s State, name string) (all []string) {
	t.Helper()
	what := ""
	for line := range strings.Lines(read(t, s, name)) {
		line = strings.TrimSpace(line)
		if value, ok := strings.CutPrefix(line, "path: "); ok {
			what = value
		} else if value, ok := strings.CutPrefix(line, "type: "); ok {
			all = append(all, value+" "+what)
		}
	}
	return all
}

func TestRecent(t *testing.T) {
	records := []event.Record{rec("id", dir|0o755, 0, 0, 20), rec("id/A", file|0o644, 1, 0, 20), rec("id/old", file|0o644, 1, 0, 3), rec("id/gone", 0, 0, 0, 21),
		rec("id/odd\n\"\\caf\xe9", file|0o644, 1, 0, 22), rec("id/link", link|0o777, 1, 0, 19), rec("id/long gone", 0, 0, 0, 2),
		rec("RECENT-1h.yaml", file|0o644, 9, 0, 23), rec("RECENT.recent", link|0o777, 9, 0, 23), rec("fullfilelist", file|0o644, 9, 0, 23)}
	s := newState(t, records...)
	s.Now = start.Add(80 * time.Minute)
	changed, err := Write(t.Context(), Recent, s)
	check(t, err)
	if len(changed) != len(windows)+1 {
		t.Errorf("changed %q", changed)
	}
	// The first window reaches back to the newest of the next, which is all there was.
	recent := []string{`new "id/odd\x0a\"\\caf` + "\xe9\"", `delete "id/gone"`, `new "id/A"`}
	if d := cmp.Diff(recent, happened(t, s, "RECENT-1h.yaml")); d != "" {
		t.Error(d)
	}
	recent = append(recent, `new "id/link"`)
	if d := cmp.Diff(recent, happened(t, s, "RECENT-6h.yaml")); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{recent[0], recent[2], recent[3], `new "id/old"`}, happened(t, s, "RECENT-Z.yaml")); d != "" {
		t.Error(d)
	}
	for _, w := range windows {
		text := read(t, s, w.file())
		all := epochs(t, text)
		for i := 1; i < len(all); i++ {
			if all[i-1] <= all[i] || len(all[i]) != len(all[0]) {
				t.Errorf("%s: epoch %s before %s", w.file(), all[i-1], all[i])
			}
		}
		if want := fmt.Sprintf("  minmax:\n    max: %q\n    min: %q\n  protocol: 1\n", all[0], all[len(all)-1]); !strings.Contains(text, want) ||
			!strings.Contains(text, "  dirtymark: \"19114957\"\n") || !strings.Contains(text, "  interval: "+w.name+"\n") {
			t.Errorf("%s begins %.600s", w.file(), text)
		}
	}
	if to, err := s.Root.Readlink("RECENT.recent"); err != nil || to != "RECENT-1h.yaml" {
		t.Errorf("RECENT.recent leads to %q, %v", to, err)
	}
	// Time alone changes nothing.
	s.Now = s.Now.Add(10 * 365 * day)
	if changed, err := Write(t.Context(), Recent, s); err != nil || len(changed) > 0 {
		t.Errorf("written without news: %q %v", changed, err)
	}
	clean(t, s)
}

// A client that has seen one window misses nothing when it goes on with the next, whenever it looks.
func TestRecentWindowsOverlap(t *testing.T) {
	s := newState(t)
	at := map[event.Serial]time.Time{}
	s.At = func(n event.Serial) time.Time { return at[n] }
	var all []event.Record
	now := start
	for n := event.Serial(1); n < 150; n++ {
		now = now.Add(time.Duration(n*n%97) * time.Duration(n%5) * 8 * time.Minute)
		at[n] = now
		all = append(all, rec(fmt.Sprint("f", n), file|0o644, 1, 0, n))
		s.Files, s.Now = seq(nil, slices.Clone(all)...), now.Add(time.Second)
		_, err := Write(t.Context(), Recent, s)
		check(t, err)
		for _, w := range windows { // what is in place was written now, as far as the clock of the test goes
			if info, err := s.Root.Stat(w.file()); err == nil && time.Since(info.ModTime()) < time.Minute {
				check(t, s.Root.Chtimes(w.file(), s.Now, s.Now))
			}
		}
		oldest := ""
		for i, w := range windows {
			e := epochs(t, read(t, s, w.file()))
			if i > 0 && e[0] < oldest {
				t.Fatalf("serial %d: %s ends at %s, the window before begins at %s", n, w.name, e[0], oldest)
			}
			oldest = e[len(e)-1]
		}
	}
	if first, year := epochs(t, read(t, s, "RECENT-1h.yaml")), epochs(t, read(t, s, "RECENT-1Y.yaml")); len(first) > 50 || len(year) < 50 {
		t.Errorf("%d events in an hour, %d in a year: the windows are all the same", len(first), len(year))
	}
}

// A window whose file is believed to be young, because a clock was wrong, is waited for by the one before it.
func TestRecentReachesBackToTheNextWindow(t *testing.T) {
	all := []event.Record{rec("a", file|0o644, 1, 0, 10)}
	s := newState(t, all...)
	_, err := Write(t.Context(), Recent, s)
	check(t, err)
	later := start.Add(365 * day)
	check(t, s.Root.Chtimes("RECENT-6h.yaml", later, later))
	s.Files = seq(nil, append(all, rec("b", file|0o644, 1, 0, 20), rec("c", file|0o644, 1, 0, 300))...)
	s.Now = start.Add(301 * time.Minute)
	_, err = Write(t.Context(), Recent, s)
	check(t, err)
	if d := cmp.Diff([]string{`new "c"`, `new "b"`, `new "a"`}, happened(t, s, "RECENT-1h.yaml")); d != "" {
		t.Error(d)
	}
	if text := read(t, s, "RECENT-1h.yaml"); !strings.Contains(text, "  merged:\n    epoch: \""+epochs(t, text)[2]+"\"\n    into_interval: 6h\n") {
		t.Errorf("what is in the next window is not told: %s", text)
	}
}

func TestRecentOfSomebodyElseIsReplaced(t *testing.T) {
	s := newState(t, rec("a", file|0o644, 1, 0, 11))
	check(t, s.Root.WriteFile("RECENT-1h.yaml", []byte(strings.Repeat("max: \"9999999999.1\"\n", 1000)), 0o644))
	check(t, s.Root.Symlink("/etc/passwd", "RECENT-6h.yaml"))
	check(t, s.Root.Symlink("RECENT-6h.yaml", "RECENT.recent"))
	changed, err := Write(t.Context(), Recent, s)
	check(t, err)
	if !slices.Contains(changed, "RECENT-1h.yaml") || !slices.Contains(changed, "RECENT-6h.yaml") || !slices.Contains(changed, "RECENT.recent") {
		t.Errorf("changed %q", changed)
	}
	if info, err := s.Root.Lstat("RECENT-6h.yaml"); err != nil || !info.Mode().IsRegular() {
		t.Errorf("%v %v", info, err)
	}
}

// Two paths whose hashes are equal have epochs of their own, the same in every list.
func TestEqualHashes(t *testing.T) {
	s := newState(t)
	all := []happening{{path: "b", serial: 7, hash: 5}, {path: "a", serial: 7, hash: 5}}
	if s.date(all); all[0].epoch != all[1].epoch || all[0].epoch != "1763752420.00000000000000700000000005" {
		t.Fatalf("%s %s", all[0].epoch, all[1].epoch)
	}
	apart(all)
	if s.date(all); all[0].epoch <= all[1].epoch {
		t.Errorf("%s before %s", all[0].epoch, all[1].epoch)
	}
	all[0].serial = 3
	if s.date(all); all[0].epoch != "0000000001.00000000000000300000000006" {
		t.Errorf("a time that is not known is %s", all[0].epoch)
	}
}

// FuzzHead: what a file in place says leads to no more than that it is written again.
func FuzzHead(f *testing.F) {
	f.Add("---\nmeta:\n  dirtymark: \"1\"\n  interval: 1h\n  minmax:\n    max: \"1.2\"\nrecent:\n  max: 3\n")
	f.Add("max: \"\\xzz\n")
	f.Fuzz(func(t *testing.T, text string) {
		h := parseHead(text, start)
		if len(h.max)+len(h.dirtymark)+len(h.interval) > 3*len(text) || h.written != start || h.events != nil {
			t.Errorf("%q is read as %+v", text, h)
		}
	})
}

func BenchmarkWrite(b *testing.B) {
	var all []event.Record
	for i := range 100_000 {
		all = append(all, rec(fmt.Sprintf("pool/%03d/package-%06d.rpm", i%100, i), file|0o644, int64(i), 100, event.Serial(i%1000)))
	}
	list := seq(nil, all...)
	for _, kind := range Kinds() {
		b.Run(kind, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				dir := b.TempDir()
				check(b, os.Mkdir(filepath.Join(dir, event.ExportDir), 0o755))
				root, err := os.OpenRoot(dir)
				check(b, err)
				_, err = Write(b.Context(), kind, State{Module: "m", Epoch: "0123abcd", Root: root, Files: list, Now: start,
					At: func(s event.Serial) time.Time { return start.Add(-time.Duration(1000-s) * time.Minute) }})
				check(b, err)
				check(b, root.Close())
			}
		})
	}
}
