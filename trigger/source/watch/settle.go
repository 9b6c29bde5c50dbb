package watch

import (
	"cmp"
	"slices"
	"time"
)

// A said is what an event said of a name. Several that the kernel merged come as one, without their order.
type said uint8

const (
	born   said = 1 << iota // it was made
	left                    // it was removed, or moved away
	met                     // it was found in a directory that had not been watched
	closed                  // who wrote it has closed it
	came                    // it was moved here, whole
	isDir                   // it is, or was, a directory
)

// An item is a name of which something may have changed.
type item struct {
	since time.Time // of its first event
	until time.Time // it is held back until then; zero if it is not
	from  string    // a directory that was called so before
	waits bool      // it is held back for a scan
	tree  bool      // everything below may be new: moved in from outside
	born  bool      // a directory that was made since
	left  bool
	whole bool // a directory of that name has left, and with it what was below
	open  bool // made, and not closed yet by who writes it
	seen  look // what it was when it was last looked at, because it is open
	tries int  // how often it was refused
}

// A pending is the set of names that wait to be announced: which ones, and when. It is told of events and of the time, does no I/O, and costs the same
// for each event however many names wait.
//
// What waits is announced together once nothing has happened for Quiet, or AtMost after the first event. A name that was announced again and again in
// the last moments is hot: it is held back for longer and longer, unless it is an index.
type pending struct {
	timing Timing
	index  func(path string) bool // names that are never hot; nil: there are none
	items  map[string]*item
	held   map[string]*item // those of items that are held back: few
	oldest time.Time        // event of what is not held back; zero if there is none
	newest time.Time        // likewise
	heat   map[string]heat
	swept  time.Time // when heat was last rid of what has cooled down
}

// A heat is how often a name was announced of late.
type heat struct {
	last  time.Time
	times int
	hold  time.Duration
}

func newPending(t Timing) *pending {
	return &pending{timing: t, items: map[string]*item{}, held: map[string]*item{}, heat: map[string]heat{}}
}

// touch notes what an event said of a name.
func (p *pending) touch(now time.Time, path string, s said) *item {
	it := p.items[path]
	if it == nil {
		it = &item{since: now, born: s&(born|left) == born} // made and removed in one event: perhaps the other way round
		p.items[path] = it
	}
	if it.open && s&closed != 0 { // what it was held back for is over
		it.until = time.Time{}
		delete(p.held, path)
	}
	p.stir(now, it)
	it.left = it.left || s&left != 0
	it.whole = it.whole || s&(left|isDir) == left|isDir
	switch {
	case s&(closed|came|isDir) != 0:
		it.open = false
	case s&(born|met) != 0:
		it.open = true
	}
	return it
}

// stir starts the clocks of what waits.
func (p *pending) stir(now time.Time, it *item) {
	if !it.until.IsZero() {
		return
	}
	p.newest = now
	if p.oldest.IsZero() {
		p.oldest = now
	}
}

// arrived notes that a directory has come from where nobody watches.
func (p *pending) arrived(now time.Time, path string) {
	p.touch(now, path, came|isDir).tree = true
}

// renamed notes that from is called to now.
func (p *pending) renamed(now time.Time, from, to string, s said) {
	old := p.items[from]
	if s&isDir == 0 {
		open := old != nil && old.open
		p.touch(now, from, left)
		p.touch(now, to, came).open = open
		return
	}
	before := from
	switch {
	case old != nil && (old.tree || old.born && old.from == ""): // whose mirrors never had it under that name
		before = ""
	case old != nil && old.from != "":
		before = old.from
	}
	p.touch(now, from, left|isDir)
	p.items[from].from, p.items[from].tree = "", false
	it := p.touch(now, to, came|isDir)
	if before == to { // and back again
		before = ""
	}
	it.from, it.tree = before, before == ""
}

// due is when the next names are to be announced. ok is false if none wait.
func (p *pending) due(now time.Time) (at time.Time, ok bool) {
	if fresh := len(p.items) - len(p.held); fresh > 0 {
		at, ok = p.newest.Add(p.timing.Quiet), true
		if limit := p.oldest.Add(p.timing.AtMost); limit.Before(at) {
			at = limit
		}
		if fresh >= p.timing.Burst {
			at = now
		}
	}
	for _, it := range p.held {
		if !ok || it.until.Before(at) {
			at, ok = it.until, true
		}
	}
	return at, ok
}

// An entry is a name on its way out.
type entry struct {
	path string
	*item
}

