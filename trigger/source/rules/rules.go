// Package rules says which names of a tree are announced as they change, and which directories need not be looked into at all.
//
// There are two lists, and a name must pass both: rsync's filter rules (see internal/filter), and regular expressions for what those cannot say. Each of
// the latter is a sign, the kind of thing it is about, and the expression, which may match anywhere in the path:
//
//	+f\.rpm$        files whose name ends in .rpm are announced
//	-*(^|/)\.git/   nothing below a directory .git is
//	-w^incoming$    the directory incoming is not looked into; nothing below it is announced
//
// Kinds are f (what is no directory), d (a directory itself), * (both) and w (looking into a directory). The first that matches decides; what none
// matches is announced.
package rules

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/filter"
)

// Rules decide about names. nil announces everything but what is never announced. They do not change, and may be used by several goroutines.
type Rules struct {
	filter *filter.Rules
	list   []rule
}

type rule struct {
	include bool
	kind    byte
	expr    *regexp.Regexp
}

// maxRule is the longest rule in bytes.
const maxRule = 4096

// transient are folders of rsync's in which files wait for their place: of --delay-updates and of --partial-dir as its manual has it.
var transient = [...]string{".~tmp~", ".rsync-partial"}

// New makes rules of filter rules, nil for none, and expressions. An error names the expression and its number, counted from 1.
func New(f *filter.Rules, expressions []string) (*Rules, error) {
	r := &Rules{filter: f}
	for i, text := range expressions {
		x, err := parse(text)
		if err != nil {
			return nil, fmt.Errorf("rule %d %.200q: %w", i+1, text, err)
		}
		r.list = append(r.list, x)
	}
	return r, nil
}

func parse(text string) (rule, error) {
	switch {
	case len(text) > maxRule:
		return rule{}, fmt.Errorf("is %d bytes, at most %d", len(text), maxRule)
	case len(text) < 3 || text[0] != '+' && text[0] != '-':
		return rule{}, errors.New(`must be + or -, the kind (f, d, w or *) and an expression, as in "-f\\.tmp$"`)
	case strings.IndexByte("fdw*", text[1]) < 0:
		return rule{}, fmt.Errorf("unknown kind %q; the kinds are f, d, w and *", text[1])
	}
	expr, err := regexp.Compile(text[2:])
	return rule{include: text[0] == '+', kind: text[1], expr: expr}, err
}

// All tells whether everything is announced, but for what never is.
func (r *Rules) All() bool {
	return r == nil || len(r.list) == 0 && r.filter.Below("") == filter.All
}

// Announced tells whether a change of path is announced. The path is relative to the tree, and of any bytes.
func (r *Rules) Announced(path string, isDir bool) bool {
	if never(path) {
		return false
	}
	if r == nil {
		return true
	}
	if !r.filter.Included(path, isDir) {
		return false
	}
	for i := range len(path) {
		if path[i] == '/' && !r.says(path[:i], "w") {
			return false
		}
	}
	if isDir {
		return r.says(path, "d*")
	}
	return r.says(path, "f*")
}

// Enters tells whether anything below the directory may be announced. It errs on the side of true.
func (r *Rules) Enters(dir string) bool {
	switch {
	case dir == "":
		return true
	case never(dir):
		return false
	case r == nil:
		return true
	case r.filter.Below(dir) == filter.None:
		return false
	}
	for i := range len(dir) {
		if dir[i] == '/' && !r.says(dir[:i], "w") {
			return false
		}
	}
	return r.says(dir, "w")
}

// says is what the first of the expressions of these kinds that matches says.
func (r *Rules) says(path, kinds string) bool {
	for _, x := range r.list {
		if strings.IndexByte(kinds, x.kind) >= 0 && x.expr.MatchString(path) {
			return x.include
		}
	}
	return true
}

// never tells whether path is, or is below, what no rule could have announced.
func never(path string) bool {
	if path == event.ExportDir || event.Under(event.ExportDir, path) {
		return true
	}
	if !strings.Contains(path, transient[0]) && !strings.Contains(path, transient[1]) {
		return false
	}
	for part := range strings.SplitSeq(path, "/") {
		for _, t := range transient {
			if part == t {
				return true
			}
		}
	}
	return false
}
