package event

import (
	"slices"
	"strings"
)

// Overlaps tells whether s and t speak of the same name, or one of what is below a name that the other says is gone, no directory, or stands for what is below.
// Of two sets that overlap it matters which is the later one; two that do not may be announced in either order. nil, which speaks of anything, overlaps all.
func (s PathSet) Overlaps(t PathSet) bool {
	if s == nil || t == nil {
		return true
	}
	small, large := s, t
	if len(small) > len(large) {
		small, large = t, s
	}
	return slices.ContainsFunc(small, large.concerns) || slices.ContainsFunc(vacated(large), small.concerns) || slices.ContainsFunc(vacated(small), large.concerns)
}

// concerns tells whether it matters to s what r says.
func (s PathSet) concerns(r Record) bool {
	if _, named := s.find(r.Path); named {
		return true
	}
	if r.closed() || r.Spans() {
		if i, _ := s.find(r.Path + "/"); i < len(s) && Under(r.Path, s[i].Path) {
			return true
		}
	}
	for dir := parent(r.Path); dir != ""; dir = parent(dir) {
		if i, named := s.find(dir); named && (s[i].closed() || s[i].Spans()) {
			return true
		}
	}
	return false
}

// find returns where path is in s, or would be.
func (s PathSet) find(path string) (at int, there bool) {
	return slices.BinarySearchFunc(s, path, func(r Record, path string) int { return strings.Compare(r.Path, path) })
}
