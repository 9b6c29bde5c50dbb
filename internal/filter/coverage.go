package filter

// Coverage says how much of what may lie below a directory is carried.
type Coverage uint8

// The coverages. Mixed also stands for "not known from the rules alone".
const (
	Mixed Coverage = iota
	All            // every name below, at any depth
	None           // no name below
)

func (c Coverage) String() string {
	return [...]string{"mixed", "all", "none"}[c]
}

// Below tells how much of what may lie below dir, itself apart, is Included. All and None are certain for any names; Mixed may be too careful.
func (r *Rules) Below(dir string) Coverage {
	if r.empty() {
		return All
	}
	if isRoot(dir) {
		dir = ""
	}
	switch {
	case !r.Included(dir, true):
		return None
	case r.onlyBelow(dir, true, false): // rsync does not look below children that are excluded
		return None
	case r.onlyBelow(dir, false, true):
		return All
	}
	return Mixed
}

// onlyBelow tells whether the rules certainly give every name below dir, or every child of it, the verdict include.
func (r *Rules) onlyBelow(dir string, children, include bool) bool {
	for i := range r.list {
		x := &r.list[i]
		if !x.sender {
			continue
		}
		switch x.pattern.below(dir, children) {
		case always:
			return x.include == include
		case maybe:
			if x.include != include {
				return false
			}
		}
	}
	return include // what no rule matches is carried
}

// A relation says which of the names below a directory a pattern matches.
type relation uint8

const (
	maybe relation = iota
	always
	never
)

// below relates the pattern to the children of dir, or to all names below it at any depth.
func (p *pattern) below(dir string, children bool) relation {
	rel := p.selectsBelow(dir, children)
	if p.dirOnly && rel == always {
		rel = maybe
	}
	if !p.negate || rel == maybe {
		return rel
	}
	return always + never - rel
}

func (p *pattern) selectsBelow(dir string, children bool) relation {
	prefix := dir
	if dir != "" {
		prefix += "/"
	}
	if p.begin == beginLast {
		if len(p.tokens) == 1 && p.tokens[0].kind == star {
			return always
		}
		if !children {
			return maybe // it begins at an element below dir that is not known
		}
		start := 0
		if p.elems > 1 {
			if start = lastElements(dir, p.elems-1); dir == "" || start < 0 {
				return never
			}
		} else {
			start = len(prefix)
		}
		prefix = prefix[start:]
	}
	var room [2][64]int
	run := p.start(room[0][:0], room[1][:0]).text(prefix)
	switch {
	case len(run.now) == 0:
		return never
	case run.endsIn(starStar), children && run.endsIn(star):
		return always
	}
	return maybe
}
