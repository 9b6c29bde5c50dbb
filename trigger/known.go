package trigger

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/envelope"
)

// underway counts the requests of each module that have begun to look at names and are not journalled yet.
type underway struct {
	mu    sync.Mutex
	n     map[event.Module]int
	turns map[event.Module]*sync.RWMutex
}

// maxOvertaken is how often a request is overtaken before the others wait for it: one that looks at many names may never come before those of few.
const maxOvertaken = 2

// inTurn looks at names and has them journalled, as others do meanwhile; or alone, after it was tried too often.
func (p *Publisher) inTurn(m event.Module, tries int, publish func() (Published, error)) (Published, error) {
	turn := p.under.turn(m)
	if tries > maxOvertaken {
		turn.Lock()
		defer turn.Unlock()
	} else {
		turn.RLock()
		defer turn.RUnlock()
	}
	return publish()
}

func (u *underway) turn(m event.Module) *sync.RWMutex {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.turns == nil {
		u.turns = map[event.Module]*sync.RWMutex{}
	}
	if u.turns[m] == nil {
		u.turns[m] = &sync.RWMutex{}
	}
	return u.turns[m]
}

// begin counts one request until the function that it returns is called.
func (u *underway) begin(m event.Module) (end func()) {
	u.add(m, 1)
	return func() { u.add(m, -1) }
}

func (u *underway) add(m event.Module, n int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.n == nil {
		u.n = map[event.Module]int{}
	}
	u.n[m] += n
}

// single tells whether no other request on the module is under way.
func (u *underway) single(m event.Module) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.n[m] <= 1
}

// leaveOut takes out of gone what no mirror can have: temporary files that came and went between two looks. To announce that such a name is gone does no
// harm, and not to announce one that a mirror has would; so it is left out only if the manifest, and what was announced after it, are sure to tell. The
// names must have been looked at before: what begins now to look at one finds it gone too.
func (x *exported) leaveOut(ctx context.Context, fresh fresh, gone map[string]bool) {
	asked := slices.DeleteFunc(slices.Collect(maps.Keys(gone)), fresh.mention)
	may, err := x.manifest.MayHold(ctx, asked)
	if err != nil {
		return
	}
	for _, path := range asked {
		if !may[path] {
			delete(gone, path)
		}
	}
}

// A fresh is what announcements speak of that a manifest does not know yet.
type fresh struct {
	named map[string]bool     // paths, and the directories above them
	wide  map[string]bool     // directories that are spoken of with what is in them
	links map[string][]string // names of an inode that has several, and all of them
}

func newFresh() fresh {
	return fresh{named: map[string]bool{}, wide: map[string]bool{}, links: map[string][]string{}}
}

// Bounds of what is read of the journal for the sake of a few names.
const (
	freshSerials = 64
	freshRecords = 10_000
)

// fresh reads what was announced after the manifest. ok is false if that is too much, or not to be told.
func (p *Publisher) fresh(ctx context.Context, m event.Module, x *exported) (f fresh, ok bool) {
	if !p.under.single(m) {
		return fresh{}, false
	}
	st, err := p.Journal.State(ctx, m)
	if err != nil {
		return fresh{}, false
	}
	pos, err := x.manifest.Position(ctx)
	if err != nil || pos.Epoch != st.Epoch || pos.Serial > st.Serial || st.Serial-pos.Serial > freshSerials {
		return fresh{}, false
	}
	f = newFresh()
	left := freshRecords
	for s, err := range p.Journal.Since(ctx, m, st.Epoch, pos.Serial) {
		if err != nil || s.Set == nil {
			return fresh{}, false
		}
		if left -= s.Records; left < 0 {
			return fresh{}, false
		}
		set, err := envelope.PathSet(s.Set, s.Announcement.Set)
		if err != nil {
			return fresh{}, false
		}
		for _, r := range set {
			f.add(r)
		}
		f.link(set)
	}
	return f, true
}

func (f fresh) add(r event.Record) {
	for _, path := range []string{r.Path, r.From} {
		for ; path != ""; path = above(path) {
			f.named[path] = true
		}
	}
	if r.Op == event.Level || r.Op == event.Tree || r.Op == event.Renamed {
		f.wide[r.Path] = true
	}
}

// mention tells whether path, something below it, or a directory with what is in it, was announced.
func (f fresh) mention(path string) bool {
	if f.named[path] {
		return true
	}
	for dir := above(path); dir != ""; dir = above(dir) {
		if f.wide[dir] {
			return true
		}
	}
	return false
}
