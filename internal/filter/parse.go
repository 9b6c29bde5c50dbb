package filter

import (
	"errors"
	"fmt"
	"strings"
)

// maxRule is the longest rule in bytes, rsync's own limit for a path.
const maxRule = 4096

// Parse reads rules, one per element, in rsync's syntax. An error names the rule and its number, counted from 1.
func Parse(rules []string) (*Rules, error) {
	r := new(Rules)
	for i, text := range rules {
		x, err := parseRule(text)
		switch {
		case err != nil:
			return nil, fmt.Errorf("filter rule %d %.200q: %w", i+1, text, err)
		case x == nil:
			r.list = nil
		default:
			r.list = append(r.list, *x)
		}
	}
	return r, nil
}

// parseRule returns nil without an error for the rule that clears the list.
func parseRule(text string) (*rule, error) {
	switch {
	case text == "":
		return nil, errors.New("is empty")
	case len(text) > maxRule:
		return nil, fmt.Errorf("is %d bytes, at most %d", len(text), maxRule)
	case strings.IndexByte(text, 0) >= 0:
		return nil, errors.New("holds a NUL byte")
	}
	head, pat, found := text, "", false
	if i := strings.IndexAny(text, " _"); i >= 0 {
		head, pat, found = text[:i], text[i+1:], true
	}
	kind, modifiers, err := parseKind(head)
	if err != nil {
		return nil, err
	}
	if kind == '!' {
		if modifiers != "" || found {
			return nil, errors.New("clear takes neither modifiers nor a pattern")
		}
		return nil, nil
	}
	return makeRule(kind, modifiers, pat)
}

// parseKind splits what stands before the space into rsync's one-letter kind of rule and the modifiers.
func parseKind(head string) (kind byte, modifiers string, err error) {
	word, modifiers, comma := strings.Cut(head, ",")
	if kind = longKind(word); kind == 0 && word != "" && (!comma || len(word) == 1) {
		kind = word[0]
		modifiers = word[1:] + modifiers
	}
	switch kind {
	case '+', '-', 'S', 'H', 'R', 'P', '!':
		return kind, modifiers, nil
	case '.', ':':
		return 0, "", errors.New("merge files are not supported; write their rules here")
	case '#', ';':
		return 0, "", errors.New("comments are not rules; leave it out")
	}
	return 0, "", fmt.Errorf("unknown kind of rule %.20q; the kinds are + - S H R P ! and include exclude show hide risk protect clear", head)
}

func longKind(word string) byte {
	switch word {
	case "include":
		return '+'
	case "exclude":
		return '-'
	case "show":
		return 'S'
	case "hide":
		return 'H'
	case "risk":
		return 'R'
	case "protect":
		return 'P'
	case "clear":
		return '!'
	case "merge":
		return '.'
	case "dir-merge":
		return ':'
	}
	return 0
}

func makeRule(kind byte, modifiers, pat string) (*rule, error) {
	x := &rule{
		include:  strings.IndexByte("+SR", kind) >= 0,
		sender:   strings.IndexByte("SH", kind) >= 0,
		receiver: strings.IndexByte("RP", kind) >= 0,
		text:     string(kind) + modifiers + " " + pat,
	}
	oneSided := x.sender || x.receiver
	negate := false
	for _, m := range []byte(modifiers) {
		switch {
		case m == '!':
			negate = true
		case m == 'p':
			x.perishable = true
		case (m == 's' || m == 'r') && !oneSided:
			x.sender = x.sender || m == 's'
			x.receiver = x.receiver || m == 'r'
		default:
			return nil, modifierError(m, kind)
		}
	}
	if !x.sender && !x.receiver {
		x.sender, x.receiver = true, true
	}
	if pat == "" {
		return nil, errors.New("has no pattern; write the kind of rule, one space and the pattern")
	}
	p, err := compile(pat, negate)
	if err != nil {
		return nil, err
	}
	x.pattern = p
	return x, nil
}

func modifierError(m, kind byte) error {
	switch m {
	case 's', 'r':
		return fmt.Errorf("modifier %c does not go with %c, which says its side already", m, kind)
	case 'C', 'e', 'n', 'w', 'x', '/':
		return fmt.Errorf("modifier %c is not supported; s r p ! are", m)
	}
	return fmt.Errorf("unknown modifier %q; a space must separate the kind of rule from the pattern", m)
}
