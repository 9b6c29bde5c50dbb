package pace

import (
	"fmt"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/listener/inbox"
)

var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// current is a module at serial 5 with nothing to do.
func current() View {
	head := inbox.Head{Head: event.Head{Epoch: "7c1e9f02", Serial: 5, At: noon, TTL: 15 * time.Minute}, At: noon, Via: "mem"}
	return View{
		Snapshot: inbox.Snapshot{
			Module: inbox.Module{Epoch: "7c1e9f02", Applied: 5, AppliedAt: noon, Created: noon.Add(-time.Hour)},
			Head:   &head, Through: 5, Top: 5, Budgets: map[string]inbox.Bucket{},
		},
		Now: noon, Looked: noon,
	}
}

func pending(v *View, items ...inbox.Item) {
	for _, i := range items {
		v.Through++
		i.Serial, i.At = v.Through, noon
		if i.Kind == "" {
			i.Kind = event.Change
		}
		v.Todo = append(v.Todo, i)
		if i.Kind == event.Flip {
			v.Flips = append(v.Flips, inbox.Heard{Announcement: event.Announcement{Kind: event.Flip, Serial: i.Serial, At: noon, NotBefore: time.Hour}})
		}
	}
	v.Top, v.Oldest = v.Through, noon
}

var (
	here     = inbox.Item{Set: true}
	bare     = inbox.Item{}
	wide     = inbox.Item{Wide: true}
	timed    = inbox.Item{Kind: event.Flip, Set: true} // in an hour
	testPace = Tuning{LookEvery: 10 * time.Minute, Skew: 5 * time.Minute, Budgets: DefaultBudgets()}
)

// failed is a trouble after so many attempts, of which the next is due.
func failed(attempts int) inbox.Trouble {
	return inbox.Trouble{Kind: "retrying", Next: noon, Attempts: attempts}
}

