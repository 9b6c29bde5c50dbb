package signers

import (
	"regexp"
	"strings"
	"testing"
)

// reference is the meaning of a pattern in other words.
func reference(s, pattern string) bool {
	var re strings.Builder
	for i := range len(pattern) {
		switch pattern[i] {
		case '*':
			re.WriteString(`.*`)
		case '?':
			re.WriteString(`.`)
		default:
			re.WriteString(regexp.QuoteMeta(hexed(pattern[i : i+1])))
		}
	}
	return regexp.MustCompile(`^(?s:` + re.String() + `)$`).MatchString(hexed(s))
}

// hexed gives each byte a rune of its own, since regular expressions read UTF-8.
func hexed(s string) string {
	runes := make([]rune, len(s))
	for i := range len(s) {
		runes[i] = rune(s[i]) + 0x100
	}
	return string(runes)
}

func FuzzMatch(f *testing.F) {
	f.Add("fedora", "f*a", "!f*")
	f.Add("a", "?*", "*?*?")
	f.Add("", "*", "")
	f.Add("mirror1@example.org", "*@example.???", "!mirror1@*")
	f.Fuzz(func(t *testing.T, s, one, two string) {
		if len(s)+len(one)+len(two) > 300 {
			return
		}
		if got, want := match(s, one), reference(s, one); got != want {
			t.Errorf("%q matches %q: %v, want %v", s, one, got, want)
		}
		yes, no := false, false
		for pattern := range strings.SplitSeq(one+","+two, ",") {
			if p, negated := strings.CutPrefix(pattern, "!"); negated {
				no = no || reference(s, p)
			} else {
				yes = yes || reference(s, p)
			}
		}
		if got := matchList(s, one+","+two); got != (yes && !no) {
			t.Errorf("%q matches the list %q: %v, want %v", s, one+","+two, got, yes && !no)
		}
	})
}
