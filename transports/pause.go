package transports

import "time"

// A Pause works out how long to wait before an attempt. The wait is drawn evenly from 0 to a limit that is Min at first and doubles up to Max:
// full jitter, so that those who lost the same server do not come back together.
type Pause struct {
	Min, Max time.Duration

	tries int
}

// Next is the wait before the next attempt. spread is a random number from 0 to 1.
func (p *Pause) Next(spread float64) time.Duration {
	limit := p.Min
	for n := 0; n < p.tries && limit < p.Max; n++ {
		limit *= 2
	}
	p.tries++
	return time.Duration(spread * float64(min(limit, max(p.Min, p.Max))))
}

// Reset makes the next limit Min again.
func (p *Pause) Reset() { p.tries = 0 }

// Lost is the wait before the next attempt after a connection, or an attempt to make one, has ended. One that lasted for steady brings the limit
// back to Min. After an error that somebody must mend the wait is Max.
func (p *Pause) Lost(lasted, steady time.Duration, permanent bool, spread float64) time.Duration {
	if lasted >= steady {
		p.Reset()
	}
	wait := p.Next(spread)
	if permanent {
		return p.Max
	}
	return wait
}
