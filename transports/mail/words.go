package mail

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/words"
)

// What a person reads is made here, of the topic and of the words of the signed line at most. What is decided by them is only whether a mail that says no
// more than the last one is worth sending.

// beats tells whether a message says no more than that somebody is alive, and where it stands.
func beats(m transports.Message) bool {
	said := words.Of(m.Body)
	return said[""] == "head" || said[""] == "report" && said["outcome"] == "have"
}

// subject is one line for a list of mails.
func subject(m transports.Message) string {
	text := "[mirrorbus] " + gist(m)
	return text[:min(len(text), 200)] // it is ASCII
}

func gist(m transports.Message) string {
	said, module := words.Of(m.Body), m.Topic.Module
	switch said[""] {
	case "change":
		if said["n"] != "" {
			return fmt.Sprintf("%s: %s changed paths, serial %s", module, said["n"], said["serial"])
		}
		return fmt.Sprintf("%s: changes, serial %s", module, said["serial"])
	case "flip":
		return fmt.Sprintf("%s: a release shows itself, serial %s", module, said["serial"])
	case "head":
		return fmt.Sprintf("%s: is at serial %s", module, said["serial"])
	case "report":
		return fmt.Sprintf("%s: %s has serial %s %s", module, said["mirror"], said["serial"], said["outcome"])
	}
	return fmt.Sprintf("%s: %s", module, m.Topic.Kind)
}

// text is the part that people read.
func text(m transports.Message) string {
	said := words.Of(m.Body)
	lines := []string{gist(m) + "."}
	for _, row := range [][2]string{{"at", "When"}, {"epoch", "Epoch"}, {"err", "Error"}} {
		if said[row[0]] != "" {
			lines = append(lines, fmt.Sprintf("%s: %s", row[1], said[row[0]]))
		}
	}
	lines = append(lines, "")
	if m.Topic.Kind == transports.Announce {
		lines = append(lines, "Nothing is to be done: the agent of the mirror takes the attachment and fetches what has changed.",
			"Where no agent runs, `mirrorbus poll` does, or a run of rsync.")
	} else {
		lines = append(lines, "Nothing is to be done: the hub of the master takes the attachment. `mirrorbus status` shows it.")
	}
	lines = append(lines, "", "The attachment is what was signed; `mirrorbus show` reads it. A mail without it means nothing.")
	if said != nil {
		line, _, _ := bytes.Cut(m.Body, []byte("\n"))
		lines = append(lines, "", string(line))
	}
	return strings.Join(lines, "\r\n") + "\r\n"
}
