package plan

import (
	"path"
	"slices"
	"strings"

	"github.com/mirrorbus/mirrorbus/internal/filter"
	"github.com/mirrorbus/mirrorbus/internal/indexes"
)

// entrance tells whether a name is that of an index by which readers begin; it comes after the indexes that it names.
func entrance(p string) bool {
	base := path.Base(p)
	return base == "Release" || base == "InRelease" || strings.HasPrefix(base, "Release.") || strings.HasPrefix(base, "repomd.xml")
}

// lastRules makes rules that include what is not last.
func lastRules(patterns []string) (*filter.Rules, error) { return indexes.Rules(patterns) }

// filters are the rules for a run that walks, first the patterns to leave for later.
func (m *maker) filters(withoutLast bool) []string {
	var rules []string
	if withoutLast {
		rules = indexes.Excludes(m.in.Last)
	}
	if text := m.in.Subset.String(); text != "" {
		rules = append(rules, strings.Split(text, "\n")...)
	}
	return slices.Clip(rules)
}
