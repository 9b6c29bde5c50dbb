package trigger_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/envelope"
	"github.com/mirrorbus/mirrorbus/trigger"
)

const index = "repodata/repomd.xml"

// wordsOfAWalk is how often a walk of few names says how far it is: at its beginning and at its end.
const wordsOfAWalk = 2

// index puts an index in place that names so many contents.
func (m *master) index(names int) {
	m.t.Helper()
	m.put(index, strings.Repeat("x", names))
}

func (m *master) put(name, text string) {
	m.t.Helper()
	path := filepath.Join(m.tree, name)
	check(m.t, os.MkdirAll(filepath.Dir(path), 0o755))
	check(m.t, os.WriteFile(path+".new", []byte(text), 0o644))
	check(m.t, os.Rename(path+".new", path))
}

func (m *master) remove(name string) {
	m.t.Helper()
	check(m.t, os.Remove(filepath.Join(m.tree, name)))
}

// told are all announcements, each record as op, path and, of an index, its size.
func (m *master) told(parts *trigger.Parts) (all []string) {
	m.t.Helper()
	st, err := parts.Journal.State(m.t.Context(), "m")
	check(m.t, err)
	for s, err := range parts.Journal.Since(m.t.Context(), "m", st.Epoch, 0) {
		check(m.t, err)
		set, err := envelope.PathSet(s.Set, s.Announcement.Set)
		check(m.t, err)
		var line []string
		for _, r := range set {
			text := fmt.Sprintf("%c%s", r.Op, r.Path)
			if r.Path == index && r.Op == event.Write {
				text += fmt.Sprint(":", r.Size)
			}
			line = append(line, text)
		}
		all = append(all, strings.Join(line, " "))
	}
	return all
}

// What is done to a tree during and after the walks of a scan, and what is announced of it. The content of an index comes with it or before, what it names no more
// goes with it or later.
func TestScanOfATreeThatChanges(t *testing.T) {
	for name, c := range map[string]struct {
		before func(m *master)
		after  []func(m *master) // after the n-th walk
		want   []string
		note   string
	}{
		"an index during the walk": {
			before: func(m *master) { m.index(2) },
			after:  []func(*master){func(m *master) { m.put("pool/c2", "c") }}, // named by the index that the walk came by
			want:   []string{"+pool/c2 +" + index + ":2"},
		},
		"an index after the first walk": {
			before: func(m *master) { m.put("pool/c2", "c"); m.remove("pool/c0") },
			after:  []func(*master){func(m *master) { m.put("pool/c3", "c"); m.index(3) }},
			want:   []string{"+pool/c2 +pool/c3", "-pool/c0 +" + index + ":3"},
		},
		"replaced after the first walk": {
			before: func(m *master) { m.put("pool/c2", "c"); m.index(2) },
			after:  []func(*master){func(m *master) { m.put("pool/c3", "c"); m.index(3); m.remove("pool/c0") }},
			want:   []string{"+pool/c2 +pool/c3 +" + index + ":2", "-pool/c0 +" + index + ":3"},
		},
		"gone after the first walk": {
			before: func(m *master) { m.remove("pool/c0"); m.put("pool/c2", "c") },
			after:  []func(*master){func(m *master) { m.remove("pool/c1") }},
			want:   []string{"-pool/c0 +pool/c2"},
		},
		"renamed after the first walk": {
			before: func(m *master) { m.index(2) },
			after:  []func(*master){func(m *master) { check(m.t, os.Rename(filepath.Join(m.tree, "old"), filepath.Join(m.tree, "new"))) }},
			want:   []string{"rnew +" + index + ":2"},
		},
		"an index that goes": {
			before: func(m *master) { m.index(2) },
			after:  []func(*master){func(m *master) { m.remove(index) }},
			want:   nil, // it went during the scan
		},
		"an index that changes all the time": {
			before: func(m *master) { m.index(2); m.remove("pool/c0") },
			after: []func(*master){func(m *master) { m.index(3) }, func(m *master) { m.index(4) }, func(m *master) { m.index(5) }, func(m *master) { m.index(6) },
				func(m *master) { m.index(7) }, func(m *master) { m.index(8) }},
			want: []string{"+" + index + ":2", "-pool/c0 +" + index + ":3", "+" + index + ":4", "+" + index + ":5", "+" + index + ":6"},
			note: "the index " + index + " changes all the time: the next scan announces the rest",
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMaster(t)
			m.put("pool/c0", "c")
			m.put("pool/c1", "c")
			for n := range 6 {
				m.put(fmt.Sprint("old/", n), strings.Repeat("c", n))
			}
			m.index(1)
			h, parts := m.running()
			c.before(m)
			var last trigger.Scanned
			words := 0
			check(t, h.Scan(t.Context(), trigger.ScanRequest{Module: "m"}, func(s trigger.Scanned) error {
				last = s
				words++
				if walk := words / wordsOfAWalk; words == walk*wordsOfAWalk && walk <= len(c.after) {
					c.after[walk-1](m)
				}
				return nil
			}))
			if got := m.told(parts); !slices.Equal(got, c.want) {
				t.Errorf("announced %q, want %q", got, c.want)
			}
			if note := strings.Join(last.Notes, "; "); note != c.note {
				t.Errorf("notes %q, want %q", note, c.note)
			}
			if p := last.Published; len(c.want) > 0 && (p == nil || int(p.Serial) != len(c.want)) || len(c.want) == 0 && p != nil {
				t.Errorf("published %+v", p)
			}
		})
	}
}

// Where neither an index has changed nor something is gone, a scan is one walk.
func TestScanOfNewContentIsOneWalk(t *testing.T) {
	m := newMaster(t)
	m.index(1)
	h, _ := m.running()
	m.put("pool/new", "c")
	words := 0
	check(t, h.Scan(t.Context(), trigger.ScanRequest{Module: "m"}, func(s trigger.Scanned) error {
		if !s.Done {
			words++
		}
		return nil
	}))
	if words != wordsOfAWalk {
		t.Errorf("%d words, which are %d walks", words, words/wordsOfAWalk)
	}
}
