package plan

import (
	"maps"

	"github.com/mirrorbus/mirrorbus/event"
)

// Consistent is the last serial of the pending announcements after which all indexes are as captured: for each index that they speak of, agrees says of
// its newest record until then that it is what was captured. 0 means that there is none.
//
// It is what lets a mirror advance whose upstream's indexes change faster than it works. What is captured is a snapshot, and it stays one; the
// announcements that lead to it have arrived, or are about to. A plan up to that serial may put it in place whatever happened after.
func (in Input) Consistent(agrees func(event.Record) bool) (event.Serial, error) {
	last, err := lastRules(in.Last)
	if err != nil {
		return 0, err
	}
	var best event.Serial
	wrong := map[string]bool{}
	for _, x := range in.Pending {
		for _, r := range x.Set {
			if last.Included(r.Path, r.IsDir()) || !in.Subset.Included(r.Path, r.IsDir()) {
				continue
			}
			switch delete(wrong, r.Path); r.Op {
			case event.Write, event.Meta:
				wrong[r.Path] = !agrees(r)
			}
		}
		maps.DeleteFunc(wrong, func(_ string, is bool) bool { return !is })
		if len(wrong) == 0 {
			best = x.Serial
		}
	}
	return best, nil
}

// IsIndex makes the function that tells whether a path matches the last patterns.
func IsIndex(patterns []string) (func(path string, isDir bool) bool, error) {
	rules, err := lastRules(patterns)
	return func(path string, isDir bool) bool { return !rules.Included(path, isDir) }, err
}

// Scope is the directory below which an index names content: the one that holds it, or the topmost directory of indexes that it lies in. "" is the
// whole module.
func Scope(isIndex func(path string, isDir bool) bool, index string) string {
	top := index
	for dir := parent(index); dir != ""; dir = parent(dir) {
		if isIndex(dir, true) {
			top = dir
		}
	}
	return parent(top)
}
