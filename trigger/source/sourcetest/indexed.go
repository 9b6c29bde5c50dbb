package sourcetest

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/mirrorbus/mirrorbus/event"
)

// index is one by the rules of a Master's module. Its size is its version, and version n names what was made in the last steps.
const index = "repodata/repomd.xml"

// named is what a version of the index names.
func named(version int64) (names []string) {
	for n := version - 2; n <= version; n++ {
		names = append(names, fmt.Sprint("pool/", n))
	}
	return names
}

// mostMade bounds how much content there is, so that it is announced name by name.
const mostMade = 200

// A composer makes versions, as a master does: content, then the index; what it names no more goes later.
type composer struct {
	Master
	version, oldest int64        // of the content that is there
	announced       func() int64 // the version of the index that was announced last
}

// turn makes the next version. If there is much already, what the announced index names no more goes first: nothing goes before it is announced, however long
// that takes.
func (m *composer) turn(t *testing.T) {
	t.Helper()
	if m.version-m.oldest+1 >= mostMade {
		for last := m.announced(); m.oldest < last-2; m.oldest++ {
			check(t, os.Remove(m.in(fmt.Sprint("pool/", m.oldest))))
		}
	}
	if m.version-m.oldest+1 >= mostMade {
		return
	}
	m.version++
	version := m.version
	check(t, os.WriteFile(m.in(fmt.Sprint("pool/", version)), nil, 0o644))
	check(t, os.WriteFile(m.in(".new"), []byte(strings.Repeat("x", int(version))), 0o644))
	check(t, os.Rename(m.in(".new"), m.in(index)))
}

// turnDuring makes versions until as many syncs are over.
func (m *composer) turnDuring(t *testing.T, syncs int, s Running) {
	t.Helper()
	over := make(chan error, 1)
	go func() {
		for range syncs {
			if err := s.Sync(t.Context()); err != nil {
				over <- err
				return
			}
		}
		over <- nil
	}()
	for {
		m.turn(t)
		select {
		case err := <-over:
			check(t, err)
			return
		default:
		}
	}
}

// A reader follows what is announced, as a mirror does.
type reader struct {
	have map[string]bool
	last int64 // the version of the index, 0 before the first
}

// take takes an announcement in, and returns what the index names and mirrors do not have.
func (r *reader) take(set event.PathSet) (missing []string) {
	for _, c := range set {
		r.have[c.Path] = c.Op != event.Gone
		if c.Path == index && c.Op == event.Write {
			r.last = c.Size
		}
	}
	if r.last == 0 {
		return nil
	}
	return slices.DeleteFunc(named(r.last), func(name string) bool { return r.have[name] })
}

// indexed replaces an index again and again, and what it names comes and goes, while it is announced. Whatever is announced of the index, all that this version
// names was announced with it or before, and not as gone.
func indexed(t *testing.T, h Harness) {
	m := &composer{Master: start(t, h), oldest: 1}
	grow(t, m.in, "pool/other")
	grow(t, m.in, index)
	s := h.Start(t, m.Master)
	for range 3 {
		m.turn(t)
	}
	sync(t, s)
	k := m.mark(t)
	m.announced = func() int64 {
		r := reader{have: map[string]bool{}}
		for _, set := range k.announced(t) {
			r.take(set)
		}
		return r.last
	}
	m.turnDuring(t, 3, s)
	sync(t, s)
	r := reader{have: map[string]bool{}}
	for path := range k.facts {
		r.have[path] = true
	}
	for n, set := range k.announced(t) {
		if missing := r.take(set); len(missing) > 0 {
			t.Errorf("after announcement %d version %d of the index names %q, which mirrors do not have", n+1, r.last, missing)
		}
	}
	if r.last != m.version {
		t.Errorf("the last version announced is %d of %d", r.last, m.version)
	}
}
