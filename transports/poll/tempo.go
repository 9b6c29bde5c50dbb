package poll

import (
	"time"

	"github.com/mirrorbus/mirrorbus/transports"
)

// A tempo works out when to look again: soon after news, as more often comes, and less and less often when nothing does. It is told all it needs, the random
// numbers too, so that it can be tried without a clock.
type tempo struct {
	least, most time.Duration
	wait        time.Duration    // the present one, zero before the first look
	pause       transports.Pause // after errors
}

func newTempo(least, most time.Duration) tempo {
	return tempo{least: least, most: most, pause: transports.Pause{Min: least, Max: most}}
}

// mostAsked is how long a server may ask to be left alone for.
const mostAsked = time.Hour

// looked is the wait after a look that told something, news or that there is none. fresh is for how long the answer would be the same, as who gave it says:
// an answer that is kept for longer than the longest wait is asked for all the same. spread is a random number from 0 to 1.
func (t *tempo) looked(news bool, fresh time.Duration, spread float64) time.Duration {
	t.pause.Reset()
	if news || t.wait == 0 {
		t.wait = t.least
	} else {
		t.wait = min(t.wait+t.wait/2, t.most)
	}
	wait := t.wait - t.wait/4 + time.Duration(spread*float64(t.wait)/2) // a quarter more or less
	return max(wait, min(fresh, t.most))
}

// failed is the wait after a look that told nothing. asked is for how long the server wants to be left alone.
func (t *tempo) failed(permanent bool, asked time.Duration, spread float64) time.Duration {
	wait := t.pause.Next(spread)
	if permanent {
		wait = t.most
	}
	return max(wait, t.least/4, min(asked, mostAsked))
}
