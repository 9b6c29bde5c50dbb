package mail

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// A note is what is wrong with a recipient.
type note struct {
	what, why string
	since     time.Time

	// Of one whose mail came back: when the server first took a mail for it after that, and the Message-Ids of those, the newest last.
	began time.Time
	sent  []string
}

// The kinds of notes. One that is refused ends with the next mail that the server takes. That mail came back is told long after it was taken, so that ends
// when the recipient answers a later mail or, as people and lists never do, when none has come back for long.
const (
	isRefused = "is refused"
	comesBack = "comes back"
)

// backAgain is how long after the first mail since one came back, if no other does, it is believed that they get through.
const backAgain = 24 * time.Hour

// maxAnswerable is how many mails to a recipient are remembered, so that an answer to one of them is known as such.
const maxAnswerable = 16

// note keeps what is wrong with a recipient, for Notes.
func (t *transport) note(to, what, why string) {
	t.count("refused")
	t.mu.Lock()
	n, known := t.notes[to]
	if !known || n.what != what {
		n = note{what: what, since: time.Now().UTC()}
	}
	n.why, n.began, n.sent = oneLine(why), time.Time{}, nil
	t.notes[to] = n
	t.mu.Unlock()
	if !known {
		t.log.Warn("mail "+what, "to", to, "error", n.why)
	}
}

// accepted notes that the server has taken a mail for a recipient. mailID is that of one that may be answered, or "".
func (t *transport) accepted(to, mailID string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n, known := t.notes[to]
	switch {
	case !known:
	case n.what == isRefused:
		t.mended(to)
	default:
		if n.began.IsZero() {
			n.began = time.Now()
		}
		if mailID != "" {
			n.sent = append(n.sent, "<"+mailID+">")
			n.sent = n.sent[max(len(n.sent)-maxAnswerable, 0):]
		}
		t.notes[to] = n
	}
}

// answered takes back that mail to somebody came back, if this is an answer to one that was sent since. id is in the brackets of a Message-Id.
func (t *transport) answered(from, id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for to, n := range t.notes {
		if n.what == comesBack && strings.EqualFold(to, from) && slices.Contains(n.sent, id) {
			t.mended(to)
		}
	}
}

// mended forgets what was wrong with a recipient. The caller holds the lock.
func (t *transport) mended(to string) {
	delete(t.notes, to)
	t.log.Info("mail gets through again", "to", to)
}

// Notes implements transports.Noter: which recipients cannot be reached.
func (t *transport) Notes() (all []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, to := range slices.Sorted(maps.Keys(t.notes)) {
		n := t.notes[to]
		if !n.began.IsZero() && time.Since(n.began) > backAgain {
			t.mended(to)
			continue
		}
		all = append(all, fmt.Sprintf("mail to %s %s since %s: %s", to, n.what, n.since.Format(time.RFC3339), n.why))
	}
	return all
}

// Degraded implements transports.Degrader: what is noted is mail that does not arrive.
func (t *transport) Degraded() []string { return t.Notes() }

// oneLine is a text of others as it may stand in a log.
func oneLine(text string) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, text)
	return text[:min(len(text), 400)]
}
