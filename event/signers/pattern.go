package signers

import "strings"

// maxPattern is the longest pattern in bytes that ssh-keygen looks at.
const maxPattern = 1022

// matchList tells whether s matches a comma list of patterns: at least one of them, and none that begins with "!".
func matchList(s, list string) bool {
	matched := false
	for pattern := range strings.SplitSeq(list, ",") {
		pattern, negated := strings.CutPrefix(pattern, "!")
		if !match(s, pattern) {
			continue
		}
		if negated {
			return false
		}
		matched = true
	}
	return matched
}

// match tells whether s matches a pattern in which * stands for any bytes and ? for any one byte. Its time is at most len(s) times len(pattern).
func match(s, pattern string) bool {
	i, p := 0, 0
	star, from := -1, 0 // the last * seen, and where what it stands for ends
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, from = p, i
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			i++
			p++
		case star >= 0:
			from++
			i, p = from, star+1
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
