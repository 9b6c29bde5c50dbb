package pace

import (
	"time"

	"github.com/mirrorbus/mirrorbus/listener/inbox"
)

// The kinds of work that have a rate budget each, per module. Whatever messages say, a mirror asks its upstream for no more than these allow;
// and catching up never uses up what live work needs. Flips cost the upstream nothing and have none.
const (
	WorkLive     = "live"     // a batch of announcements
	WorkLook     = "look"     // reading the upstream's head and journal
	WorkManifest = "manifest" // comparing the tree with the upstream's manifest
	WorkFull     = "full"     // an rsync of everything
	WorkPush     = "push"     // likewise, because somebody who may says that something has changed and not what
)

// A Budget lets work begin Burst times at once and then once in Every.
type Budget struct {
	Burst int
	Every time.Duration
}

// DefaultBudgets are the budgets of a module.
func DefaultBudgets() map[string]Budget {
	return map[string]Budget{
		WorkLive:     {Burst: 20, Every: time.Second},
		WorkLook:     {Burst: 10, Every: 10 * time.Second},
		WorkManifest: {Burst: 3, Every: 10 * time.Minute},
		WorkFull:     {Burst: 1, Every: 6 * time.Hour},
		WorkPush:     {Burst: 4, Every: time.Minute},
	}
}

// Take tells whether one piece of work may begin now: if so wait is 0 and left is what is then left, else wait is how long it takes until it may.
// A bucket never used is full, and so is one that was used in a future further off than Every: the clock was set back since, and nothing says how
// long ago that use was.
func (g Budget) Take(b inbox.Bucket, now time.Time) (left inbox.Bucket, wait time.Duration) {
	if g.Burst <= 0 || g.Every <= 0 {
		return b, 0
	}
	tokens := float64(g.Burst)
	if !b.At.IsZero() && b.At.Sub(now) <= g.Every {
		tokens = min(tokens, b.Tokens+max(now.Sub(b.At), 0).Seconds()/g.Every.Seconds())
	}
	if tokens < 1 {
		return b, time.Duration((1-tokens)*float64(g.Every)) + time.Millisecond
	}
	return inbox.Bucket{Tokens: tokens - 1, At: now}, 0
}
