package manifest_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/trigger/manifest"
	"github.com/mirrorbus/mirrorbus/trigger/source/sourcetest"
)

func compare(t testing.TB, m *manifest.Manifest, root string, dirs ...string) manifest.Difference {
	t.Helper()
	d, err := m.Compare(t.Context(), root, manifest.CompareOptions{Dirs: dirs}, nil)
	check(t, err)
	check(t, d.Set.Check())
	return d
}

// said writes each record as say reads it.
func said(set event.PathSet) []string {
	all := []string{}
	for _, r := range set {
		s := string(rune(r.Op)) + r.Path
		if r.From != "" {
			s += "<" + r.From
		}
		all = append(all, s)
	}
	return all
}

func within(root string, names ...string) string {
	return filepath.Join(append([]string{root}, names...)...)
}

func TestCompare(t *testing.T) {
	long := time.Now().Add(-time.Hour)
	for name, c := range map[string]struct {
		before []string
		change func(root string)
		want   []string
		found  manifest.Found
	}{
		"nothing":      {[]string{"a", "d/b"}, func(string) {}, []string{}, manifest.Found{}},
		"added":        {[]string{"a", "d/b"}, func(root string) { put(t, root, "d/c") }, []string{"+d/c"}, manifest.Found{Added: 1}},
		"a new folder": {[]string{"a"}, func(root string) { put(t, root, "x/y/z") }, []string{"+x", "+x/y", "+x/y/z"}, manifest.Found{Added: 3}},
		"an empty one": {[]string{"a"}, func(root string) { check(t, os.Mkdir(within(root, "x"), 0o755)) }, []string{"+x"}, manifest.Found{Added: 1}},
		"size":         {[]string{"a", "b"}, func(root string) { check(t, os.Truncate(within(root, "a"), 7)) }, []string{"+a"}, manifest.Found{Changed: 1}},
		"time alone":   {[]string{"a", "b"}, func(root string) { check(t, os.Chtimes(within(root, "a"), long, time.Now())) }, []string{"+a"}, manifest.Found{Changed: 1}},
		"mode":         {[]string{"a", "d/b"}, func(root string) { check(t, os.Chmod(within(root, "a"), 0o600)) }, []string{"=a"}, manifest.Found{Meta: 1}},
		"mode of a folder": {[]string{"a", "d/b"}, func(root string) { check(t, os.Chmod(within(root, "d"), 0o700)) }, []string{"=d"},
			manifest.Found{Meta: 1}},
		"time of a folder": {[]string{"a", "d/b"}, func(root string) { check(t, os.Chtimes(within(root, "d"), long, long)) }, []string{}, manifest.Found{}},
		"replaced": {[]string{"aa", "b"}, func(root string) { check(t, os.Rename(within(root, "aa"), within(root, "b"))) }, []string{"-aa", "+b"},
			manifest.Found{Changed: 1, Removed: 1}},
		"removed": {[]string{"a", "d/e/f", "d/g", "d-x"}, func(root string) { check(t, os.RemoveAll(within(root, "d"))) }, []string{"-d"},
			manifest.Found{Removed: 1}},
		"file in place of a folder": {[]string{"d/a"}, func(root string) { check(t, os.RemoveAll(within(root, "d"))); put(t, root, "d") }, []string{"+d"},
			manifest.Found{Changed: 1}},
		"folder in place of a file": {[]string{"d"}, func(root string) { check(t, os.Remove(within(root, "d"))); put(t, root, "d/a") }, []string{"+d", "+d/a"},
			manifest.Found{Changed: 1, Added: 1}},
		"link in place of a file": {[]string{"a", "b"}, func(root string) {
			check(t, os.Remove(within(root, "b")))
			check(t, os.Symlink("a", within(root, "b")))
		}, []string{"+b"}, manifest.Found{Changed: 1}},
		"link to elsewhere": {[]string{"a", "l@a"}, func(root string) {
			check(t, os.Remove(within(root, "l")))
			check(t, os.Symlink("bb", within(root, "l")))
		}, []string{"+l"}, manifest.Found{Changed: 1}},
		"pipe": {[]string{"a"}, func(root string) { check(t, unix.Mkfifo(within(root, "p"), 0o600)) }, []string{}, manifest.Found{}},
		"pipe in place of a file": {[]string{"a", "p"}, func(root string) {
			check(t, os.Remove(within(root, "p")))
			check(t, unix.Mkfifo(within(root, "p"), 0o600))
		}, []string{}, manifest.Found{}},
		"odd names": {[]string{"a\nb", "caf\xe9", "-x", "# y"}, func(root string) { check(t, os.Remove(within(root, "a\nb"))); put(t, root, "\xff\n") }, []string{"-a\nb", "+\xff\n"},
			manifest.Found{Added: 1, Removed: 1}},
		"ours":     {[]string{"a"}, func(root string) { put(t, root, ".mirrorbus/head") }, []string{}, manifest.Found{}},
		"new link": {[]string{"a", "b"}, func(root string) { check(t, os.Link(within(root, "a"), within(root, "c"))) }, []string{"+a", "+c"}, manifest.Found{Added: 1, Changed: 1}},
		"link gone": {[]string{"a", "b=a"}, func(root string) { check(t, os.Remove(within(root, "b"))) }, []string{"-b"},
			manifest.Found{Removed: 1}},
		"through one of two links": {[]string{"a", "b=a", "c"}, func(root string) { check(t, os.Chmod(within(root, "b"), 0o600)) }, []string{"=a", "=b"},
			manifest.Found{Meta: 2}},
		"renamed": {[]string{"a", "old/x", "old/s/y", "old/s/z"}, func(root string) { check(t, os.Rename(within(root, "old"), within(root, "new"))) }, []string{">new<old"},
			manifest.Found{Renamed: 1}},
		"renamed deep": {[]string{"a", "p/old/x", "p/old/y", "p/old/z", "q/r"}, func(root string) { check(t, os.Rename(within(root, "p/old"), within(root, "q/new"))) },
			[]string{">q/new<p/old"}, manifest.Found{Renamed: 1}},
		"renamed and changed": {[]string{"old/x", "old/y", "old/z"}, func(root string) {
			check(t, os.Rename(within(root, "old"), within(root, "new")))
			check(t, os.Chmod(within(root, "new/x"), 0o600))
		}, []string{"+new", "+new/x", "+new/y", "+new/z", "-old"}, manifest.Found{Added: 4, Removed: 1}},
		"renamed, and as many names": {[]string{"old/x", "old/y", "old/z"}, func(root string) {
			check(t, os.RemoveAll(within(root, "old")))
			put(t, root, "new/x", "new/y", "new/w")
		}, []string{"+new", "+new/w", "+new/x", "+new/y", "-old"}, manifest.Found{Added: 4, Removed: 1}},
		"renamed, too small to tell": {[]string{"old/x"}, func(root string) { check(t, os.Rename(within(root, "old"), within(root, "new"))) }, []string{"+new", "+new/x", "-old"},
			manifest.Found{Added: 2, Removed: 1}},
		"renamed, but which": {[]string{"one/x", "one/y", "one/z", "two/x", "two/y", "two/z"}, func(root string) {
			check(t, os.Rename(within(root, "one"), within(root, "uno")))
			check(t, os.Rename(within(root, "two"), within(root, "due")))
		}, []string{"+due", "+due/x", "+due/y", "+due/z", "-one", "-two", "+uno", "+uno/x", "+uno/y", "+uno/z"}, manifest.Found{Added: 8, Removed: 2}},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			grow(t, root, c.before, long)
			m := build(t, root, manifest.Options{})
			before := records(t, m, "")
			c.change(root)
			d := compare(t, m, root)
			if diff := cmp.Diff(c.want, said(d.Set)); diff != "" {
				t.Error(diff)
			}
			if d.Found != c.found || d.Whole {
				t.Errorf("found %+v, want %+v", d.Found, c.found)
			}
			if diff := cmp.Diff(before, records(t, m, "")); diff != "" {
				t.Errorf("the manifest was changed: %s", diff)
			}
		})
	}
}

