package listener

import (
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/listener/hook"
	"github.com/mirrorbus/mirrorbus/listener/inbox"
	"github.com/mirrorbus/mirrorbus/listener/rsync"
)

var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// current is a module at serial 5 with nothing to do.
func current() view {
	head := inbox.Head{Head: event.Head{Epoch: "7c1e9f02", Serial: 5, At: noon, TTL: 15 * time.Minute}, At: noon, Via: "mem"}
	return view{
		Snapshot: inbox.Snapshot{
			Module: inbox.Module{Epoch: "7c1e9f02", Applied: 5, AppliedAt: noon, Created: noon.Add(-time.Hour)},
			Head:   &head, Through: 5, Top: 5, Budgets: map[string]inbox.Bucket{},
		},
		now: noon, looked: noon,
	}
}

func pending(v *view, items ...inbox.Item) {
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
	testPace = pace{lookEvery: 10 * time.Minute, skew: 5 * time.Minute, budgets: DefaultBudgets()}
)

func TestDecide(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*view)
		want   verb
		upto   event.Serial
		at     time.Duration // after noon, for doWait
	}{
		"current":                {func(*view) {}, doWait, 0, 10 * time.Minute},
		"nothing at once":        {func(v *view) { v.look = noon.Add(time.Second) }, doWait, 0, time.Second},
		"connected":              {func(v *view) { v.look = noon }, doLook, 0, 0},
		"no news":                {func(v *view) { v.now = noon.Add(11 * time.Minute) }, doLook, 0, 0},
		"head expired":           {func(v *view) { v.now, v.looked = noon.Add(21*time.Minute), noon.Add(20*time.Minute) }, doLook, 0, 0},
		"head expired, looked":   {func(v *view) { v.now, v.looked = noon.Add(21*time.Minute), noon.Add(21*time.Minute) }, doWait, 0, 22 * time.Minute},
		"no head":                {func(v *view) { v.Head, v.looked = nil, time.Time{} }, doLook, 0, 0},
		"one pending":            {func(v *view) { pending(v, here) }, doBatch, 6, 0},
		"three pending":          {func(v *view) { pending(v, here, here, here) }, doBatch, 8, 0},
		"second has no set":      {func(v *view) { pending(v, here, bare, here) }, doBatch, 6, 0},
		"first has no set":       {func(v *view) { pending(v, bare, here) }, doJournal, 0, 0},
		"first is wide":          {func(v *view) { pending(v, wide, here) }, doCompare, 0, 0},
		"gap":                    {func(v *view) { v.Top = 9 }, doJournal, 0, 0},
		"pending before a gap":   {func(v *view) { pending(v, here); v.Top = 9 }, doBatch, 6, 0},
		"flip waits":             {func(v *view) { pending(v, timed) }, doWait, 0, 10 * time.Minute},
		"change behind a flip":   {func(v *view) { pending(v, timed, here) }, doBatch, 7, 0},
		"flip due":               {func(v *view) { pending(v, timed); v.now = noon.Add(time.Hour) }, doBatch, 6, 0},
		"new":                    {func(v *view) { v.Epoch, v.Applied, v.Head = "", 0, nil }, doCompare, 0, 0},
		"other epoch heard":      {func(v *view) { v.Head.Epoch, v.Head.At = "00000001", noon.Add(time.Second) }, doLook, 0, 0},
		"other epoch, looked":    {func(v *view) { v.Head.Epoch = "00000001" }, doWait, 0, 10 * time.Minute},
		"upstream's other epoch": {func(v *view) { v.Head.Epoch, v.Head.Via = "00000001", viaUpstream }, doCompare, 0, 0},
		"lost":                   {func(v *view) { pending(v, here); v.lost = "journal ended" }, doCompare, 0, 0},
		"quarantined":            {func(v *view) { pending(v, here); v.Quarantine = "x" }, doWait, 0, 0},
		"retrying": {func(v *view) {
			pending(v, here)
			v.Trouble = inbox.Trouble{Kind: "retrying", Next: noon.Add(time.Second)}
		}, doWait, 0, time.Second},
		"retry due":           {func(v *view) { pending(v, here); v.Trouble = inbox.Trouble{Kind: "retrying", Next: noon} }, doBatch, 6, 0},
		"held":                {func(v *view) { pending(v, here); v.Trouble = inbox.Trouble{Kind: "held"} }, doWait, 0, 0},
		"confirmed":           {func(v *view) { pending(v, here, here, here); v.Confirmed = 7 }, doBatch, 7, 0},
		"too many batches":    {func(v *view) { pending(v, here); v.Budgets[workLive] = inbox.Bucket{At: noon} }, doWait, 0, time.Second + time.Millisecond},
		"looks do not use up": {func(v *view) { pending(v, here); v.Budgets[workLook] = inbox.Bucket{At: noon} }, doBatch, 6, 0},
	} {
		t.Run(name, func(t *testing.T) {
			v := current()
			test.change(&v)
			got := testPace.decide(v)
			var at time.Time
			if test.want == doWait && test.at > 0 {
				at = noon.Add(test.at)
			}
			if got.do != test.want || got.through != test.upto || !got.at.Equal(at) || got.why == "" {
				t.Errorf("%+v, want %s %d at %v", got, test.want, test.upto, at)
			}
		})
	}
}