// take removes and returns what is to be announced now, directories before what is below them: what is not held back, and what no longer is; all of it
// if everything is asked for. hot are the names that have just become hot.
func (p *pending) take(now time.Time, everything bool) (out []entry, hot []string) {
	bulk := len(p.items)-len(p.held) > bulkNames
	for path, it := range p.items {
		switch {
		case everything:
		case !it.until.IsZero() && it.until.After(now):
			continue
		case it.until.IsZero() && !bulk && !p.isIndex(path):
			if until, first := p.tooHot(now, path); until.After(now) {
				if first {
					hot = append(hot, path)
				}
				p.hold(path, it, until)
				continue
			}
		}
		out = append(out, entry{path, it})
	}
	for _, e := range out {
		p.remove(e)
	}
	p.oldest = time.Time{}
	slices.SortFunc(out, func(a, b entry) int { return byTree(a.path, b.path) })
	return out, hot
}

// isIndex tells whether a name is one of a file that names others. It is not held back: what it named before goes, and that is announced.
func (p *pending) isIndex(path string) bool { return p.index != nil && p.index(path) }

func (p *pending) remove(e entry) {
	delete(p.items, e.path)
	delete(p.held, e.path)
	e.until, e.waits = time.Time{}, false
}

func (p *pending) hold(path string, it *item, until time.Time) {
	it.until = until
	p.held[path] = it
}

// bulkNames is a batch whose names cannot become hot, so that a large change does not make a large memory of it.
const bulkNames = 10_000

// tooHot is until when a name is to be held back, and whether that is new. What was announced HotAfter times, each soon after the one before, is held back
// for AtMost, and each time for twice as long.
func (p *pending) tooHot(now time.Time, path string) (until time.Time, first bool) {
	h, known := p.heat[path]
	if !known || now.Sub(h.last) > p.cools(h) || h.times < p.timing.HotAfter {
		return time.Time{}, false
	}
	first = h.hold == 0
	h.hold = min(max(2*h.hold, p.timing.AtMost), p.timing.HotAtMost)
	p.heat[path] = h
	return h.last.Add(h.hold), first
}

// cools is how long a name must be left alone to be as any other.
func (p *pending) cools(h heat) time.Duration { return 2 * max(h.hold, p.timing.AtMost) }

// announced notes which names were announced.
func (p *pending) announced(now time.Time, out []entry) {
	if len(out) > bulkNames {
		return
	}
	for _, e := range out {
		h := p.heat[e.path]
		if h.last.Equal(now) { // several names of one entry
			continue
		}
		if now.Sub(h.last) > p.cools(h) {
			h = heat{}
		}
		h.last = now
		h.times++
		p.heat[e.path] = h
	}
	if now.Sub(p.swept) < 2*p.timing.AtMost {
		return
	}
	p.swept = now
	for path, h := range p.heat {
		if now.Sub(h.last) > p.cools(h) {
			delete(p.heat, path)
		}
	}
}

// back puts what was taken among what waits, since it could not be announced. What came meanwhile is newer.
func (p *pending) back(now time.Time, e entry, until time.Time) {
	old := e.item
	it := p.items[e.path]
	if it == nil {
		p.items[e.path] = old
		if !until.IsZero() {
			p.hold(e.path, old, until)
		}
	} else {
		it.after(old)
	}
	if p.newest.IsZero() {
		p.newest = now
	}
	if until.IsZero() && p.oldest.IsZero() {
		p.oldest = now
	}
}

// after takes in what was known of a name before.
func (it *item) after(old *item) {
	it.since, it.born, it.left, it.whole, it.tries = old.since, old.born, it.left || old.left, it.whole || old.whole, old.tries
	it.tree = it.tree || old.tree
	if it.from == "" && !it.tree {
		it.from = old.from
	}
	it.seen = old.seen
}

// await puts back what was taken until release is called.
func (p *pending) await(now time.Time, e entry) {
	p.back(now, e, now.Add(forever))
	p.items[e.path].waits = p.items[e.path] == e.item
}

// release lets go, at once, what waits for a scan.
func (p *pending) release(now time.Time) {
	for path, it := range p.held {
		if it.waits {
			it.waits, it.until = false, time.Time{}
			delete(p.held, path)
			p.newest, p.oldest = now, now.Add(-p.timing.AtMost)
		}
	}
}

// clear forgets everything.
func (p *pending) clear() {
	clear(p.items)
	clear(p.held)
	p.oldest = time.Time{}
}

// byTree compares paths so that what is below a directory comes right after it.
func byTree(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] == b[i] {
			continue
		}
		switch byte('/') {
		case a[i]:
			return -1
		case b[i]:
			return 1
		}
		return cmp.Compare(a[i], b[i])
	}
	return cmp.Compare(len(a), len(b))
}
