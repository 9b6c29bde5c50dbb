package pace

import (
	"strings"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/listener/inbox"
)

// held is a module at serial 5 whose newest head says that a compose is under way for an hour.
func held() View {
	v := current()
	v.Head.Hold = time.Hour
	return v
}

func TestHeldUntil(t *testing.T) {
	const skew = 5 * time.Minute
	for name, c := range map[string]struct {
		change func(*View)
		now    time.Duration // after noon, when the head was signed and came
		want   time.Duration // after noon; 0 for not held
	}{
		"under way":                               {func(*View) {}, 0, time.Hour},
		"at its end":                              {func(*View) {}, time.Hour - time.Millisecond, time.Hour},
		"over":                                    {func(*View) {}, time.Hour, 0},
		"the head has expired":                    {func(*View) {}, 59 * time.Minute, time.Hour},
		"no head":                                 {func(v *View) { v.Head = nil }, 0, 0},
		"no hold":                                 {func(v *View) { v.Head.Hold = 0 }, 0, 0},
		"a clock that is slow":                    {func(v *View) { v.Head.Head.At = noon.Add(2 * time.Hour) }, 0, time.Hour},
		"a clock that is slow, over":              {func(v *View) { v.Head.Head.At = noon.Add(2 * time.Hour) }, time.Hour, 0},
		"a clock that is fast, and forgiven":      {func(v *View) { v.Head.Head.At = noon.Add(-4 * time.Minute) }, 0, time.Hour},
		"a clock that is fast":                    {func(v *View) { v.Head.Head.At = noon.Add(-20 * time.Minute) }, 0, 45 * time.Minute},
		"a head that was replayed a day later":    {func(v *View) { v.Head.Head.At = noon.Add(-24 * time.Hour) }, 0, 0},
		"the clock was set back since":            {func(*View) {}, -6 * time.Minute, 0},
		"a change came before the head":           {func(v *View) { pending(v, here); v.Head.Serial = 6 }, 0, time.Hour},
		"a flip came after the head":              {func(v *View) { pending(v, timed) }, 0, time.Hour},
		"a change came after the head":            {func(v *View) { pending(v, here) }, 0, 0},
		"a change without its set came after":     {func(v *View) { pending(v, bare) }, 0, 0},
		"a change that may be anything came":      {func(v *View) { pending(v, timed, wide) }, 0, 0},
		"a change of another epoch than the head": {func(v *View) { pending(v, here); v.Head.Epoch = "00000001" }, 0, time.Hour},
	} {
		v := held()
		c.change(&v)
		got := HeldUntil(v.Snapshot, noon.Add(c.now), skew)
		if c.want == 0 && !got.IsZero() || c.want != 0 && !got.Equal(noon.Add(c.want)) {
			t.Errorf("%s: until %v, want %v", name, got, c.want)
		}
	}
}