func TestSkewedClockHoldsTimedFlipsOnly(t *testing.T) {
	v := current()
	pending(&v, timed)
	v.now, v.Head.At = noon.Add(2*time.Hour), noon.Add(2*time.Hour) // a head that is two hours old on arrival
	v.looked = v.now
	if got := testPace.decide(v); got.do == doBatch {
		t.Errorf("a timed flip is done by a clock two hours fast: %+v", got)
	}
	pending(&v, here)
	if got := testPace.decide(v); got.do != doBatch || got.through != 7 {
		t.Errorf("a change waits for the clock: %+v", got)
	}
	if off := clockSkew(v.Head, testPace.skew); off != 2*time.Hour {
		t.Errorf("skew %v", off)
	}
	v.Head.At = noon.Add(-2 * time.Hour)
	if off := clockSkew(v.Head, testPace.skew); off != -2*time.Hour {
		t.Errorf("skew %v", off)
	}
}

func TestStates(t *testing.T) {
	for want, change := range map[State]func(*view){
		Current:     func(*view) {},
		New:         func(v *view) { v.Epoch = "" },
		Behind:      func(v *view) { pending(v, here) },
		Deaf:        func(v *view) { v.now = noon.Add(21 * time.Minute) },
		Quarantined: func(v *view) { v.Quarantine, v.Quarantined = "x", noon },
		Waiting:     func(v *view) { v.Trouble = inbox.Trouble{Kind: string(Waiting), Since: noon} },
		Retrying:    func(v *view) { v.Trouble = inbox.Trouble{Kind: string(Retrying), Since: noon} },
		Blocked:     func(v *view) { v.Trouble = inbox.Trouble{Kind: string(Blocked), Since: noon} },
		Held:        func(v *view) { v.Trouble = inbox.Trouble{Kind: string(Held), Since: noon} },
	} {
		v := current()
		change(&v)
		if got, since := stateOf(v.Snapshot, time.Time{}, v.now, testPace.skew); got != want || since.IsZero() {
			t.Errorf("%s since %v, want %s", got, since, want)
		}
	}
	v := current()
	if got, since := stateOf(v.Snapshot, noon, noon, 0); got != Syncing || !since.Equal(noon) {
		t.Errorf("%s since %v, want syncing", got, since)
	}
}

