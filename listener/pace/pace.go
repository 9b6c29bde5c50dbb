// Package pace decides when a mirror does what: the next step for a module, whether a rate budget allows it, when a failure is tried again, when a
// flip is due, and which word tells where the module stands.
//
// All of it are pure functions of what is stored and of a time and a random number that are passed in. The agent calls them, and so does
// the simulation that runs thousands of agents; neither knows how the other does what was decided.
package pace

import (
	"fmt"
	"slices"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/listener/inbox"
)

// A Verb is what is to be done for a module.
type Verb string

// The verbs.
const (
	Wait    Verb = "wait"    // nothing until a time, or until something wakes the module
	Look    Verb = "look"    // ask the upstream for its head
	Journal Verb = "journal" // ask the upstream's journal for what is missing
	Compare Verb = "compare" // compare the tree with the upstream's manifest, or fetch everything
	Batch   Verb = "batch"   // apply announcements
	Push    Verb = "push"    // bring what somebody says has changed without saying what
)

// An Action is what is to be done next, and why: the reason is for people.
type Action struct {
	Do      Verb
	Through event.Serial // Batch: the last serial of it
	At      time.Time    // Wait: until when, zero for as long as nothing wakes the module
	Limited bool         // Wait: there is something to do, whose rate is limited
	Why     string
}

// A View is what a decision is made from: what is stored, and the little that only this process knows.
type View struct {
	inbox.Snapshot
	Now    time.Time
	Look   time.Time     // when the upstream's head is to be looked at, because of a connect or a message that cannot be followed; zero: no need
	Looked time.Time     // when it was last looked at, successfully or not; zero: never
	LookIn time.Duration // how long after that it is to be looked at again without news, see Rhythm; 0: as Tuning says
	Lost   string        // why only a comparison with the manifest helps, "" if it need not be
}

// A Tuning is what decisions are tuned by.
type Tuning struct {
	LookEvery time.Duration // without news for so long the head is looked at
	SyncEvery time.Duration // an upstream that exports nothing is looked through so often; 0: as often as the budget of full work allows
	Skew      time.Duration // difference of clocks to forgive
	Budgets   map[string]Budget
}

// Decide says what to do next for a module. The same view gives the same action.
func (p Tuning) Decide(v View) Action {
	if v.Quarantine != "" {
		return Action{Do: Wait, Why: "quarantined: " + v.Quarantine}
	}
	if t := v.Trouble; t.Kind != "" && !retryDue(t, v.Now) {
		return Action{Do: Wait, At: t.Next, Why: t.Kind + ": " + t.Error}
	}
	return p.unlessHeld(v, p.next(v))
}

// next decides where nothing is in the way.
func (p Tuning) next(v View) Action {
	switch {
	case v.Push.Waits():
		return p.pushed(v, "told that something has changed")
	case v.Epoch == "" && v.Head == nil && v.Push.Plain:
		return p.watchPlain(v)
	case v.Epoch == "":
		return p.afford(v, WorkManifest, Action{Do: Compare, Why: "the module is new here"})
	}
	if v.Lost != "" {
		return p.afford(v, WorkManifest, Action{Do: Compare, Why: v.Lost})
	}
	if h := v.Head; h != nil && h.Epoch != v.Epoch {
		if h.Via == inbox.ViaUpstream {
			return p.afford(v, WorkManifest, Action{Do: Compare, Why: fmt.Sprintf("the upstream is at epoch %s, this mirror at %s", h.Epoch, v.Epoch)})
		}
		if v.Looked.Before(h.At) && h.At.Sub(v.Now) <= p.Skew { // not one from before the clock was set back
			return p.afford(v, WorkLook, Action{Do: Look, Why: "a head of another epoch was heard"})
		}
	}
	if a, ok := p.work(v); ok {
		return a
	}
	return p.watch(v)
}

// retryDue tells whether what failed may be tried again. A time that was noted before the clock was set back is not waited for.
func retryDue(t inbox.Trouble, now time.Time) bool {
	return !t.Next.IsZero() && (!now.Before(t.Next) || now.Before(t.Since) || t.Next.Sub(now) > longestWait)
}

// work decides about announcements that were heard and not applied.
func (p Tuning) work(v View) (Action, bool) {
	held := p.holds(v)
	if i := slices.IndexFunc(v.Todo, func(i inbox.Item) bool { return i.Wide }); i >= 0 && !held {
		// What comes before it need not be as it was announced any more, and a comparison brings that too.
		a := p.afford(v, WorkManifest, Action{Do: Compare, Why: fmt.Sprintf("serial %d names no paths", v.Todo[i].Serial)})
		if a.Do != Wait || i == 0 {
			return a, true
		}
	}
	through := v.Applied
	for _, i := range v.Todo {
		if i.Wide || !i.Set || v.Confirmed > v.Applied && i.Serial > v.Confirmed || held && i.Kind != event.Flip {
			break
		}
		if i.Kind == event.Flip && p.Waits(v, i.Serial) {
			continue
		}
		through = i.Serial
	}
	missing := p.Missing(v)
	switch next := p.First(v); {
	case through > v.Applied && missing <= v.Top && v.Trouble.Attempts%2 == 1: // every other time, as that may fail too
		return p.afford(v, WorkLook, Action{Do: Journal, Why: fmt.Sprintf("serial %d is not here, and may tell why what comes before it failed", missing)}), true
	case through > v.Applied:
		return p.afford(v, WorkLive, Action{Do: Batch, Through: through, Why: fmt.Sprintf("serials %d to %d are to be applied", v.Applied+1, through)}), true
	case next != nil && next.Wide:
		return p.afford(v, WorkManifest, Action{Do: Compare, Why: fmt.Sprintf("serial %d names no paths", next.Serial)}), true
	case next != nil && !next.Set:
		return p.afford(v, WorkLook, Action{Do: Journal, Why: fmt.Sprintf("the path set of serial %d is not here", next.Serial)}), true
	case next == nil && v.Top > v.Through:
		return p.afford(v, WorkLook, Action{Do: Journal, Why: fmt.Sprintf("serial %d is known of, %d is missing", v.Top, v.Through+1)}), true
	case held && v.Top > v.Through:
		return p.afford(v, WorkLook, Action{Do: Journal, Why: fmt.Sprintf("serial %d may end a compose, %d is missing", v.Top, v.Through+1)}), true
	}
	return Action{}, false
}

