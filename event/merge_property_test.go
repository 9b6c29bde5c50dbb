package event_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/eventtest"
)

// obey does to mirror what s says and no more, taking content from master.
func obey(t *rapid.T, mirror, master eventtest.Tree, s event.PathSet) {
	for _, r := range s {
		if r.Op == event.Gone {
			mirror.Remove(r.Path)
		}
		if r.Op == event.Renamed && !stated(s, r.From) {
			mirror.Remove(r.From)
		}
	}
	for _, r := range s {
		if r.Op == event.Gone {
			continue
		}
		if err := mirror.Take(master, r.Path); err != nil {
			t.Fatalf("record %c %q: %v", r.Op, r.Path, err)
		}
		if r.Op != event.Write && r.Op != event.Meta {
			span(mirror, master, r)
		}
	}
}

// span makes what the record r stands for beside its own path as master has it.
func span(mirror, master eventtest.Tree, r event.Record) {
	spoken := func(p string) bool {
		return event.Under(r.Path, p) && (r.Op != event.Level || eventtest.Parent(p) == r.Path)
	}
	for _, p := range mirror.Paths() {
		if _, there := master[p]; spoken(p) && !there {
			mirror.Remove(p)
		}
	}
	for _, p := range master.Paths() {
		if spoken(p) {
			_ = mirror.Take(master, p) // it is there
		}
	}
}

func stated(s event.PathSet, path string) bool {
	return slices.ContainsFunc(s, func(r event.Record) bool { return r.Path == path || event.Under(path, r.Path) && r.Op != event.Gone })
}

// checkSet fails unless s is well formed, true of the newest state, and brings the oldest to it.
func checkSet(t *rapid.T, what string, h eventtest.History, s event.PathSet) {
	if err := s.Check(); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	for _, r := range s {
		if err := eventtest.Holds(h.Last(), r); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	mirror := h.States[0].Clone()
	obey(t, mirror, h.Last(), s)
	if diff := eventtest.Diff(mirror, h.Last()); diff != nil {
		t.Fatalf("%s %s\nleaves %q", what, s.Encode(), diff)
	}
}

func TestMergedSetsDoWhatTheyDoOneByOne(t *testing.T) { rapid.Check(t, mergesAsOneByOne) }

func mergesAsOneByOne(t *rapid.T) {
	h := eventtest.Draw(t, eventtest.Options{})
	mirror := h.States[0].Clone()
	for i, s := range h.Sets {
		obey(t, mirror, h.States[i+1], s)
	}
	if diff := eventtest.Diff(mirror, h.Last()); diff != nil {
		t.Fatalf("the sets one by one leave %q", diff)
	}
	checkSet(t, "all at once", h, event.Merge(h.Sets...))
	cut := rapid.IntRange(0, len(h.Sets)).Draw(t, "cut")
	checkSet(t, "in two parts", h, event.Merge(event.Merge(h.Sets[:cut]...), event.Merge(h.Sets[cut:]...)))
}

func TestMergeServesAMirrorThatStandsInBetween(t *testing.T) { rapid.Check(t, servesInBetween) }

func servesInBetween(t *rapid.T) {
	h := eventtest.Draw(t, eventtest.Options{})
	at := rapid.IntRange(0, len(h.Sets)).Draw(t, "the mirror's serial")
	mirror := h.States[at].Clone()
	obey(t, mirror, h.Last(), event.Merge(h.Sets...))
	if diff := eventtest.Diff(mirror, h.Last()); diff != nil {
		t.Fatalf("leaves %q", diff)
	}
}

func TestMergeOfListsOfFilesLosesAtMostEmptyDirectories(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := eventtest.Draw(t, eventtest.Options{Implied: true})
		mirror := h.States[0].Clone()
		obey(t, mirror, h.Last(), event.Merge(h.Sets...))
		mirror.Fill(h.Last())
		if diff := eventtest.Diff(mirror, h.Last()); diff != nil {
			t.Fatalf("leaves %q", diff)
		}
	})
}

func TestCondensedSetsDoTheSame(t *testing.T) { rapid.Check(t, condensesToTheSame) }

func condensesToTheSame(t *rapid.T) {
	h := eventtest.Draw(t, eventtest.Options{})
	limit := rapid.IntRange(0, 6).Draw(t, "limit")
	var sets []event.PathSet
	for i, s := range h.Sets {
		short, ok := s.Condense(rapid.IntRange(0, 2).Draw(t, "per directory"), limit)
		t.Logf("%q condensed is %q", s.Encode(), short.Encode())
		if ok != (len(short) <= limit) {
			t.Fatalf("%d records are said to be within %d: %v", len(short), limit, ok)
		}
		one := eventtest.History{States: h.States[i : i+2]}
		checkSet(t, "condensed", one, short)
		sets = append(sets, short)
	}
	checkSet(t, "condensed and merged", h, event.Merge(sets...))
}

func TestWhatIsSwallowedIsCoveredAndTrue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := eventtest.Draw(t, eventtest.Options{})
		merged := event.Merge(h.Sets...)
		kept, swallowed := merged.Swallow()
		checkSet(t, "kept", h, kept)
		for _, r := range swallowed {
			if err := eventtest.Holds(h.Last(), r); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestMergeAndCondenseDoNotDependOnChance(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := eventtest.Draw(t, eventtest.Options{})
		for range 3 {
			if diff := cmp.Diff(event.Merge(h.Sets...), event.Merge(h.Sets...)); diff != "" {
				t.Fatal(diff)
			}
			one, _ := h.Sets[0].Condense(1, 2)
			two, _ := h.Sets[0].Condense(1, 2)
			if diff := cmp.Diff(one, two); diff != "" {
				t.Fatal(diff)
			}
		}
	})
}
