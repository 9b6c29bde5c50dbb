package poll

import (
	"crypto/sha256"
	"strings"
	"time"

	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/words"
)

// A watch is a place that is looked at for a topic. All but the first three are guarded by mirror.mu, or belong to its one follower.
type watch struct {
	topic transports.Topic
	place place
	name  string

	tempo   tempo
	due     time.Time // of the next look
	looked  time.Time // zero: never
	changed time.Time // when something new was found last
	blind   time.Time // since when it cannot be told what is there; zero: it can
	err     error     // why

	seen map[[sha256.Size]byte]bool // what was there when all of it was taken, and what was taken since
	at   string                     // where the newest head said the module stands
}

// isNews tells whether a body says more than that what was known still holds.
func (w *watch) isNews(body []byte) bool {
	said := words.Of(body)
	if said[""] != "head" {
		return true
	}
	was := w.at
	w.at = said["epoch"] + ":" + said["serial"]
	return w.at != was
}

// String says where the watch stands, for status.
func (w *watch) String() string {
	text := w.name + ": "
	switch {
	case w.looked.IsZero():
		return text + "not looked at yet"
	case w.err != nil:
		reason := strings.Map(func(r rune) rune {
			if r < ' ' || r == 0x7f {
				return ' '
			}
			return r
		}, w.err.Error())
		text += "cannot tell since " + stamp(w.blind) + ": " + reason
	default:
		text += "looked " + stamp(w.looked)
	}
	if w.changed.IsZero() {
		text += ", nothing found so far"
	} else {
		text += ", changed " + stamp(w.changed)
	}
	return text + ", next look " + stamp(w.due)
}
