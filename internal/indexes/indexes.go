// Package indexes knows which files of a repository name others: they are to be shown after what they name, and the master says what is in them.
package indexes

import (
	"fmt"

	"github.com/mirrorbus/mirrorbus/internal/filter"
)

// Presets are lists of patterns by the kind of repository. "generic" is all of them.
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

// Expand puts the patterns of presets in place of their names.
func Expand(list []string) (patterns []string) {
	for _, s := range list {
		if preset, ok := Presets(s); ok {
			patterns = append(patterns, preset...)
		} else {
			patterns = append(patterns, s)
		}
	}
	return patterns
}

// Rules includes what is no index.
func Rules(patterns []string) (*filter.Rules, error) {
	rules, err := filter.Parse(Excludes(patterns))
	if err != nil {
		return nil, fmt.Errorf("last patterns: %w", err)
	}
	return rules, nil
}

// Excludes are filter rules that leave indexes out.
func Excludes(patterns []string) []string {
	rules := make([]string, len(patterns))
	for i, p := range patterns {
		rules[i] = "- " + p
	}
	return rules
}