// First is the first announcement that is to be done now, leaving out flips that wait for their time; nil if there is none.
func (p Tuning) First(v View) *inbox.Item {
	for i := range v.Todo {
		if v.Todo[i].Kind != event.Flip || !p.Waits(v, v.Todo[i].Serial) {
			return &v.Todo[i]
		}
	}
	return nil
}

// Missing is the first announcement that is not here with its path set, leaving out flips that wait for their time. It may not have been made yet.
func (p Tuning) Missing(v View) event.Serial {
	for _, i := range v.Todo {
		if !i.Set && !i.Wide && (i.Kind != event.Flip || !p.Waits(v, i.Serial)) {
			return i.Serial
		}
	}
	return v.Through + 1
}

// Waits tells whether the flip with this serial is left to the flips' own path: it waits for its time, or has expired.
func (p Tuning) Waits(v View, n event.Serial) bool {
	for _, f := range v.Flips {
		if f.Serial == n {
			now, _ := JudgeFlip(f.Announcement, v.Now, ClockSkew(v.Head, p.Skew) != 0)
			return now != FlipNow
		}
	}
	return false
}

// watch decides when there is nothing to apply: whether and when to look at the upstream's head.
func (p Tuning) watch(v View) Action {
	looked := v.Looked
	if looked.After(v.Now) {
		looked = time.Time{} // the clock was set back since
	}
	news := looked
	if v.Head != nil && v.Head.At.After(news) && !v.Head.At.After(v.Now) {
		news = v.Head.At
	}
	every := p.LookEvery
	if v.LookIn > 0 {
		every = min(v.LookIn, every)
	}
	due, why := news.Add(every), fmt.Sprintf("no news for %v", every.Round(time.Second))
	if v.Head == nil {
		due, why = looked.Add(p.LookEvery/10), "no head is known"
	} else if v.Head.Expired(v.Now, p.Skew) {
		due, why = looked.Add(stalePause(v.Now.Sub(v.Head.Head.At.Add(v.Head.TTL)), p.LookEvery)), "the newest head has expired"
	}
	if !v.Look.IsZero() && v.Look.Before(due) {
		due, why = v.Look, "connected, or heard something that only the upstream can explain"
	}
	if v.Trouble.Kind != "" { // a look that succeeds ends it
		due, why = v.Trouble.Next, "the last attempt failed"
	}
	if v.Now.Before(due) {
		return Action{Do: Wait, At: due, Why: "nothing to do"}
	}
	return p.afford(v, WorkLook, Action{Do: Look, Why: why})
}

// pushed decides about an upstream that is said to have changed. Where it exports what has changed that costs a look; else it costs a look at all it has.
func (p Tuning) pushed(v View, why string) Action {
	a := p.afford(v, WorkLook, Action{Do: Push, Why: why})
	if a.Do == Push && v.Push.Plain {
		a = p.afford(v, WorkPush, a)
	}
	return a
}

// watchPlain decides when there is nothing to do and the upstream exports nothing: it is asked now and then whether it does by now, and all that it has
// is looked at as often as that may be, as a push may have been lost.
func (p Tuning) watchPlain(v View) Action {
	every := p.SyncEvery
	if every == 0 {
		every = p.Budgets[WorkFull].Every
	}
	full, look := v.Push.Synced.Add(every), v.Looked.Add(p.LookEvery)
	if v.Push.Synced.After(v.Now) || !v.Now.Before(full) {
		return p.pushed(v, "nobody has told of a change for long")
	}
	if v.Looked.After(v.Now) || v.Trouble.Kind != "" {
		look = v.Now // the clock was set back since; or a look that succeeds ends what was in the way
	}
	if !v.Look.IsZero() && v.Look.Before(look) {
		look = v.Look
	}
	if v.Now.Before(look) {
		at := look
		if full.Before(at) {
			at = full
		}
		return Action{Do: Wait, At: at, Why: "nothing to do"}
	}
	return p.afford(v, WorkLook, Action{Do: Look, Why: "the upstream may export what has changed by now"})
}

// afford makes a wait of an action that the budget does not allow yet.
func (p Tuning) afford(v View, kind string, a Action) Action {
	if _, wait := p.Budgets[kind].Take(v.Budgets[kind], v.Now); wait > 0 {
		return Action{Do: Wait, At: v.Now.Add(wait), Limited: true, Why: a.Why + "; the rate of such work is limited"}
	}
	return a
}

// idle is the longest time without a look at what is stored: it makes up for a clock that was set.
const idle = time.Minute

// Until is how long to sleep for what is due at a time; zero: nothing is.
func Until(at, now time.Time) time.Duration {
	if at.IsZero() {
		return idle
	}
	return min(max(at.Sub(now), time.Millisecond), idle)
}

// Costs is the budget that an action is paid from when it begins. A comparison begins with a look and pays for itself once it knows that it can
// be made.
func (a Action) Costs() string {
	if a.Do == Batch {
		return WorkLive
	}
	return WorkLook
}
