package event_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/eventtest"
)

func TestOverlaps(t *testing.T) {
	for _, c := range []struct {
		one, other string
		want       bool
	}{
		{"+ a", "+ a", true},
		{"+ a", "+ b", false},
		{"+ a", "- a", true},
		{"+ a/b", "+ a/", false}, // a directory is there in both
		{"+ a/b", "= a/", false},
		{"+ a/b", "+ a", true},
		{"+ a/b", "- a", true},
		{"+ a/b/c", "r a", true},
		{"+ a/b", "d a", true},
		{"+ a.b", "r a", false},
		{"+ a/b, + a0", "- a", true},
		{"r a", "r a/b", true},
		{"> b a", "+ a/c", true},
		{"> b a", "+ b/c", true},
		{"> b a", "+ c, + d", false},
		{"> b a, + c", "+ a/c", true},
	} {
		one, other := brief(t, c.one), brief(t, c.other)
		if got := one.Overlaps(other); got != c.want {
			t.Errorf("%q overlaps %q: %v", c.one, c.other, got)
		}
		if got := other.Overlaps(one); got != c.want {
			t.Errorf("%q overlaps %q: %v", c.other, c.one, got)
		}
	}
	if !event.PathSet(nil).Overlaps(event.PathSet{}) || !(event.PathSet{}).Overlaps(nil) {
		t.Error("what speaks of anything overlaps all")
	}
}

// Two sets that do not overlap say the same in either order.
func TestOrderMattersOnlyIfSetsOverlap(t *testing.T) {
	free := 0
	rapid.Check(t, func(t *rapid.T) {
		h := eventtest.Draw(t, eventtest.Options{})
		one, other := h.Sets[0], h.Sets[len(h.Sets)-1]
		if one.Overlaps(other) {
			return
		}
		free++
		if diff := cmp.Diff(plain(event.Merge(one, other)), plain(event.Merge(other, one))); diff != "" {
			t.Fatalf("%q and %q: %s", one.Encode(), other.Encode(), diff)
		}
	})
	if free == 0 {
		t.Error("no two sets were drawn that do not overlap")
	}
}

// plain is a set without what was at names that are gone: a merged set need not say it.
func plain(s event.PathSet) event.PathSet {
	for i, r := range s {
		if r.Op == event.Gone {
			s[i] = event.Record{Op: event.Gone, Path: r.Path}
		}
	}
	return s
}
