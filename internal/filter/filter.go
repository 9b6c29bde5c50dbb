// Package filter decides with rsync's filter rules which paths of a module a mirror carries, exactly as a recursive rsync with the same rules
// would, so that a plan made from announced names and a full rsync never disagree.
//
// The rules are those of rsync(1), FILTER RULES:
//
//   - PATTERN, include PATTERN    copy it, and let it be deleted
//   - PATTERN, exclude PATTERN    do not copy it, and protect it from deletion
//     S, show · H, hide             the same for copying alone
//     R, risk · P, protect          the same for deletion alone
//     !, clear                      forget the rules above
//
// Of the modifiers, + and - take s (copying alone), r (deletion alone), p (no protection in a directory that is itself deleted) and ! (what does not match). Refused,
// because the answer would depend on something that is not in the rule: merge and dir-merge (and their modifiers e, n, w), C (CVS rules), x
// (extended attributes) and / (paths of the master's file system). Patterns that rsync accepts but that can never match, such as an unclosed
// bracket, are refused too.
package filter

import (
	"slices"
	"strings"
	"sync/atomic"
)

// Rules is an ordered list of filter rules; the first that matches decides and what none matches is carried. The zero value and nil carry
// everything. Rules do not change after Parse and may be used by several goroutines.
type Rules struct {
	list []rule
	last atomic.Pointer[folder] // the directory of the path that was asked about last: the next one is mostly in it too
}

// A folder is a directory and whether it is Included.
type folder struct {
	path     string
	included bool
}

// A rule is one line.
type rule struct {
	pattern    pattern
	text       string // as rsync takes it after --filter=
	include    bool
	sender     bool // decides what is copied
	receiver   bool // decides what may be deleted
	perishable bool // no say in a directory that is being deleted
}

// Included tells whether a recursive rsync of the module with these rules copies path: no directory above it is excluded and neither is path
// itself. The path is relative to the module, clean, without trailing slash and of any bytes; "" and "." are the module's root.
func (r *Rules) Included(path string, isDir bool) bool {
	if r.empty() || isRoot(path) {
		return true
	}
	return r.reaches(path[:max(strings.LastIndexByte(path, '/'), 0)]) && r.carries(path, isDir)
}

// reaches tells whether a directory is Included.
func (r *Rules) reaches(dir string) bool {
	if dir == "" {
		return true
	}
	if known := r.last.Load(); known != nil && known.path == dir {
		return known.included
	}
	included := true
	for i := 0; i < len(dir) && included; i++ {
		included = dir[i] != '/' || r.carries(dir[:i], true)
	}
	included = included && r.carries(dir, true)
	r.last.Store(&folder{dir, included})
	return included
}

// Protected tells whether a recursive rsync --delete with these rules leaves path alone although the upstream lacks it. It takes for granted
// that the directories above path still exist upstream, where the rules do not hide them: a directory that goes is asked about by its own name.
func (r *Rules) Protected(path string, isDir bool) bool {
	if r.empty() || isRoot(path) {
		return false
	}
	goes := false // some directory above path is hidden, so rsync is about to delete it with all that is below
	for i := range len(path) {
		if path[i] != '/' {
			continue
		}
		hidden := goes || !r.carries(path[:i], true)
		if hidden && r.protects(path[:i], true, goes) {
			return true
		}
		goes = hidden
	}
	return r.protects(path, isDir, goes)
}

// Args returns the rules as arguments for a recursive rsync of the whole module, one --filter=RULE each. They must not be passed beside
// --files-from: rsync ends with code 4 when a listed file lies below an excluded directory.
func (r *Rules) Args() []string {
	if r.empty() {
		return nil
	}
	args := make([]string, len(r.list))
	for i := range r.list {
		args[i] = "--filter=" + r.list[i].text
	}
	return args
}

// String returns the rules, one a line, as Parse would take them.
func (r *Rules) String() string {
	if r.empty() {
		return ""
	}
	lines := make([]string, len(r.list))
	for i := range r.list {
		lines[i] = r.list[i].text
	}
	return strings.Join(lines, "\n")
}

func (r *Rules) empty() bool { return r == nil || len(r.list) == 0 }

func isRoot(path string) bool { return path == "" || path == "." }

// carries asks the sender's rules about path alone.
func (r *Rules) carries(path string, isDir bool) bool {
	i := slices.IndexFunc(r.list, func(x rule) bool { return x.sender && x.pattern.matches(path, isDir) })
	return i < 0 || r.list[i].include
}

// protects asks the receiver's rules about path alone; goes says that the directory it is in is being deleted.
func (r *Rules) protects(path string, isDir, goes bool) bool {
	i := slices.IndexFunc(r.list, func(x rule) bool {
		return x.receiver && !(goes && x.perishable) && x.pattern.matches(path, isDir)
	})
	return i >= 0 && !r.list[i].include
}
