package manifest_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/trigger/manifest"
)

// After any history of changes, announced in any of the ways, the manifest says what a fresh one says, and the export what the manifest says.
func TestMaintainedIsAsGoodAsBuilt(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 0))
			root := t.TempDir()
			put(t, root, "start")
			m := build(t, root, manifest.Options{ShardEntries: 8})
			w, _ := writer(t)
			var last event.Digest
			for serial := event.Serial(1); serial <= 60; serial++ {
				apply(t, m, root, serial, mutate(t, rnd, root))
				if serial%20 == 0 {
					check(t, m.Forget(t.Context(), serial-15))
				}
				if serial%6 != 0 {
					continue
				}
				ix, d, err := m.Export(t.Context(), w, last)
				check(t, err)
				last = d
				all := records(t, m, "")
				if !slices.IsSortedFunc(all, func(a, b event.Record) int { return strings.Compare(a.Path, b.Path) }) {
					t.Fatal("records out of order")
				}
				if diff := cmp.Diff(all, collect(t, w.Reader().Records(ix))); diff != "" {
					t.Fatalf("serial %d: exported: %s", serial, diff)
				}
			}
			if diff := cmp.Diff(live(t, build(t, root, manifest.Options{})), live(t, m), ignoreDirTimes); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// ignoreDirTimes: a directory's time changes with its entries, and is not announced for that.
var ignoreDirTimes = cmp.Transformer("times", func(r event.Record) string {
	if r.IsDir() {
		r.MTime = event.Stamp{}
	}
	return fmt.Sprintf("%+v", r)
})

var odd = []string{"a", "a-", "a.b", "a0", "b", "b c", "\xff"}

// mutate changes the tree in one place and says how to announce it.
func mutate(t *testing.T, rnd *rand.Rand, root string) string {
	t.Helper()
	var parts []string
	for range 1 + rnd.IntN(4) {
		parts = append(parts, odd[rnd.IntN(len(odd))])
	}
	top, path := parts[0], filepath.Join(parts...)
	for i := range parts[:len(parts)-1] { // a file where a directory is to be
		above := filepath.Join(root, filepath.Join(parts[:i+1]...))
		if info, err := os.Lstat(above); err == nil && !info.IsDir() {
			check(t, os.Remove(above))
			put(t, root, path)
			return "r" + top
		}
	}
	info, err := os.Lstat(filepath.Join(root, path))
	switch n := rnd.IntN(6); {
	case n == 0:
		check(t, os.RemoveAll(filepath.Join(root, path)))
		return "-" + path
	case n == 1:
		check(t, os.RemoveAll(filepath.Join(root, path)))
		return "r" + top
	case n == 2:
		check(t, os.RemoveAll(filepath.Join(root, top)))
		put(t, root, top)
		return "+" + top
	case err == nil && info.IsDir():
		check(t, os.Chmod(filepath.Join(root, path), 0o700))
		return "=" + path
	}
	put(t, root, path)
	if len(parts) > 1 && rnd.IntN(2) == 0 {
		return "d" + filepath.Dir(path)
	}
	return "+" + path
}
