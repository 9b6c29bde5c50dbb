package amqp

import "sync/atomic"

// counters are what a transport has seen since it was opened.
type counters struct {
	connects, received, skipped, dropped, redelivered, gaps, remade atomic.Uint64
	confirmed, unconfirmed, returned                                atomic.Uint64
}

// Counters implements transports.Counter.
func (t *transport) Counters() map[string]uint64 {
	c := &t.counts
	return map[string]uint64{
		"connects": c.connects.Load(), "received": c.received.Load(), "skipped": c.skipped.Load(), "dropped": c.dropped.Load(),
		"redelivered": c.redelivered.Load(), "gaps": c.gaps.Load(), "streams_remade": c.remade.Load(),
		"confirmed": c.confirmed.Load(), "unconfirmed": c.unconfirmed.Load(), "returned": c.returned.Load(),
	}
}
