package replay_test

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/mirrorbus/mirrorbus/internal/replay"
	"github.com/mirrorbus/mirrorbus/trigger"
)

// makeTree fills root with about n files in a shape like a distribution's.
func makeTree(t testing.TB, root string, n int) {
	t.Helper()
	for i := range n {
		dir := filepath.Join(root, fmt.Sprintf("release%d/%c/pool%d", i%3, 'a'+rune(i%7), i%29))
		if i%10 == 0 {
			dir = filepath.Join(root, "source", fmt.Sprint(i%4))
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("f%05d", i)), fmt.Appendf(nil, "content %d\n", i), 0o644); err != nil {
			t.Fatal(err)
		}
		if i%50 == 0 {
			if err := os.Link(filepath.Join(dir, fmt.Sprintf("f%05d", i)), filepath.Join(root, fmt.Sprintf("linked-%05d", i))); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// facts tells of every name what a mirror must have of it.
func facts(t testing.TB, root string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(root, func(p string, e fs.DirEntry, err error) error {
		if err != nil || p == root {
			return err
		}
		fi, err := e.Info()
		if err != nil {
			return err
		}
		st := fi.Sys().(*syscall.Stat_t)
		is := fmt.Sprint(fi.Mode())
		if !fi.IsDir() {
			is += fmt.Sprint(" ", fi.Size(), " ", fi.ModTime().UnixNano(), " ", st.Ino)
		}
		all[strings.TrimPrefix(p, root+"/")] = is
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// covered tells whether the announced names speak for p.
func covered(said map[string]bool, p string) bool {
	if said["-"+p] || said["+"+p] || said["="+p] || said["./"+p] {
		return true
	}
	for above := p; above != "."; above = path.Dir(above) {
		if said["r:"+above] || said["-"+above] || above != p && said["./"+above] {
			return true
		}
	}
	return false
}

// What a day does to the tree and what it says of it agree: each change is covered by a name, and publish takes every name.
func TestEveryChangeIsNamed(t *testing.T) {
	root := t.TempDir()
	makeTree(t, root, 400)
	day, err := replay.Begin(root, 1)
	if err != nil {
		t.Fatal(err)
	}
	opened, err := os.OpenRoot(root)
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close() //nolint:errcheck // it was only read
	seen := map[string]bool{}
	before := facts(t, root)
	for range 150 {
		b, err := day.Next()
		if err != nil {
			t.Fatal(err)
		}
		for kind := range strings.SplitSeq(b.Kind, ", ") {
			seen[kind] = true
		}
		names, err := day.Names(b)
		if err != nil {
			t.Fatal(err)
		}
		said, parsed := map[string]bool{}, []trigger.Name{}
		for _, n := range names {
			said[n] = true
			parsed = append(parsed, trigger.ParseName(n))
		}
		if _, err := trigger.Resolve(opened, parsed, nil); err != nil {
			t.Fatalf("%s: %v", b.Kind, err)
		}
		after := facts(t, root)
		for p, is := range after {
			if before[p] != is && !covered(said, p) {
				t.Errorf("%s: %q was %q and is %q, and nothing says so", b.Kind, p, before[p], is)
			}
		}
		for p := range before {
			if after[p] == "" && !covered(said, p) {
				t.Errorf("%s: %q is gone, and nothing says so", b.Kind, p)
			}
		}
		before = after
	}
	if len(seen) < 20 {
		t.Errorf("only %d kinds of changes were made: %v", len(seen), seen)
	}
}

// What an index has named stays for as many further issues as the day keeps it.
func TestWhatAnIndexHasNamedStays(t *testing.T) {
	for _, keeps := range []int{0, 3} {
		root := t.TempDir()
		makeTree(t, root, 400)
		day, err := replay.Begin(root, 1)
		if err != nil {
			t.Fatal(err)
		}
		day.Keeps = keeps
		most := 0
		for range 300 {
			if _, err := day.Next(); err != nil {
				t.Fatal(err)
			}
			lists, err := filepath.Glob(filepath.Join(root, replay.Repos, "0", "repodata", "*-primary"))
			if err != nil || len(lists) < most {
				t.Fatalf("%d lists after %d, %v", len(lists), most, err)
			}
			most = len(lists)
		}
		if most != keeps+1 {
			t.Errorf("%d lists are there in the end, want the one that is named and %d before it", most, keeps)
		}
	}
}
