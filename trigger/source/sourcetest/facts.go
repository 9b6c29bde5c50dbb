package sourcetest

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/mirrorbus/mirrorbus/event"
)

// Facts are what is true of a tree, by path. The times of directories are left out: they change with what is in them, and nobody announces them.
type Facts map[string]string

// Look finds the facts of the tree at root.
func Look(t testing.TB, root string) Facts {
	t.Helper()
	f, first := Facts{}, map[uint64]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		rel := path[len(root)+1:]
		if rel == event.ExportDir {
			return fs.SkipDir
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		f[rel] = fmt.Sprintf("mode %o", st.Mode)
		if !info.IsDir() {
			if _, seen := first[st.Ino]; !seen {
				first[st.Ino] = rel
			}
			f[rel] += fmt.Sprintf(" size %d time %d.%d of %q", st.Size, st.Mtim.Sec, st.Mtim.Nsec, first[st.Ino])
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// Superfluous lists the records of set that say nothing new of a tree that was f and is now now. What is in touched counts as changed.
func (f Facts) Superfluous(now Facts, set event.PathSet, touched ...string) (wrong []string) {
	changed := func(path string) bool { return f[path] != now[path] || slices.Contains(touched, path) }
	within := func(dir string) bool {
		return slices.ContainsFunc(touched, func(p string) bool { return event.Under(dir, p) }) || f.anyBelow(now, dir) || now.anyBelow(f, dir)
	}
	groups := map[uint64]bool{} // of links, of which one name has changed
	for _, r := range set {
		groups[r.Link] = groups[r.Link] || r.Link != 0 && changed(r.Path)
	}
	for _, r := range set {
		wide := r.Op == event.Level || r.Op == event.Tree || r.Op == event.Renamed
		if r.Op == event.Gone && now[r.Path] == "" && slices.ContainsFunc(touched, func(p string) bool { return event.Under(p, r.Path) }) {
			continue // it came and went in a directory that was moved meanwhile, so that it seems to have had another name
		}
		if !changed(r.Path) && !groups[r.Link] && !(wide && within(r.Path)) {
			wrong = append(wrong, fmt.Sprintf("%c%q is announced, and did not change: it is %s", r.Op, r.Path, now[r.Path]))
		}
	}
	return wrong
}

// differing are the paths that are not in other as they are in f.
func (f Facts) differing(other Facts) (paths []string) {
	for path, is := range f {
		if other[path] != is {
			paths = append(paths, path)
		}
	}
	return paths
}

// anyBelow tells whether something below dir is not in other as it is in f.
func (f Facts) anyBelow(other Facts, dir string) bool {
	for path, is := range f {
		if event.Under(dir, path) && other[path] != is {
			return true
		}
	}
	return false
}

// Agree lists how what a manifest has differs from what it should have, but for the times of directories. Numbers of links count by the names that
// share them.
func Agree(got, want []event.Record) (wrong []string) {
	have, should := plain(got), plain(want)
	for path, is := range should {
		if have[path] != is {
			wrong = append(wrong, fmt.Sprintf("%q is %q, not %q", path, have[path], is))
		}
	}
	for path, is := range have {
		if _, ok := should[path]; !ok {
			wrong = append(wrong, fmt.Sprintf("%q is %q, and should not be", path, is))
		}
	}
	slices.Sort(wrong)
	return wrong
}

func plain(records []event.Record) map[string]string {
	groups := map[uint64][]string{}
	for _, r := range records {
		groups[r.Link] = append(groups[r.Link], r.Path)
	}
	all := map[string]string{}
	for _, r := range records {
		if r.Op == event.Gone {
			continue
		}
		s := fmt.Sprintf("mode %o size %d", r.Mode, r.Size)
		if !r.IsDir() {
			s += " time " + r.MTime.String()
		}
		if names := groups[r.Link]; r.Link != 0 && len(names) > 1 {
			s += fmt.Sprintf(" with %q", strings.Join(names, " "))
		}
		all[r.Path] = s
	}
	return all
}
