package ssh

import (
	"cmp"
	"fmt"
	"strings"
)

// pushNote says of all such mirrors what is known of them, which is little; "" if there is none.
func (m *Master) pushNote() string {
	if len(m.pushers) == 0 {
		return ""
	}
	var behind []string
	for _, p := range m.pushers {
		if text, _ := p.standing(); text != "" {
			behind = append(behind, text)
		}
	}
	text := fmt.Sprintf("mirrors that run ftpsync, with %d in all of our modules, are told of changes and report nothing", len(m.pushers))
	if len(behind) == 0 {
		return text + "; each has done what it was last told"
	}
	return text + "; " + strings.Join(behind, "; ")
}

// standing says what the mirror lacks, "" if nothing, and whether that is because it failed.
func (p *pusher) standing() (text string, failed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	what := fmt.Sprintf("%s (%s) ", p.at.Name, p.module)
	switch {
	case p.err != nil:
		return fmt.Sprintf("%swas not brought up to date: %v", what, p.err), true
	case p.want != p.told:
		return what + cmp.Or(p.doing, "is at work"), false
	}
	return "", false
}
