package irc

import (
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
	if len(words) < 2 || words[0]+" " != signedLine {
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

// plainLine is the line to say for a body that is one signed line and a line feed, which is how lines travel alone. Only a body that is made from it
// again byte by byte is said so.
func plainLine(m transports.Message, room int) (line string, ok bool) {
	line, ok = strings.CutSuffix(string(m.Body), "\n")
	if !ok || len(line) > room || strings.HasSuffix(line, " ") || !printable(line) {
		return "", false
	}
	t, ok := lineTopic(line)
	return line, ok && t == m.Topic
}

// printable tells whether a text is printable ASCII, as lines are: no codes for colours, and nothing that a server may change.
func printable(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r < 0x20 || r > 0x7e })
}
