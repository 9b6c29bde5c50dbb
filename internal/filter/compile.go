package filter

import (
	"errors"
	"fmt"
	"strings"
)

// compile translates a pattern by the rules of rsync(1), PATTERN MATCHING RULES.
func compile(text string, negate bool) (pattern, error) {
	p := pattern{negate: negate}
	if len(text) > 1 && strings.HasSuffix(text, "/") {
		text, p.dirOnly = text[:len(text)-1], true
	}
	wild := strings.ContainsAny(text, "*?[")
	crosses := strings.Contains(text, "**") // whatever surrounds it: rsync looks no closer
	slashes := strings.Count(text, "/")
	body, anchored := strings.CutPrefix(text, "/")
	p.dirSlash = strings.HasSuffix(text, "***")
	p.virtualSlash = strings.HasPrefix(text, "**")
	switch {
	case anchored || p.virtualSlash:
		p.begin = beginTop
	case crosses:
		p.begin = beginAny
	default:
		p.begin, p.elems = beginLast, slashes+1
	}
	var err error
	p.tokens, err = tokenize(body, wild)
	p.needs = longest(p.tokens)
	return p, err
}

// longest is the longest row of characters among the tokens, without slashes around it: they need not be in a path, see virtualSlash and dirSlash.
func longest(tokens []token) (row string) {
	var now []byte
	for i, t := range tokens {
		if t.kind == literal {
			now = append(now, t.char)
		}
		if t.kind != literal || i == len(tokens)-1 {
			if found := strings.Trim(string(now), "/"); len(found) > len(row) {
				row = found
			}
			now = now[:0]
		}
	}
	return row
}

// tokenize reads a pattern's body. Without a wildcard a backslash is a plain character.
func tokenize(body string, wild bool) ([]token, error) {
	tokens := make([]token, 0, len(body))
	for i := 0; i < len(body); {
		t, n := token{kind: literal, char: body[i]}, 1
		if wild {
			var err error
			if t, n, err = nextToken(body[i:]); err != nil {
				return nil, err
			}
		}
		tokens = append(tokens, t)
		i += n
	}
	return tokens, nil
}

// nextToken reads the token that s, which is not empty, begins with and returns how many bytes it took.
func nextToken(s string) (token, int, error) {
	switch s[0] {
	case '\\':
		if len(s) == 1 {
			return token{}, 0, errors.New(`ends in a backslash that escapes nothing; write \\ for the character itself`)
		}
		return token{kind: literal, char: s[1]}, 2, nil
	case '?':
		return token{kind: anyChar}, 1, nil
	case '*':
		n := len(s) - len(strings.TrimLeft(s, "*"))
		if n > 1 {
			return token{kind: starStar}, n, nil
		}
		return token{kind: star}, 1, nil
	case '[':
		set, n, err := parseSet(s[1:])
		return token{kind: class, set: set}, n + 1, err
	}
	return token{kind: literal, char: s[0]}, 1, nil
}

// A charSet is a set of bytes.
type charSet [4]uint64

func (s *charSet) has(c byte) bool { return s[c/64]>>(c%64)&1 == 1 }
func (s *charSet) add(c byte)      { s[c/64] |= 1 << (c % 64) }

func (s *charSet) addRange(low, high byte) {
	for c := int(low); c <= int(high); c++ {
		s.add(byte(c))
	}
}

var errUnclosed = errors.New(`has a "[" without its "]"; write \[ for the character itself`)

// parseSet reads what follows "[" and returns how many bytes it took, the closing "]" among them. As in rsync a "]" that comes first is a
// member, and so is a "-" that does not stand between two characters.
func parseSet(s string) (*charSet, int, error) {
	set := new(charSet)
	i := 0
	negate := s != "" && (s[0] == '!' || s[0] == '^')
	if negate {
		i++
	}
	previous := -1 // the character that a "-" would make a range from
	for first := true; ; first = false {
		switch {
		case i >= len(s):
			return nil, 0, errUnclosed
		case s[i] == ']' && !first:
			if negate {
				for w := range set {
					set[w] = ^set[w]
				}
			}
			return set, i + 1, nil
		}
		var err error
		if i, previous, err = set.member(s, i, previous); err != nil {
			return nil, 0, err
		}
	}
}

// member adds the character, range or named class at s[i:] and returns where the next one begins and what it could make a range from.
func (s *charSet) member(text string, i, previous int) (next, now int, err error) {
	c := text[i]
	switch {
	case c == '-' && previous > 0 && i+1 < len(text) && text[i+1] != ']':
		high, next, err := setChar(text, i+1)
		if err != nil {
			return 0, 0, err
		}
		s.addRange(byte(previous), high)
		return next, -1, nil
	case strings.HasPrefix(text[i:], "[:"):
		end := strings.IndexByte(text[i+2:], ']')
		if end < 0 {
			return 0, 0, errUnclosed
		}
		name, closed := strings.CutSuffix(text[i+2:i+2+end], ":")
		if !closed {
			break // an ordinary "["
		}
		if !s.addNamed(name) {
			return 0, 0, fmt.Errorf("has an unknown character class [:%s:]", name)
		}
		return i + 2 + end + 1, -1, nil
	}
	c, next, err = setChar(text, i)
	if err != nil {
		return 0, 0, err
	}
	s.add(c)
	return next, int(c), nil
}

// setChar reads one character, which may be escaped.
func setChar(text string, i int) (c byte, next int, err error) {
	if text[i] != '\\' {
		return text[i], i + 1, nil
	}
	if i+1 == len(text) {
		return 0, 0, errUnclosed
	}
	return text[i+1], i + 2, nil
}

// addNamed adds a POSIX class of ASCII characters; rsync counts bytes above 127 to none.
func (s *charSet) addNamed(name string) bool {
	ranges := map[string]string{
		"alnum": "09AZaz", "alpha": "AZaz", "blank": "\t\t  ", "cntrl": "\x00\x1f\x7f\x7f", "digit": "09", "graph": "!~",
		"lower": "az", "print": " ~", "punct": "!/:@[`{~", "space": "\t\r  ", "upper": "AZ", "xdigit": "09AFaf",
	}[name]
	for i := 0; i+1 < len(ranges); i += 2 {
		s.addRange(ranges[i], ranges[i+1])
	}
	return ranges != ""
}
