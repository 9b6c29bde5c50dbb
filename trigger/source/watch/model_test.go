package watch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/fault"
)

// A model is an announcer that knows of a tree what was announced of it, as mirrors do: what is true of the names, and nothing else.
type model struct {
	t    testing.TB
	root string

	mu     sync.Mutex
	known  map[string]string
	asked  [][]Name // each time it was asked to announce
	scans  []string // why it was asked to scan
	scope  [][]string
	serial event.Serial
	down   error            // what it answers instead
	refuse func(Name) error // names it will not have
	slow   time.Duration    // how long a scan takes
	hold   chan struct{}    // a scan takes until it is closed
}

func newModel(t testing.TB, root string) *model {
	return &model{t: t, root: root, known: map[string]string{}}
}

// describe says what is true of a path: "" if it is not there. Times of directories change with what is in them, and do not count.
func describe(full string) string {
	fi, err := os.Lstat(full)
	switch {
	case err != nil:
		return ""
	case fi.IsDir():
		return fi.Mode().String()
	case fi.Mode()&fs.ModeSymlink != 0:
		target, _ := os.Readlink(full)
		return "link to " + target
	}
	content, _ := os.ReadFile(full)
	return fmt.Sprintf("%v %d %v %.20q", fi.Mode(), fi.Size(), fi.ModTime().UnixNano(), content)
}

// tree describes everything below dir.
func tree(root, dir string) map[string]string {
	all := map[string]string{}
	root, err := filepath.EvalSymlinks(root)
	if err != nil {
		return all
	}
	filepath.WalkDir(filepath.Join(root, dir), func(full string, _ fs.DirEntry, err error) error { //nolint:errcheck // what cannot be read is not there
		if path := strings.TrimPrefix(strings.TrimPrefix(full, root), "/"); err == nil && path != "" {
			all[path] = describe(full)
		}
		return nil
	})
	return all
}

// Announce implements Announcer.
func (m *model) Announce(_ context.Context, names []Name) (event.Serial, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down != nil {
		return 0, m.down
	}
	seen := map[string]bool{}
	for _, n := range names {
		if err := event.CheckPath(n.Path); err != nil || seen[n.Path] {
			m.t.Errorf("asked to announce %q: %v, twice: %v", n.Path, err, seen[n.Path])
		}
		seen[n.Path] = true
		if m.refuse != nil {
			if err := m.refuse(n); err != nil {
				return 0, fault.With(err, fault.Usage, "")
			}
		}
	}
	m.asked = append(m.asked, slices.Clone(names))
	for _, n := range names {
		m.take(n)
	}
	m.serial++
	return m.serial, nil
}

func (m *model) take(n Name) {
	if n.Op == event.Renamed {
		m.drop(n.From)
	}
	is := describe(filepath.Join(m.root, n.Path))
	switch {
	case is == "":
		m.drop(n.Path)
	case n.Op == event.Tree || n.Op == event.Renamed:
		m.drop(n.Path)
		maps.Copy(m.known, tree(m.root, n.Path))
	default:
		if before := m.known[n.Path]; before != "" && strings.HasPrefix(before, "d") != strings.HasPrefix(is, "d") {
			m.drop(n.Path)
		}
		m.known[n.Path] = is
		m.others(n.Path)
	}
}

// others looks at the other names of a file too, as the hub does.
func (m *model) others(path string) {
	fi, err := os.Lstat(filepath.Join(m.root, path))
	if err != nil || fi.IsDir() || fi.Sys().(*syscall.Stat_t).Nlink < 2 {
		return
	}
	for p := range m.known {
		if other, err := os.Lstat(filepath.Join(m.root, p)); err == nil && os.SameFile(fi, other) {
			m.known[p] = describe(filepath.Join(m.root, p))
		}
	}
}

// drop forgets a path and what is below it.
func (m *model) drop(path string) {
	delete(m.known, path)
	for p := range m.known {
		if event.Under(path, p) {
			delete(m.known, p)
		}
	}
}

// Scan implements Announcer.
func (m *model) Scan(_ context.Context, dirs []string, why string) (event.Serial, error) {
	var slow time.Duration
	var hold chan struct{}
	m.set(func() { slow, hold = m.slow, m.hold })
	time.Sleep(slow) // as a hub that has much to compare
	if hold != nil {
		<-hold
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down != nil {
		return 0, m.down
	}
	m.scans, m.scope = append(m.scans, why), append(m.scope, dirs)
	if dirs == nil {
		m.known = tree(m.root, "")
		return m.serial, nil
	}
	for _, d := range dirs {
		m.drop(d)
		maps.Copy(m.known, tree(m.root, d))
	}
	return m.serial, nil
}

// differs is what of the tree the model does not know as it is, by rules for names; nil if nothing.
func (m *model) differs(counts func(path string) bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	is := tree(m.root, "")
	var all []string
	for p, d := range is {
		if counts(p) && m.known[p] != d {
			all = append(all, fmt.Sprintf("%q is %s, known as %q", p, d, m.known[p]))
		}
	}
	for p, d := range m.known {
		if counts(p) && is[p] == "" {
			all = append(all, fmt.Sprintf("%q is not there, known as %s", p, d))
		}
	}
	if len(all) == 0 {
		return nil
	}
	slices.Sort(all)
	return errors.New(strings.Join(all[:min(len(all), 10)], "\n"))
}

func everyName(string) bool { return true }

// names are all names that were announced since the n-th time.
func (m *model) names(n int) []Name {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []Name
	for _, a := range m.asked[n:] {
		all = append(all, a...)
	}
	return all
}

func (m *model) times() (announced, scanned int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.asked), len(m.scans)
}

func (m *model) set(change func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change()
}