// grow makes files of an old time; name@target is a symbolic link, name=other a hard link.
func grow(t testing.TB, root string, names []string, at time.Time) {
	t.Helper()
	for _, n := range names {
		if name, target, ok := strings.Cut(n, "@"); ok {
			check(t, os.Symlink(target, within(root, name)))
		} else if name, other, ok := strings.Cut(n, "="); ok {
			check(t, os.Link(within(root, other), within(root, name)))
		} else {
			put(t, root, n)
			check(t, os.Chtimes(within(root, n), at, at))
		}
	}
}

func TestCompareDirs(t *testing.T) {
	root := t.TempDir()
	put(t, root, "a", "d/b", "d/s/c", "e/f", "gone/x")
	m := build(t, root, manifest.Options{})
	put(t, root, "a2", "d/b2", "d/s/c2", "e/f2", "new/y/z")
	check(t, os.RemoveAll(within(root, "gone")))
	for _, c := range []struct {
		dirs string
		want string
	}{
		{"d", "+d/b2 +d/s/c2"}, {"d/s", "+d/s/c2"}, {"d d/s e", "+d/b2 +d/s/c2 +e/f2"}, {"gone", "-gone"}, {"gone/x gone/y", "-gone"}, {"new", "+new +new/y +new/y/z"},
		{"new/y", "+new/y +new/y/z"},
	} {
		if got := strings.Join(said(compare(t, m, root, strings.Fields(c.dirs)...).Set), " "); got != c.want {
			t.Errorf("%s: %s, want %s", c.dirs, got, c.want)
		}
	}
	if d := compare(t, m, root, "never", "d"); !slices.Equal(d.Unseen, []string{"never"}) || len(d.Set) != 2 {
		t.Errorf("of what never was: %+v", d)
	}
	check(t, os.RemoveAll(within(root, "e")))
	put(t, root, "e")
	if got := said(compare(t, m, root, "e").Set); !slices.Equal(got, []string{"+e"}) {
		t.Errorf("a directory that became a file: %q", got)
	}
}

