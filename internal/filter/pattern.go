package filter

import "strings"

// A pattern is a compiled rsync pattern: a list of tokens that is run as a non-deterministic automaton over the bytes of a path. State i means:
// tokens before i have matched. So matching costs at most bytes × tokens, whatever the pattern.
type pattern struct {
	tokens []token
	begin  begin
	elems  int // for beginLast: how many elements of the path, counted from its end, the pattern is matched against

	needs string // what every path that it matches holds: most paths are told by that

	virtualSlash bool // the path is matched with a slash before it: "**/foo" covers foo at the top
	dirSlash     bool // a directory is matched with a slash after it: "foo/***" covers foo
	dirOnly      bool // only directories match
	negate       bool // the rule is for what does not match
}

// begin says where in a path a pattern may begin to match.
type begin uint8

const (
	beginTop  begin = iota // at the start of the path
	beginAny               // at the start of any element
	beginLast              // at the start of the last elems elements
)

// A token matches one byte, or any number of them if it is a star.
type token struct {
	kind tokenKind
	char byte
	set  *charSet
}

type tokenKind uint8

const (
	literal  tokenKind = iota
	anyChar            // ?
	class              // [...]
	star               // *: anything within an element
	starStar           // **: anything
)

// accepts tells whether the token can stand for c.
func (t token) accepts(c byte) bool {
	switch t.kind {
	case literal:
		return c == t.char
	case anyChar, star:
		return c != '/'
	case class:
		return c != '/' && t.set.has(c)
	}
	return true
}

func (t token) isStar() bool { return t.kind == star || t.kind == starStar }

// matches tells whether the pattern selects path, without regard to the directories above it.
func (p *pattern) matches(path string, isDir bool) bool {
	return p.selects(path, isDir) != p.negate
}

func (p *pattern) selects(path string, isDir bool) bool {
	if p.dirOnly && !isDir || !strings.Contains(path, p.needs) {
		return false
	}
	if p.begin == beginLast {
		start := lastElements(path, p.elems)
		if start < 0 {
			return false
		}
		path = path[start:]
	}
	var room [2][64]int
	run := p.start(room[0][:0], room[1][:0]).text(path)
	if isDir && p.dirSlash {
		run = run.step('/')
	}
	return run.done()
}

// lastElements returns where the last n elements of path begin, -1 if it has fewer.
func lastElements(path string, n int) int {
	at := len(path)
	for ; n > 0; n-- {
		if at < 0 {
			return -1
		}
		at = strings.LastIndexByte(path[:at], '/')
	}
	if at < 0 {
		return 0
	}
	return at + 1
}

// A run is the automaton of a pattern at some byte of a path. It is handed on by its value: so what start was lent stays on the caller's stack.
type run struct {
	p    *pattern
	now  []int // the active states in ascending order
	next []int
}

// start returns p before the first byte; the two slices lend their memory.
func (p *pattern) start(now, next []int) run {
	r := run{p: p, now: p.enter(now, 0), next: next}
	if p.virtualSlash {
		r = r.step('/')
	}
	return r
}

// enter adds state i, and the one after it if i is a star, which may match nothing. Two stars never follow each other, and states come in such
// an order that what is not above the last one is there already.
func (p *pattern) enter(states []int, i int) []int {
	last := -1
	if len(states) > 0 {
		last = states[len(states)-1]
	}
	if i > last {
		states = append(states, i)
	}
	if i < len(p.tokens) && p.tokens[i].isStar() && i+1 > last {
		states = append(states, i+1)
	}
	return states
}

// step feeds one byte.
func (r run) step(c byte) run {
	next := r.next[:0]
	if c == '/' && r.p.begin == beginAny {
		next = r.p.enter(next, 0)
	}
	for _, i := range r.now {
		if i == len(r.p.tokens) || !r.p.tokens[i].accepts(c) {
			continue
		}
		if r.p.tokens[i].isStar() {
			next = r.p.enter(next, i)
		} else {
			next = r.p.enter(next, i+1)
		}
	}
	return run{p: r.p, now: next, next: r.now}
}

// text feeds the bytes of s and stops early when no state is left that could match.
func (r run) text(s string) run {
	for i := range len(s) {
		if len(r.now) == 0 && r.p.begin != beginAny {
			break
		}
		r = r.step(s[i])
	}
	return r
}

// done tells whether the bytes so far match the whole pattern.
func (r run) done() bool {
	return len(r.now) > 0 && r.now[len(r.now)-1] == len(r.p.tokens)
}

// endsIn tells whether the automaton stands in a final star of this kind: then anything that it accepts may follow.
func (r run) endsIn(kind tokenKind) bool {
	last := len(r.p.tokens) - 1
	for _, i := range r.now {
		if i == last && r.p.tokens[i].kind == kind {
			return true
		}
	}
	return false
}
