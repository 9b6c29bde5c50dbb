package event_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mirrorbus/mirrorbus/event"
)

// brief reads records of the form "op path" separated by commas; a path with a trailing slash is a directory. "> new old" is a rename.
func brief(t *testing.T, text string) event.PathSet {
	t.Helper()
	var records []event.Record
	for part := range strings.SplitSeq(text, ", ") {
		f := strings.Fields(part)
		path, isDir := strings.CutSuffix(f[1], "/")
		r := event.Record{Op: event.Op(f[0][0]), Mode: event.ModeFile | 0o644, Path: path}
		switch {
		case r.Op == event.Gone:
			r.Mode = 0
		case isDir || r.Spans():
			r.Mode = event.ModeDir | 0o755
		}
		if r.Op == event.Renamed {
			r.From = f[2]
		}
		records = append(records, r)
	}
	s, err := event.NewPathSet(records)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func inBrief(s event.PathSet) string {
	var parts []string
	for _, r := range s {
		part := string(r.Op) + " " + r.Path
		if r.Op == event.Renamed {
			part += " " + r.From
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, ", ")
}

func TestMerge(t *testing.T) {
	for _, c := range []struct{ name, one, two, want string }{
		{"apart", "+ a", "- b", "+ a, - b"},
		{"written, then a chmod: written", "+ a", "= a", "+ a"},
		{"a directory is made, then a chmod: made", "+ d/", "= d/", "+ d"},
		{"a flip stays a flip", "= d/", "= d/", "= d"},
		{"written, then gone", "+ a", "- a", "- a"},
		{"gone, then a file again", "- a", "+ a", "+ a"},
		{"gone, then a directory again: what used to be in it may still be on a mirror", "- d", "+ d/, + d/a", "r d, + d/a"},
		{"a directory became a file and a directory again", "+ d", "+ d/", "r d"},
		{"what is gone takes along what was below it", "+ d/a, + e", "- d", "- d, + e"},
		{"and so does what became a file", "+ d/a", "+ d", "+ d"},
		{"a level speaks for the files in it", "+ d/a, - d/b", "d d", "d d"},
		{"what is new in a level is named", "- d/b", "d d, + d/b/", "d d, r d/b"},
		{"a level does not tell whether another directory is still there", "+ d/sub/a", "d d", "r d"},
		{"unless that is named too", "+ d/sub/a", "d d, = d/sub/", "d d, = d/sub, + d/sub/a"},
		{"a directory that is written below an earlier level may be another", "d d", "+ d/sub/", "d d, r d/sub"},
		{"a tree speaks for all below", "+ d/a, - d/b/c", "r d", "r d"},
		{"a rename leaves the old name", "+ x", "> new old", "> new old, - old, + x"},
		{"a rename of what was renamed", "> b a", "> c b", "- a, - b, > c a"},
		{"renamed there and back", "> b a", "> a b", "r a, - b"},
		{"the old name is in use again", "> new old", "+ old/, + old/x", "> new old, r old, + old/x"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := event.Merge(brief(t, c.one), brief(t, c.two))
			if diff := cmp.Diff(c.want, inBrief(got)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestMergeKeepsLinkGroupsOfTwoSetsApart(t *testing.T) {
	file := func(path string) event.Record {
		return event.Record{Op: event.Write, Mode: event.ModeFile | 0o644, Link: 1, Path: path}
	}
	s := event.Merge(event.PathSet{file("a"), file("b")}, event.PathSet{file("c"), file("d")})
	if s[0].Link != s[1].Link || s[2].Link != s[3].Link || s[0].Link == s[2].Link || s[0].Link == 0 || s[2].Link == 0 {
		t.Errorf("links %d %d %d %d", s[0].Link, s[1].Link, s[2].Link, s[3].Link)
	}
}

func TestCondense(t *testing.T) {
	for _, c := range []struct {
		name, set     string
		perDir, limit int
		want          string
		ok            bool
	}{
		{"short enough", "+ d/a, + d/b", 2, 9, "+ d/a, + d/b", true},
		{"a crowded directory", "+ d/a, = d/b, - d/c, + e/f", 2, 9, "d d, + e/f", true},
		{"the top stays by name", "+ a, + b, + c", 2, 9, "+ a, + b, + c", true},
		{"directories are not folded", "+ d/a, + d/b, + d/sub/", 1, 9, "d d, + d/sub", true},
		{"too many: the deepest first", "+ a, + d/e/f/g, + d/e/f/h, + d/e/i", 0, 3, "+ a, r d/e/f, + d/e/i", true},
		{"up to the top", "+ a/x, + b/x, + c/x", 0, 2, "r a, r b, r c", false},
		{"what is gone has no level", "- d, - d/a, - d/b", 1, 9, "- d", true},
		{"a rename is kept", "> n o, + d/e/a, + d/e/b", 0, 2, "r d/e, > n o", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, ok := brief(t, c.set).Condense(c.perDir, c.limit)
			if diff := cmp.Diff(c.want, inBrief(got)); diff != "" || ok != c.ok {
				t.Errorf("%s ok %v", diff, ok)
			}
		})
	}
}

// A mirror that was away merges thousands of announcements of a few names each: four times as many should cost little more than four times as much.
func BenchmarkMergeBacklog(b *testing.B) {
	for _, n := range []int{500, 2000, 8000} {
		sets := make([]event.PathSet, n)
		for i := range sets {
			for k := range 10 {
				sets[i] = append(sets[i], event.Record{Op: event.Write, Mode: event.ModeFile | 0o644, Path: fmt.Sprintf("pool/%03d/file-%04d-%d", i*7%100, i, k)})
			}
		}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				if got := event.Merge(sets...); len(got) != 10*n {
					b.Fatalf("%d records", len(got))
				}
			}
		})
	}
}