// With more differences than it may hold, a comparison names directories; and if these are too many, it says that anything may have changed.
func TestCompareIsBounded(t *testing.T) {
	root := t.TempDir()
	put(t, root, "keep", "busy/x")
	m := build(t, root, manifest.Options{})
	for i := range 300 {
		put(t, root, fmt.Sprintf("new/%02d/f%03d", i/30, i), fmt.Sprintf("busy/f%03d", i))
	}
	for _, c := range []struct {
		perDir, limit int
		want          []string
	}{
		{10, 100, []string{"dbusy", "rnew"}}, {0, 100, []string{"rbusy", "rnew"}},
	} {
		d, err := m.Compare(t.Context(), root, manifest.CompareOptions{PerDirectory: c.perDir, Limit: c.limit}, nil)
		check(t, err)
		if got := said(d.Set); !slices.Equal(got, c.want) || d.Whole || d.Found.Added != 611 {
			t.Errorf("at most %d: %q, %+v", c.limit, got, d.Found)
		}
	}
	for i := range 50 {
		put(t, root, fmt.Sprintf("top%02d", i))
	}
	d, err := m.Compare(t.Context(), root, manifest.CompareOptions{PerDirectory: 10, Limit: 20}, nil)
	if err != nil || !d.Whole || d.Set != nil {
		t.Errorf("names of the module itself: %v, %+v", err, d)
	}
}

// A tree that is again as it was before what was announced last differs from what was announced.
func TestCompareThereAndBack(t *testing.T) {
	root := t.TempDir()
	put(t, root, "a", "d/b")
	m := build(t, root, manifest.Options{})
	for serial := event.Serial(1); serial <= 6; serial++ {
		check(t, os.Chmod(within(root, "d/b"), []os.FileMode{0o644, 0o600}[serial%2]))
		set := compare(t, m, root).Set
		if !slices.Equal(said(set), []string{"=d/b"}) {
			t.Fatalf("serial %d: %q", serial, said(set))
		}
		_, err := m.Apply(t.Context(), manifest.Change{Serial: serial, Set: set}, root)
		check(t, err)
		for range serial / 4 * 2 { // the first may note that they agree
			if got := said(compare(t, m, root).Set); len(got) > 0 {
				t.Fatalf("serial %d: still %q", serial, got)
			}
		}
	}
}

// However a tree was changed, what a comparison says makes the manifest what a fresh one would be, says nothing of what did not change, and leaves nothing to say.
func TestCompareSaysWhatDiffers(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 1))
			root := t.TempDir()
			s := sourcetest.NewShaker(t, root, rnd)
			put(t, root, "start")
			for range 60 {
				s.Step()
			}
			m := build(t, root, manifest.Options{})
			old := sourcetest.Look(t, root)
			for range 1 + rnd.IntN(30) {
				s.Step()
			}
			var o manifest.CompareOptions
			if seed%4 == 3 {
				o = manifest.CompareOptions{PerDirectory: 3, Limit: 12}
			}
			d, err := m.Compare(t.Context(), root, o, nil)
			check(t, err)
			if !d.Whole {
				check(t, d.Set.Check())
			}
			if o.Limit == 0 {
				for _, wrong := range old.Superfluous(sourcetest.Look(t, root), d.Set) {
					t.Error(wrong)
				}
			}
			_, err = m.Apply(t.Context(), manifest.Change{Serial: 1, Set: d.Set, Before: time.Now().Add(time.Hour)}, root)
			check(t, err)
			for _, wrong := range sourcetest.Agree(live(t, m), live(t, build(t, root, manifest.Options{}))) {
				t.Errorf("%s; announced %q", wrong, said(d.Set))
			}
			if again := compare(t, m, root); len(again.Set) > 0 {
				t.Errorf("left to say: %q", said(again.Set))
			}
		})
	}
}