func TestClassify(t *testing.T) {
	class := func(c rsync.Class) error { return fmt.Errorf("stage: %w", &rsync.Error{Class: c, Code: 1}) }
	for name, test := range map[string]struct {
		err   error
		state State
		most  time.Duration // until the tenth retry; 0: not by itself
	}{
		"upstream behind": {&behindError{at: 1, want: 2}, Waiting, 30 * time.Second},
		"disk full":       {class(rsync.DiskFull), Blocked, 30 * time.Second},
		"no space here":   {fmt.Errorf("rename: %w", syscall.ENOSPC), Blocked, 30 * time.Second},
		"held":            {&heldError{"too many"}, Held, 0},
		"max delete":      {class(rsync.MaxDelete), Held, 0},
		"busy":            {class(rsync.Busy), Retrying, 5 * time.Minute},
		"vanished":        {class(rsync.Vanished), Retrying, 30 * time.Second},
		"partial":         {class(rsync.Partial), Retrying, 30 * time.Second},
		"unavailable":     {class(rsync.Unavailable), Retrying, 5 * time.Minute},
		"password":        {class(rsync.Auth), Retrying, 30 * time.Minute},
		"wrong option":    {class(rsync.Permanent), Retrying, 30 * time.Minute},
		"hook: later":     {&hook.ExitError{Status: hook.TryAgain}, Retrying, 5 * time.Minute},
		"hook":            {&hook.ExitError{Status: 1}, Retrying, 5 * time.Minute},
		"limited":         {&laterError{time.Minute, "x"}, Retrying, 2 * time.Minute},
		"other":           {errors.New("x"), Retrying, 5 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			var tr inbox.Trouble
			for range 10 {
				tr = trouble(tr, test.err, 7, noon, 0.999999)
			}
			if tr.Kind != string(test.state) || tr.Attempts != 10 || tr.Through != 7 || !tr.Since.Equal(noon) {
				t.Fatalf("%+v", tr)
			}
			if test.most == 0 && !tr.Next.IsZero() || test.most > 0 && (tr.Next.After(noon.Add(test.most)) || tr.Next.Before(noon.Add(test.most*9/10))) {
				t.Errorf("next %v, want up to %v", tr.Next.Sub(noon), test.most)
			}
		})
	}
	if crowd.wait(5, 0) != 0 || soon.wait(1, 0) != time.Second || soon.wait(60, 1) != 30*time.Second {
		t.Error("waits are not as documented")
	}
}

func TestFailuresAreReportedWhenTheyChange(t *testing.T) {
	var before inbox.Trouble
	var said []int
	for i := range 45 {
		err := errors.New("connection refused")
		if i >= 30 {
			err = &pathError{"a", errors.New("is missing")}
		}
		now := trouble(before, err, 1, noon, 0)
		if worthSaying(before, now) {
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
	}{{0, 0}, {0, 0}, {0, time.Minute}, {30 * time.Second, 30 * time.Second}, {30 * time.Second, 0}, {-time.Hour, time.Minute}, {48 * time.Hour, 0}, {0, 0}, {0, time.Minute}} {
		at = at.Add(step.after)
		left, wait := g.take(b, at)
		if d := wait - step.wait; d < 0 || d > 2*time.Millisecond {
			t.Fatalf("at %v: wait %v, want %v", at.Sub(noon), wait, step.wait)
		}
		b = left
	}
	if _, wait := (Budget{}).take(inbox.Bucket{}, noon); wait != 0 {
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
		want   verdict
	}{
		"at once":             {flip, 0, false, flipNow},
		"at once, slow clock": {flip, -2 * time.Hour, true, flipNow},
		"before its time":     {timed, 59 * time.Minute, false, flipWaits},
		"its time":            {timed, time.Hour, false, flipNow},
		"clock is wrong":      {timed, time.Hour, true, flipWaits},
		"too late":            {timed, 3 * time.Hour, false, flipExpired},
	} {
		if got, _ := flipVerdict(test.a, noon.Add(test.after), test.skewed); got != test.want {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
}
