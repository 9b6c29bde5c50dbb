package watch

import (
	"cmp"
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/trigger"
)

// An index is not to be announced before what it names. What it is when it is looked at may be newer than its event, so once a batch has an index the reader
// catches up: what had happened by then goes into the same batch, and the index is announced as it was seen. That may bring other indexes, as those of which
// the first one has the checksums; then there is another round.
//
// Nor is content to be announced as gone before the index that names it no more. So what a later round finds gone waits for the next batch if an index has
// changed again, since the version that is announced may name it. And where events may be missing, those of an index or of what it names may be among
// them: then both wait for the scan that makes up for it.

// maxRounds bounds how often the reader catches up for one batch.
const maxRounds = 3

// stampGrain is how long the reader is given before it catches up. File systems stamp files by a clock that goes on every 10 ms or more often: a second version
// of the same size and time cannot be told from the first, so what that one names is to be in the batch too.
const stampGrain = 10 * time.Millisecond

// A batch is what is announced together.
type batch struct {
	root    string
	isIndex func(path string) bool
	out     map[string]entry
	seen    map[string]seen             // what each name was when it was taken
	as      map[string]*trigger.Version // indexes
	later   []entry                     // for the next batch
}

// A seen is what a name was.
type seen struct {
	there bool
	as    *trigger.Version // nil if it was no file or symbolic link
}

// see looks at a name. What cannot be looked at is there.
func (b *batch) see(path string) seen {
	fi, err := os.Lstat(filepath.Join(b.root, path))
	if err != nil {
		return seen{there: lookAt(b.root, path).there}
	}
	return seen{true, trigger.VersionOf(fi)}
}

// add takes names in, and tells whether indexes are among them for which the reader has to catch up. For the last ones it does not any more.
func (b *batch) add(out []entry, last bool) (fresh bool) {
	now := map[string]seen{}
	for _, index := range []bool{false, true} { // indexes last: what was gone before, they do not name
		for _, e := range out {
			if b.isIndex(e.path) == index {
				now[e.path] = b.see(e.path)
			}
		}
	}
	changed := false
	for path, is := range now {
		if is.as != nil && b.isIndex(path) && !is.as.Same(b.as[path]) {
			changed = changed || last || b.as[path] != nil
			fresh = true
		}
	}
	for _, e := range out {
		b.put(e, now[e.path], changed, last)
	}
	return fresh && !last
}

// put takes one name in. changed tells whether what is announced of indexes may be older than what was found with it.
func (b *batch) put(e entry, is seen, changed, last bool) {
	old := b.as[e.path]
	index := is.as != nil && b.isIndex(e.path)
	switch {
	case changed && !is.there, index && !is.as.Same(old) && (last || old != nil):
		b.later = append(b.later, e)
		return
	case index:
		b.as[e.path] = is.as
	default:
		delete(b.as, e.path)
	}
	if changed && e.from != "" { // its old name waits
		e.from, e.tree = "", true
	}
	if before, ok := b.out[e.path]; ok {
		e.after(before.item)
	}
	b.out[e.path], b.seen[e.path] = e, is
}

// doubtful removes and returns what must wait where events may be missing.
func (b *batch) doubtful() (all []entry) {
	for path, e := range b.out {
		if b.as[path] != nil || !b.seen[path].there || e.from != "" {
			all = append(all, e)
			delete(b.out, path)
		}
	}
	return all
}

// entries are the names, as take returns them.
func (b *batch) entries() []entry {
	return slices.SortedFunc(maps.Values(b.out), func(a, b entry) int { return byTree(a.path, b.path) })
}

// name says of a name what it was, where that matters.
func (b *batch) name(n Name) Name {
	is, known := b.seen[n.Path]
	switch {
	case len(b.as) == 0 || n.Op != 0 || !known:
	case !is.there:
		n.Op = event.Gone
	default:
		n.As = cmp.Or(b.as[n.Path], is.as)
	}
	return n
}

// collect takes the next batch: what is not held back, or everything. read has all read that is queued. hot are names that have just become hot.
func (w *Watcher) collect(ctx context.Context, at *place, everything bool, read func(context.Context) error) (b *batch, hot []string, err error) {
	b = &batch{root: at.root, isIndex: w.o.Index, out: map[string]entry{}, seen: map[string]seen{}, as: map[string]*trigger.Version{}}
	now := w.now()
	w.in.mu.Lock()
	out, hot := w.in.set.take(now, everything)
	unsure := w.in.unsure
	w.in.mu.Unlock()
	if w.o.Index == nil || !unsure && !slices.ContainsFunc(out, func(e entry) bool { return b.isIndex(e.path) }) {
		for _, e := range out {
			b.out[e.path] = e
		}
		return b, hot, nil
	}
	fresh := b.add(out, false)
	for round := 1; fresh && !unsure && err == nil; round++ {
		if err = w.catchUp(ctx, read); err != nil {
			break
		}
		w.in.mu.Lock()
		out, more := w.in.set.take(w.now(), false)
		w.in.mu.Unlock()
		hot = append(hot, more...)
		fresh = b.add(out, round == maxRounds)
	}
	w.putOff(b, unsure, err)
	return b, hot, err
}

// putOff puts back what is not to be announced yet: nothing is if err says that the batch is not complete.
func (w *Watcher) putOff(b *batch, unsure bool, err error) {
	now := w.now()
	w.in.mu.Lock()
	defer w.in.mu.Unlock()
	for _, e := range b.later {
		w.in.set.back(now, e, time.Time{})
	}
	if err != nil {
		for _, e := range b.out {
			w.in.set.back(now, e, time.Time{})
		}
	}
	switch {
	case err != nil:
	case w.in.unsure:
		for _, e := range b.doubtful() {
			w.in.set.await(now, e)
		}
	case unsure: // the scan has just ended
		for _, e := range b.doubtful() {
			w.in.set.back(now, e, time.Time{})
		}
	}
}

// catchUp has what is queued read, stampGrain from now.
func (w *Watcher) catchUp(ctx context.Context, read func(context.Context) error) error {
	if !sleep(ctx, stampGrain) {
		return context.Cause(ctx)
	}
	return read(ctx)
}