// What is decided while the master is in the middle of a compose, and, to show that this is why, without it.
func TestDecideInACompose(t *testing.T) {
	flip := inbox.Item{Kind: event.Flip, Set: true}
	before := func(v *View, items ...inbox.Item) { // announced before the compose began
		pending(v, items...)
		v.Head.Serial = v.Through
		v.Flips = nil // they have no time
	}
	for name, c := range map[string]struct {
		change   func(*View)
		want     Verb
		upto     event.Serial
		at       time.Duration // after noon, for Wait
		without  Verb
		expected event.Serial
	}{
		"nothing to do":    {func(*View) {}, Wait, 0, 10 * time.Minute, Wait, 0},
		"no end of news":   {func(v *View) { v.Head.Hold = time.Minute }, Wait, 0, time.Minute, Wait, 0},
		"announced before": {func(v *View) { before(v, here, here) }, Wait, 0, 10 * time.Minute, Batch, 7},
		"new":              {func(v *View) { v.Epoch, v.Applied, v.Through, v.Top = "", 0, 0, 0 }, Wait, 0, 10 * time.Minute, Compare, 0},
		"another epoch":    {func(v *View) { v.Head.Epoch, v.Head.Via = "00000001", inbox.ViaUpstream }, Wait, 0, 10 * time.Minute, Compare, 0},
		"lost":             {func(v *View) { v.Lost = "x" }, Wait, 0, 10 * time.Minute, Compare, 0},
		"wide":             {func(v *View) { before(v, wide) }, Wait, 0, 10 * time.Minute, Compare, 0},
		"pushed, an upstream that exports nothing": {func(v *View) { v.Push = inbox.Push{Asked: 1, Plain: true} }, Wait, 0, 10 * time.Minute, Push, 0},
		"flips pass":                {func(v *View) { before(v, flip, flip) }, Batch, 7, 0, Batch, 7},
		"flips pass up to a change": {func(v *View) { before(v, flip, here, flip) }, Batch, 6, 0, Batch, 8},
		"a path set is fetched":     {func(v *View) { before(v, bare) }, Journal, 0, 0, Journal, 0},
		"a gap is filled":           {func(v *View) { v.Top, v.Head.Serial = 9, 9 }, Journal, 0, 0, Journal, 0},
		"what may tell of its end":  {func(v *View) { before(v, here); v.Top = 9 }, Journal, 0, 0, Batch, 6},
		"connected":                 {func(v *View) { v.Look = noon }, Look, 0, 0, Look, 0},
		"told to look":              {func(v *View) { before(v, here); v.Look = noon }, Look, 0, 0, Batch, 6},
		"failed before it began":    {func(v *View) { before(v, here); v.Trouble = failed(2) }, Look, 0, 0, Batch, 6},
		"held for deletions":        {func(v *View) { before(v, here); v.Trouble = inbox.Trouble{Kind: "held"} }, Wait, 0, 0, Wait, 0},
		"committed":                 {func(v *View) { pending(v, here) }, Batch, 6, 0, Batch, 6},
		"committed behind others":   {func(v *View) { before(v, here); pending(v, here) }, Batch, 7, 0, Batch, 7},
	} {
		t.Run(name, func(t *testing.T) {
			v := held()
			c.change(&v)
			got := testPace.Decide(v)
			var at time.Time
			if c.want == Wait && c.at > 0 {
				at = noon.Add(c.at)
			}
			if got.Do != c.want || got.Through != c.upto || !got.At.Equal(at) || got.Why == "" {
				t.Errorf("%+v, want %s %d at %v", got, c.want, c.upto, at)
			}
			if got.Do == Wait && v.Trouble.Kind == "" && !strings.Contains(got.Why, "in the middle of a compose, until 20") {
				t.Errorf("it does not say why: %s", got.Why)
			}
			v.Head.Hold = 0
			if got := testPace.Decide(v); got.Do != c.without || got.Through != c.expected {
				t.Errorf("without a compose: %+v, want %s %d", got, c.without, c.expected)
			}
		})
	}
}

// A module says that it waits for a compose where there is something that it would do otherwise, and not what that led to.
func TestStateInACompose(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*View)
		want   State
	}{
		"nothing to do":    {func(*View) {}, Current},
		"announced before": {func(v *View) { pending(v, here); v.Head.Serial = 6 }, Composing},
		"committed":        {func(v *View) { pending(v, here) }, Behind},
		"new":              {func(v *View) { v.Epoch = "" }, Composing},
		"failed":           {func(v *View) { pending(v, here); v.Head.Serial = 6; v.Trouble.Kind = string(Waiting) }, Composing},
		"disk full":        {func(v *View) { pending(v, here); v.Head.Serial = 6; v.Trouble.Kind = string(Blocked) }, Blocked},
		"quarantined":      {func(v *View) { pending(v, here); v.Head.Serial = 6; v.Quarantine = "x" }, Quarantined},
	} {
		v := held()
		c.change(&v)
		if got, _ := StateOf(v.Snapshot, time.Time{}, noon, testPace.Skew); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}
