package irc

import (
	"bytes"
	"strings"

	"github.com/mirrorbus/mirrorbus/transports"
)

// signedLine is how a line of the bus begins.
const signedLine = "mirrorbus1 "

// lineTopic is the topic of a signed line, read from its words.
//
// A transport does not look into what it moves. This one does in this one place, for the sake of those who read along: a line that stood in a frame
// which repeats its kind and module would be longer than a channel takes, and could not be checked with other tools as it stands. Nothing is believed
// here: who lies about the topic has written a line that no mirror takes.
func lineTopic(line string) (t transports.Topic, ok bool) {
	words := strings.Split(line, " ")
	if len(words) < 2 || words[0]+" " != signedLine || words[1] == "command" { // which is for the master that it is said to, see talk
		return t, false
	}
	t.Kind = transports.Announce
	if words[1] == "report" {
		t.Kind = transports.Report
	}
	for _, w := range words[2:] {
		if name, found := strings.CutPrefix(w, "module="); found {
			t.Module = name
			break
		}
	}
	return t, t.Check() == nil
}

// plainLine is what is said for a body that is one signed line. One with a line feed after it begins with a blank: so either comes out as it went in,
// byte by byte, and people see the same.
func plainLine(m transports.Message, room int) (text string, ok bool) {
	text, feed := strings.CutSuffix(string(m.Body), "\n")
	t, ok := lineTopic(text)
	if !ok || t != m.Topic || strings.HasSuffix(text, " ") || !printable(text) {
		return "", false
	}
	if feed {
		text = " " + text
	}
	return text, len(text) <= room
}

// saidLine is the body that was said as a plain line.
func saidLine(text string) (t transports.Topic, body []byte, ok bool) {
	line, feed := strings.CutPrefix(text, " ")
	if t, ok = lineTopic(line); !ok || !printable(line) {
		return t, nil, false
	}
	if feed {
		line += "\n"
	}
	return t, []byte(line), true
}

// goesByReference tells whether a body is a signed line with a path set after it. Mirrors fetch that from their upstream, sooner than it could be said;
// and a line in parts is one that nobody can read.
func goesByReference(body []byte) bool {
	end := bytes.IndexByte(body, '\n')
	return end >= 0 && end < len(body)-1 && bytes.HasPrefix(body, []byte(signedLine))
}

// printable tells whether a text is printable ASCII, as lines are: no codes for colours, and nothing that a server may change.
func printable(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r < 0x20 || r > 0x7e })
}
