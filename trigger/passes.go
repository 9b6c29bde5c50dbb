package trigger

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/trigger/manifest"
)

// A walk of the tree takes its time. It may come by an index that names what was put where the walk had been already, and miss what is gone in a directory after
// it has come by the index that named it. So where it finds an index changed, or something gone, the tree is walked once more, and what that finds is
// announced: each index in the version of the walk before, whose content was all there when the second walk began, and of what is gone that
// which was so for the walk before, since the indexes have been looked at later. If an index was replaced between the two, another pass follows.

// maxPasses bounds how often what a scan finds is announced. Between two passes indexes were replaced.
const maxPasses = 5

// stampGrain is how long after a walk the next one begins. File systems stamp files by a clock that goes on every 10 ms or more often: an index of the same size and
// time as in the walk before was put in place before the second one began.
const stampGrain = 20 * time.Millisecond

// A sight is what the walks of one scan have seen.
type sight struct {
	index   func(path string) bool
	since   event.Serial        // where the module stood before the last walk began
	own     event.Serial        // the last that this scan has announced
	indexes map[string]*Version // of the last walk, that were not announced like that
	gone    map[string]bool     // names that were gone in the last walk
	before  map[string]bool     // likewise, in the walk before that
	moving  string              // an index that the last walk did not find like the one before
}

// look notes what a walk has found.
func (s *sight) look(set event.PathSet) {
	s.before, s.gone = s.gone, map[string]bool{}
	s.indexes = map[string]*Version{}
	for _, r := range set {
		switch v := versionIn(r); {
		case r.Op == event.Gone:
			s.gone[r.Path] = true
		case r.Op == event.Renamed:
			s.gone[r.From] = true
		case v != nil && s.index(r.Path):
			s.indexes[r.Path] = v
		}
	}
}

// doubtful tells whether what the last walk found is to be found by another one before it is announced.
func (s *sight) doubtful() bool { return len(s.indexes)+len(s.gone) > 0 }

// names are what is to be announced of what a walk has found after the last one, and again tells whether something is left for another pass. told tells which
// indexes others have announced meanwhile: these are not to be set back.
func (s *sight) names(set event.PathSet, told func(path string) bool) (names []Name, again bool) {
	seen, was, older := s.indexes, s.gone, s.before
	s.look(set)
	s.moving = ""
	for _, r := range set {
		if v := s.indexes[r.Path]; v != nil && seen[r.Path].Same(v) {
			delete(s.indexes, r.Path)
		} else if v != nil {
			s.moving = r.Path
		}
	}
	if s.moving != "" { // the newest index names less than is there, and the one that is announced names more
		was = older
	}
	for _, r := range set {
		n := Name{Op: r.Op, Path: r.Path, From: r.From, As: versionIn(r)}
		switch {
		case r.Op == event.Gone && !was[r.Path]:
			again = again || slices.ContainsFunc(slices.Collect(maps.Keys(was)), func(p string) bool { return event.Under(r.Path, p) })
			continue
		case r.Op == event.Renamed && !was[r.From]:
			n = Name{Op: event.Tree, Path: r.Path}
		case s.indexes[r.Path] != nil:
			if n.As = seen[r.Path]; n.As == nil || told(r.Path) {
				continue
			}
		}
		names = append(names, n)
	}
	return names, again || s.moving != ""
}

// passes walk the tree again, and announce, until indexes hold still. It returns what they have found together, and the last difference.
func (p *Publisher) passes(ctx context.Context, x *exported, r ScanRequest, s *sight, send func(Scanned) error,
	publish func(context.Context, Request) (Published, error)) (done Scanned, d manifest.Difference, err error) {
	for n := 1; ; n++ {
		if !wait(ctx, stampGrain) {
			return done, d, context.Cause(ctx)
		}
		st, err := p.Journal.State(ctx, r.Module)
		if err != nil {
			return done, d, err
		}
		if d, err = p.difference(ctx, x, r, send); err != nil {
			return done, d, err
		}
		names, again := s.names(d.Set, func(path string) bool { return x.told(ctx, path, s) })
		s.since = st.Serial
		done = done.and(d)
		if len(names) > 0 || d.Whole {
			pub, err := publish(ctx, r.named(names, d.Whole))
			if err != nil {
				return done, d, err
			}
			if pub.Serial != 0 {
				done.Published, s.own = &pub, pub.Serial
			}
			again = (again || pub.ahead) && pub.Held.IsZero() && !d.Whole
		}
		switch {
		case !again:
			return done, d, nil
		case n == maxPasses:
			done.Notes = append(done.Notes, s.left())
			return done, d, nil
		}
	}
}

// told tells whether others have announced an index since the last walk began.
func (x *exported) told(ctx context.Context, path string, s *sight) bool {
	rec, ok, err := x.manifest.Get(ctx, path)
	return err != nil || ok && rec.Serial > s.since && rec.Serial != s.own
}

// left says why a scan ends though it was not all.
func (s *sight) left() string {
	if s.moving == "" {
		return "the tree changes all the time: the next scan announces the rest"
	}
	return fmt.Sprintf("the index %s changes all the time: the next scan announces the rest", printable(s.moving))
}

// and adds what another walk of the same scan has found.
func (s Scanned) and(d manifest.Difference) Scanned {
	sum, before := scanned(d), s.Found
	sum.Elapsed += s.Elapsed
	sum.Published = s.Published
	sum.Found = Found{sum.Found.Added + before.Added, sum.Found.Changed + before.Changed, sum.Found.Meta + before.Meta, sum.Found.Removed + before.Removed, sum.Found.Renamed + before.Renamed}
	return sum
}
