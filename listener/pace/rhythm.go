package pace

import "time"

// A Rhythm is how often the upstream's head is looked at by itself.
type Rhythm struct {
	Least time.Duration // after news that no transport had brought
	Most  time.Duration // where there has been none for long
}

// Next is the wait after a look, given the one before it (0 if there was none). Each look without news doubles it. spread, a random number from 0 to 1,
// takes off up to a quarter, so that mirrors that began together part.
func (r Rhythm) Next(before time.Duration, news bool, spread float64) time.Duration {
	wait := r.Most
	switch {
	case news:
		wait = min(r.Least, r.Most)
	case before > 0:
		wait = min(2*before, r.Most)
	}
	return wait - time.Duration(spread*float64(wait)/4)
}

// stalePause is the wait between two looks while the newest head has expired: the longer it is so, the longer, up to what is usual.
func stalePause(expired, usual time.Duration) time.Duration {
	return min(max(expired/8, usual/10), usual)
}