func TestDecide(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*View)
		want   Verb
		upto   event.Serial
		at     time.Duration // after noon, for Wait
	}{
		"current":                      {func(*View) {}, Wait, 0, 10 * time.Minute},
		"nothing at once":              {func(v *View) { v.Look = noon.Add(time.Second) }, Wait, 0, time.Second},
		"connected":                    {func(v *View) { v.Look = noon }, Look, 0, 0},
		"no news":                      {func(v *View) { v.Now = noon.Add(11 * time.Minute) }, Look, 0, 0},
		"head expired":                 {func(v *View) { v.Now, v.Looked = noon.Add(21*time.Minute), noon.Add(20*time.Minute) }, Look, 0, 0},
		"head expired, looked":         {func(v *View) { v.Now, v.Looked = noon.Add(21*time.Minute), noon.Add(21*time.Minute) }, Wait, 0, 22 * time.Minute},
		"no head":                      {func(v *View) { v.Head, v.Looked = nil, time.Time{} }, Look, 0, 0},
		"one pending":                  {func(v *View) { pending(v, here) }, Batch, 6, 0},
		"three pending":                {func(v *View) { pending(v, here, here, here) }, Batch, 8, 0},
		"second has no set":            {func(v *View) { pending(v, here, bare, here) }, Batch, 6, 0},
		"first has no set":             {func(v *View) { pending(v, bare, here) }, Journal, 0, 0},
		"first is wide":                {func(v *View) { pending(v, wide, here) }, Compare, 0, 0},
		"second is wide":               {func(v *View) { pending(v, here, wide) }, Compare, 0, 0},
		"second is wide, no manifests": {func(v *View) { pending(v, here, wide); v.Budgets[WorkManifest] = inbox.Bucket{At: noon} }, Batch, 6, 0},
		"gap":                          {func(v *View) { v.Top = 9 }, Journal, 0, 0},
		"pending before a gap":         {func(v *View) { pending(v, here); v.Top = 9 }, Batch, 6, 0},
		"flip waits":                   {func(v *View) { pending(v, timed) }, Wait, 0, 10 * time.Minute},
		"change behind a flip":         {func(v *View) { pending(v, timed, here) }, Batch, 7, 0},
		"flip due":                     {func(v *View) { pending(v, timed); v.Now = noon.Add(time.Hour) }, Batch, 6, 0},
		"new":                          {func(v *View) { v.Epoch, v.Applied, v.Head = "", 0, nil }, Compare, 0, 0},
		"other epoch heard":            {func(v *View) { v.Head.Epoch, v.Head.At = "00000001", noon.Add(time.Second) }, Look, 0, 0},
		"other epoch, looked":          {func(v *View) { v.Head.Epoch = "00000001" }, Wait, 0, 10 * time.Minute},
		"upstream's other epoch":       {func(v *View) { v.Head.Epoch, v.Head.Via = "00000001", inbox.ViaUpstream }, Compare, 0, 0},
		"lost":                         {func(v *View) { pending(v, here); v.Lost = "journal ended" }, Compare, 0, 0},
		"quarantined":                  {func(v *View) { pending(v, here); v.Quarantine = "x" }, Wait, 0, 0},
		"retrying": {func(v *View) {
			pending(v, here)
			v.Trouble = inbox.Trouble{Kind: "retrying", Next: noon.Add(time.Second)}
		}, Wait, 0, time.Second},
		"retry due":                         {func(v *View) { pending(v, here); v.Trouble = inbox.Trouble{Kind: "retrying", Next: noon} }, Batch, 6, 0},
		"failed before one without its set": {func(v *View) { pending(v, here, bare, here); v.Trouble = failed(1) }, Journal, 0, 0},
		"failed so again":                   {func(v *View) { pending(v, here, bare, here); v.Trouble = failed(2) }, Batch, 6, 0},
		"failed before a gap":               {func(v *View) { pending(v, here); v.Top, v.Trouble = 9, failed(1) }, Journal, 0, 0},
		"failed, and all is here":           {func(v *View) { pending(v, here); v.Trouble = failed(1) }, Batch, 6, 0},
		"clock set back": {func(v *View) {
			pending(v, here)
			v.Trouble = inbox.Trouble{Kind: "retrying", Since: noon.Add(2 * time.Hour), Next: noon.Add(2*time.Hour + time.Minute)}
		}, Batch, 6, 0},
		"clock set back in a long trouble": {func(v *View) {
			pending(v, here)
			v.Trouble = inbox.Trouble{Kind: "retrying", Since: noon.Add(-time.Hour), Next: noon.Add(2 * time.Hour)}
		}, Batch, 6, 0},
		"clock set back, held":        {func(v *View) { pending(v, here); v.Trouble = inbox.Trouble{Kind: "held", Since: noon.Add(time.Hour)} }, Wait, 0, 0},
		"clock set back, no news":     {func(v *View) { v.Looked, v.Head.At = noon.Add(2*time.Hour), noon.Add(2*time.Hour) }, Look, 0, 0},
		"clock set back, rate":        {func(v *View) { pending(v, here); v.Budgets[WorkLive] = inbox.Bucket{At: noon.Add(time.Hour)} }, Batch, 6, 0},
		"clock set back, an epoch":    {func(v *View) { v.Head.Epoch, v.Head.At = "00000001", noon.Add(2*time.Hour) }, Wait, 0, time.Minute},
		"pushed":                      {func(v *View) { v.Push = inbox.Push{Asked: 1, AskedWhole: 1} }, Push, 0, 0},
		"pushed before announcements": {func(v *View) { pending(v, here); v.Push = inbox.Push{Asked: 1} }, Push, 0, 0},
		"pushed and quarantined":      {func(v *View) { v.Push, v.Quarantine = inbox.Push{Asked: 1}, "x" }, Wait, 0, 0},
		"pushed too often":            {func(v *View) { v.Push, v.Budgets[WorkPush] = inbox.Push{Asked: 1, Plain: true}, inbox.Bucket{At: noon} }, Wait, 0, time.Minute + time.Millisecond},
		"push done":                   {func(v *View) { v.Push = inbox.Push{Asked: 2, AskedWhole: 1, ContentDone: 2, WholeDone: 1} }, Wait, 0, 10 * time.Minute},
		"plain":                       {plain(0), Wait, 0, 10 * time.Minute},
		"plain, not asked for long":   {func(v *View) { plain(0)(v); v.Looked = noon.Add(-time.Hour) }, Look, 0, 0},
		"plain, not pushed for long":  {plain(-6 * time.Hour), Push, 0, 0},
		"plain, clock set back":       {plain(time.Hour), Push, 0, 0},
		"plain, a head is heard":      {func(v *View) { h := v.Head; plain(0)(v); v.Head = h }, Compare, 0, 0},
		"held":                        {func(v *View) { pending(v, here); v.Trouble = inbox.Trouble{Kind: "held"} }, Wait, 0, 0},
		"confirmed":                   {func(v *View) { pending(v, here, here, here); v.Confirmed = 7 }, Batch, 7, 0},
		"too many batches":            {func(v *View) { pending(v, here); v.Budgets[WorkLive] = inbox.Bucket{At: noon} }, Wait, 0, time.Second + time.Millisecond},
		"looks do not use up":         {func(v *View) { pending(v, here); v.Budgets[WorkLook] = inbox.Bucket{At: noon} }, Batch, 6, 0},
	} {
		t.Run(name, func(t *testing.T) {
			v := current()
			test.change(&v)
			got := testPace.Decide(v)
			var at time.Time
			if test.want == Wait && test.at > 0 {
				at = noon.Add(test.at)
			}
			if got.Do != test.want || got.Through != test.upto || !got.At.Equal(at) || got.Why == "" {
				t.Errorf("%+v, want %s %d at %v", got, test.want, test.upto, at)
			}
		})
	}
}

