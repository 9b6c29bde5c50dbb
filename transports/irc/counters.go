package irc

import "sync/atomic"

// counters are what a transport has seen since it was opened.
type counters struct {
	connects, rejoins, said, throttled, refused, heard, ignored, partsDropped, withheld, asked, told, embargoed atomic.Uint64
}

// Counters implements transports.Counter.
func (t *transport) Counters() map[string]uint64 {
	c := &t.counts
	return map[string]uint64{
		"connects": c.connects.Load(), "rejoins": c.rejoins.Load(),
		"lines_said": c.said.Load(), "throttled": c.throttled.Load(), // lines that had to wait for the limit
		"embargoed":   c.embargoed.Load(),                          // messages that not everybody may hear, and which were not said
		"refused":     c.refused.Load(),                            // messages that the server did not take
		"lines_heard": c.heard.Load(), "ignored": c.ignored.Load(), // lines of others, and those of them that were not for us
		"asked": c.asked.Load(), "told": c.told.Load(), // commands of people, and lines for people
		"parts_dropped": c.partsDropped.Load(), "withheld": c.withheld.Load(), // lines that the library would have said
	}
}
