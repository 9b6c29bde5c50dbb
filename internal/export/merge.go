package export

import (
	"fmt"
	"iter"
	"strings"

	"github.com/mirrorbus/mirrorbus/event"
)

// Records is a sequence of records in order of their paths. An error ends it.
type Records = iter.Seq2[event.Record, error]

// Records yields the whole manifest, one shard in memory at a time.
func (r *Reader) Records(ix Index) Records { return r.shards(ix, ix.Shards) }

// Below yields the record of dir and those below it; it opens only the shards that can hold one. "" is the whole module.
func (r *Reader) Below(ix Index, dir string) Records {
	if dir == "" {
		return r.Records(ix)
	}
	var may []Shard
	for i, s := range ix.Shards {
		last := i == len(ix.Shards)-1
		if s.First < after(dir) && (last || ix.Shards[i+1].First > dir) {
			may = append(may, s)
		}
	}
	return Only(r.shards(ix, may), func(rec event.Record) bool { return rec.Path == dir || event.Under(dir, rec.Path) })
}

// after is greater than every path below dir and no greater than any other path that follows them.
func after(dir string) string { return dir + "0" } // "0" follows "/" in ASCII

// Missed yields what an agent at serial since of the same epoch missed: the entries that later serials touched. It is complete only for
// since >= ix.Floor.
func (r *Reader) Missed(ix Index, since event.Serial) Records {
	return Only(r.Records(ix), func(rec event.Record) bool { return rec.Serial > since })
}

// shards yields the records of some shards of ix and makes sure that they follow one another.
func (r *Reader) shards(ix Index, some []Shard) Records {
	return func(yield func(event.Record, error) bool) {
		last := ""
		for _, s := range some {
			for rec, err := range r.Shard(s) {
				if err == nil && rec.Path <= last {
					err = fmt.Errorf("%w: manifest %s at serial %d: path %.200q is out of order", event.ErrFormat, ix.Module, ix.Serial, rec.Path)
				}
				if err == nil && rec.Serial > ix.Serial {
					err = fmt.Errorf("%w: manifest %s at serial %d: path %.200q is of serial %d", event.ErrFormat, ix.Module, ix.Serial, rec.Path, rec.Serial)
				}
				if !yield(rec, err) || err != nil {
					return
				}
				last = rec.Path
			}
		}
	}
}

// Only yields those records of s for which keep says so, and its error.
func Only(s Records, keep func(event.Record) bool) Records {
	return func(yield func(event.Record, error) bool) {
		for rec, err := range s {
			if (err != nil || keep(rec)) && !yield(rec, err) {
				return
			}
		}
	}
}

// A Pair is what two sequences say of one path; a side that does not name it is nil.
type Pair struct{ A, B *event.Record }

// Path is the path that the pair is about.
func (p Pair) Path() string {
	if p.A != nil {
		return p.A.Path
	}
	return p.B.Path
}

// Merge walks two sequences side by side in order of their paths: a manifest and a tree, or two manifests. It holds one record of each. The first
// error of either ends it.
func Merge(a, b Records) iter.Seq2[Pair, error] {
	return func(yield func(Pair, error) bool) {
		left, right := pull(a), pull(b)
		defer left.stop()
		defer right.stop()
		for {
			for _, s := range []*side{left, right} {
				if err := s.fill(); err != nil {
					yield(Pair{}, err)
					return
				}
			}
			p, ok := lower(left, right)
			if !ok || !yield(p, nil) {
				return
			}
		}
	}
}

// side is one of two sequences, one record ahead.
type side struct {
	next func() (event.Record, error, bool)
	stop func()
	rec  *event.Record
}

func pull(s Records) *side {
	next, stop := iter.Pull2(s)
	return &side{next: next, stop: stop}
}

func (s *side) fill() error {
	if s.rec != nil {
		return nil
	}
	rec, err, ok := s.next()
	if ok && err == nil {
		s.rec = &rec
	}
	return err
}

func (s *side) take() *event.Record {
	rec := s.rec
	s.rec = nil
	return rec
}

// lower takes what stands first on either side, or on both.
func lower(a, b *side) (Pair, bool) {
	switch {
	case a.rec == nil && b.rec == nil:
		return Pair{}, false
	case b.rec == nil:
		return Pair{A: a.take()}, true
	case a.rec == nil:
		return Pair{B: b.take()}, true
	}
	switch c := strings.Compare(a.rec.Path, b.rec.Path); {
	case c < 0:
		return Pair{A: a.take()}, true
	case c > 0:
		return Pair{B: b.take()}, true
	}
	return Pair{A: a.take(), B: b.take()}, true
}