// plain is a module whose upstream exports nothing, fetched at a time.
func plain(at time.Duration) func(*View) {
	return func(v *View) {
		v.Epoch, v.Applied, v.Through, v.Top, v.Head = "", 0, 0, 0, nil
		v.Push, v.Looked = inbox.Push{Plain: true, Synced: noon.Add(at)}, noon
	}
}

func TestSkewedClockHoldsTimedFlipsOnly(t *testing.T) {
	v := current()
	pending(&v, timed)
	v.Now, v.Head.At = noon.Add(2*time.Hour), noon.Add(2*time.Hour) // a head that is two hours old on arrival
	v.Looked = v.Now
	if got := testPace.Decide(v); got.Do == Batch {
		t.Errorf("a timed flip is done by a clock two hours fast: %+v", got)
	}
	pending(&v, here)
	if got := testPace.Decide(v); got.Do != Batch || got.Through != 7 {
		t.Errorf("a change waits for the clock: %+v", got)
	}
	if off := ClockSkew(v.Head, testPace.Skew); off != 2*time.Hour {
		t.Errorf("skew %v", off)
	}
	v.Head.At = noon.Add(-2 * time.Hour)
	if off := ClockSkew(v.Head, testPace.Skew); off != -2*time.Hour {
		t.Errorf("skew %v", off)
	}
}

func TestStates(t *testing.T) {
	for want, change := range map[State]func(*View){
		Current:     func(*View) {},
		New:         func(v *View) { v.Epoch = "" },
		Behind:      func(v *View) { pending(v, here) },
		Deaf:        func(v *View) { v.Now = noon.Add(21 * time.Minute) },
		Stale:       func(v *View) { v.Now, v.Head.Via = noon.Add(21*time.Minute), inbox.ViaUpstream },
		Quarantined: func(v *View) { v.Quarantine, v.Quarantined = "x", noon },
		Waiting:     func(v *View) { v.Trouble = inbox.Trouble{Kind: string(Waiting), Since: noon} },
		Retrying:    func(v *View) { v.Trouble = inbox.Trouble{Kind: string(Retrying), Since: noon} },
		Blocked:     func(v *View) { v.Trouble = inbox.Trouble{Kind: string(Blocked), Since: noon} },
		Held:        func(v *View) { v.Trouble = inbox.Trouble{Kind: string(Held), Since: noon} },
		Composing: func(v *View) {
			pending(v, here)
			v.Head.Hold, v.Head.Serial = time.Hour, 6
			v.Trouble.Kind = string(Retrying)
		},
	} {
		v := current()
		change(&v)
		if got, since := StateOf(v.Snapshot, time.Time{}, v.Now, testPace.Skew); got != want || since.IsZero() {
			t.Errorf("%s since %v, want %s", got, since, want)
		}
	}
	v := current()
	if got, since := StateOf(v.Snapshot, noon, noon, 0); got != Syncing || !since.Equal(noon) {
		t.Errorf("%s since %v, want syncing", got, since)
	}
}

