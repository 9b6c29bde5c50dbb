package mail

import (
	"slices"
	"strings"

	"github.com/mirrorbus/mirrorbus/transports"
)

// public tells whether everybody may hear of a topic. A mail is read by every server on its way, and a digest by whoever is on a list.
func (t *transport) public(topic transports.Topic) bool {
	return t.env.Allowed == nil || topic.Kind != transports.Announce || t.env.Allowed("", topic, true) == nil
}

// recipients are those whom a message of a topic is for: all, or where only some mirrors may hear of it, the addresses that are known to be theirs.
func (t *transport) recipients(topic transports.Topic) []string {
	if t.public(topic) {
		return t.post.To
	}
	return slices.DeleteFunc(slices.Clone(t.post.To), func(to string) bool {
		name := t.names[strings.ToLower(to)]
		return name == "" || t.env.Allowed(name, topic, true) != nil
	})
}
