package plan

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/mirrorbus/mirrorbus/internal/filter"
)

// Presets are lists of "last" patterns by the kind of repository. "generic" is all of them.
func Presets(name string) ([]string, bool) {
	switch name {
	case "debian": // everything in dists/ names something; the rest lists the archive
		return []string{"dists/", "indices/", "ls-lR*", "/project/trace/"}, true
	case "rpm":
		return []string{"repodata/", "fullfiletimelist-*", "fullfilelist", "imagelist-*"}, true
	case "alpine":
		return []string{"APKINDEX*", "last-updated"}, true
	case "arch":
		return []string{"*.db", "*.db.*", "*.files", "*.files.*", "/lastsync", "/lastupdate"}, true
	case "cpan":
		return []string{"/modules/0*", "/authors/0*", "RECENT*", "CHECKSUMS"}, true
	case "generic":
		var all []string
		for _, name := range []string{"debian", "rpm", "alpine", "arch", "cpan"} {
			list, _ := Presets(name)
			all = append(all, list...)
		}
		return append(all, "*SUMS", "*SUMS.*", "SHA256", "/latest"), true
	}
	return nil, false
}

// entrance tells whether a name is that of an index by which readers begin; it comes after the indexes that it names.
func entrance(p string) bool {
	base := path.Base(p)
	return base == "Release" || base == "InRelease" || strings.HasPrefix(base, "Release.") || strings.HasPrefix(base, "repomd.xml")
}

// lastRules makes rules that include what is not last.
func lastRules(patterns []string) (*filter.Rules, error) {
	rules, err := filter.Parse(excludes(patterns))
	if err != nil {
		return nil, fmt.Errorf("last patterns: %w", err)
	}
	return rules, nil
}

func excludes(patterns []string) []string {
	rules := make([]string, len(patterns))
	for i, p := range patterns {
		rules[i] = "- " + p
	}
	return rules
}

// filters are the rules for a run that walks, first the patterns to leave for later.
func (m *maker) filters(withoutLast bool) []string {
	var rules []string
	if withoutLast {
		rules = excludes(m.in.Last)
	}
	if text := m.in.Subset.String(); text != "" {
		rules = append(rules, strings.Split(text, "\n")...)
	}
	return slices.Clip(rules)
}