func TestFailuresAreReportedWhenTheyChange(t *testing.T) {
	var before inbox.Trouble
	var said []int
	for i := range 45 {
		f := Failure{Error: "connection refused", Through: 1}
		if i >= 30 {
			f.Error = "is missing"
		}
		now := After(before, f, noon, 0)
		if WorthSaying(before, now) {
			said = append(said, i)
		}
		before = now
	}
	if fmt.Sprint(said) != "[0 19 30 39]" {
		t.Errorf("reported at attempts %v", said)
	}
}

func TestBudget(t *testing.T) {
	g := Budget{Burst: 2, Every: time.Minute}
	var b inbox.Bucket
	at := noon
	for _, step := range []struct {
		after, wait time.Duration
	}{{0, 0}, {0, 0}, {0, time.Minute}, {30 * time.Second, 30 * time.Second}, {30 * time.Second, 0}, {-time.Minute, time.Minute}, {-time.Hour, 0}, {48 * time.Hour, 0}, {0, 0}, {0, time.Minute}} {
		at = at.Add(step.after)
		left, wait := g.Take(b, at)
		if d := wait - step.wait; d < 0 || d > 2*time.Millisecond {
			t.Fatalf("at %v: wait %v, want %v", at.Sub(noon), wait, step.wait)
		}
		b = left
	}
	if _, wait := (Budget{}).Take(inbox.Bucket{}, noon); wait != 0 {
		t.Error("no budget is a limit")
	}
}

func TestFlipVerdict(t *testing.T) {
	flip := event.Announcement{Kind: event.Flip, At: noon}
	timed := flip
	timed.NotBefore, timed.Expires = time.Hour, 2*time.Hour
	for name, test := range map[string]struct {
		a      event.Announcement
		after  time.Duration
		skewed bool
		want   FlipVerdict
	}{
		"at once":             {flip, 0, false, FlipNow},
		"at once, slow clock": {flip, -2 * time.Hour, true, FlipNow},
		"before its time":     {timed, 59 * time.Minute, false, FlipWaits},
		"its time":            {timed, time.Hour, false, FlipNow},
		"clock is wrong":      {timed, time.Hour, true, FlipWaits},
		"too late":            {timed, 3 * time.Hour, false, FlipExpired},
	} {
		now := noon.Add(test.after)
		got, at := JudgeFlip(test.a, now, test.skewed)
		if got != test.want {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
		if got == FlipWaits && !at.IsZero() && !at.After(now) {
			t.Errorf("%s: waits until %v, which has been: that would be looked at without end", name, at)
		}
	}
}

func TestWaits(t *testing.T) {
	_, crowd := Failure{Cause: Crowded}.Answer()
	_, soon := Failure{Cause: NotReady}.Answer()
	if crowd.Wait(5, 0) != 0 || soon.Wait(1, 0) != time.Second || soon.Wait(60, 1) != 30*time.Second {
		t.Error("waits are not as documented")
	}
	if crowd.Wait(1, 1) != 10*time.Second || crowd.Wait(2, 0.5) != 10*time.Second || crowd.Wait(60, 1) != 2*time.Minute {
		t.Error("those who find no room come back together, or do not wait longer each time")
	}
	for n := range 100 {
		if long := (Tempo{First: 12 * time.Hour, Most: 12 * time.Hour}).Wait(n, 1); long != 12*time.Hour {
			t.Fatalf("after %d attempts the wait is %v", n, long)
		}
	}
}
