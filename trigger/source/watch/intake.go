package watch

import (
	"slices"
	"sync"
	"time"

	"github.com/mirrorbus/mirrorbus/trigger/source/rules"
)

// An intake is where a backend says what happened. It knows what is announced at all, and is safe for use by two goroutines: a backend, and whoever
// announces.
type intake struct {
	rules  *rules.Rules
	export string   // relative path of what mirrorbus writes itself, if it lies in the tree
	own    []string // paths that the hub announces itself
	most   int      // names that are kept; beyond it the tree is scanned instead
	now    func() time.Time

	mu     sync.Mutex
	set    *pending
	scan   *errand   // a scan that is due, nil if none is
	unsure bool      // events may be missing, until a scan of everything has made up for them
	last   time.Time // when something happened
	bare   []string  // directories over which something was mounted that is gone: a backend may not watch them yet
	lost   int       // how often events were lost
	lostAt time.Time
}

// An errand is a scan, of some directories or of everything.
type errand struct {
	dirs []string // nil: everything
	why  string
}

// wants tells whether a change of path is announced.
func (in *intake) wants(path string, dir bool) bool {
	return path != "" && (in.export == "" || !contains([]string{in.export}, path)) && !slices.Contains(in.own, path) && in.rules.Announced(path, dir)
}

// touch says that something happened to a name.
func (in *intake) touch(path string, s said) {
	if !in.wants(path, s&isDir != 0) {
		return
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.set.touch(in.stir(), path, s)
}

// arrived says that a directory came from where nobody watches.
func (in *intake) arrived(path string) {
	if !in.wants(path, true) && !in.rules.Enters(path) {
		return
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.set.arrived(in.stir(), path)
}

// renamed says that a name became another. "" is one that is not in the tree.
func (in *intake) renamed(from, to string, s said) {
	dir := s&isDir != 0
	was, is := from != "" && in.wants(from, dir), to != "" && (in.wants(to, dir) || dir && in.rules.Enters(to))
	switch {
	case was && is:
		in.mu.Lock()
		defer in.mu.Unlock()
		in.set.renamed(in.stir(), from, to, s)
	case was:
		in.touch(from, left|s)
	case is && dir:
		in.arrived(to)
	case is:
		in.touch(to, came)
	}
}

// stir notes that something happened. Too many names are dropped, and a scan is due in their place.
func (in *intake) stir() time.Time {
	if len(in.set.items) > in.most {
		in.set.clear()
		in.need(errand{why: "more names wait than are kept"})
	}
	in.last = in.now()
	return in.last
}

// gap says that events were lost.
func (in *intake) gap(why string) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.last = in.now()
	in.lost++
	in.lostAt = in.last
	in.need(errand{why: why})
}

// uncovered takes the directories that have come to light.
func (in *intake) uncovered() []string {
	in.mu.Lock()
	defer in.mu.Unlock()
	dirs := in.bare
	in.bare = nil
	return dirs
}

// need has a scan made. The caller holds mu.
func (in *intake) need(e errand) {
	in.unsure = in.unsure || e.dirs == nil
	switch {
	case in.scan == nil || e.dirs == nil:
		in.scan = &e
	case in.scan.dirs != nil:
		in.scan = &errand{dirs: append(in.scan.dirs, e.dirs...), why: in.scan.why}
	}
}

// madeUp ends a scan of everything, unless another one is due already.
func (in *intake) madeUp() {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.scan == nil || in.scan.dirs != nil {
		in.unsure = false
		in.set.release(in.now())
	}
}
