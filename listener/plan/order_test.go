package plan

import (
	"fmt"
	"testing"
)

// A name is free before another directory gets it, and thousands of renames are put into their order at once.
func TestRenamesFreeTheirNamesFirst(t *testing.T) {
	const n = 20_000
	name := func(i int) string { return fmt.Sprintf("d%05d", i) }
	var all []Rename
	for i := range n { // each to the name of the next, which must have gone on before
		all = append(all, Rename{From: name(i), To: name(i + 1)})
	}
	all = append(all, Rename{From: name(n) + "/sub/dir", To: "elsewhere"}, Rename{From: "x", To: "y"}, Rename{From: "y", To: "x"})
	at := map[string]int{}
	for i, r := range inOrder(all) {
		at[r.From] = i + 1
	}
	if len(at) != len(all) {
		t.Fatalf("%d renames, want %d", len(at), len(all))
	}
	for i := range n - 1 {
		if at[name(i)] < at[name(i+1)] {
			t.Fatalf("%s is renamed to a name that is not free yet", name(i))
		}
	}
	if at[name(n)+"/sub/dir"] > at[name(n-1)] {
		t.Error("what is below a name goes after that was given to another")
	}
}
