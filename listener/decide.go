package listener

import (
	"fmt"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/listener/inbox"
)

// A verb is what is to be done for a module.
type verb string

const (
	doWait    verb = "wait"    // nothing until a time, or until something wakes the module
	doLook    verb = "look"    // ask the upstream for its head
	doJournal verb = "journal" // ask the upstream's journal for what is missing
	doCompare verb = "compare" // compare the tree with the upstream's manifest, or fetch everything
	doBatch   verb = "batch"   // apply announcements
)

// An action is what is to be done next, and why: the reason is for people.
type action struct {
	do      verb
	through event.Serial // doBatch: the last serial of it
	at      time.Time    // doWait: until when, zero for as long as nothing wakes the module
	why     string
}

// A view is what a decision is made from: what is stored, and the little that only this process knows.
type view struct {
	inbox.Snapshot
	now    time.Time
	look   time.Time // when the upstream's head is to be looked at, because of a connect or a message that cannot be followed; zero: no need
	looked time.Time // when it was last looked at, successfully or not; zero: never
	lost   string    // why only a comparison with the manifest helps, "" if it need not be
}

// A pace is what decisions are tuned by.
type pace struct {
	lookEvery time.Duration // without news for so long the head is looked at
	skew      time.Duration // difference of clocks to forgive
	budgets   map[string]Budget
}

// decide says what to do next for a module. It is a pure function: the same view gives the same action.
func (p pace) decide(v view) action {
	if v.Quarantine != "" {
		return action{do: doWait, why: "quarantined: " + v.Quarantine}
	}
	if t := v.Trouble; t.Kind != "" && (t.Next.IsZero() || v.now.Before(t.Next)) {
		return action{do: doWait, at: t.Next, why: t.Kind + ": " + t.Error}
	}
	if v.Epoch == "" {
		return p.afford(v, workManifest, action{do: doCompare, why: "the module is new here"})
	}
	if v.lost != "" {
		return p.afford(v, workManifest, action{do: doCompare, why: v.lost})
	}
	if h := v.Head; h != nil && h.Epoch != v.Epoch {
		if h.Via == viaUpstream {
			return p.afford(v, workManifest, action{do: doCompare, why: fmt.Sprintf("the upstream is at epoch %s, this mirror at %s", h.Epoch, v.Epoch)})
		}
		if v.looked.Before(h.At) {
			return p.afford(v, workLook, action{do: doLook, why: "a head of another epoch was heard"})
		}
	}
	if a, ok := p.work(v); ok {
		return a
	}
	return p.watch(v)
}

// work decides about announcements that were heard and not applied.
func (p pace) work(v view) (action, bool) {
	through := v.Applied
	for _, i := range v.Todo {
		if i.Wide || !i.Set || v.Confirmed > v.Applied && i.Serial > v.Confirmed {
			break
		}
		if i.Kind == event.Flip && p.waits(v, i.Serial) {
			continue
		}
		through = i.Serial
	}
	switch next := p.first(v); {
	case through > v.Applied:
		return p.afford(v, workLive, action{do: doBatch, through: through, why: fmt.Sprintf("serials %d to %d are to be applied", v.Applied+1, through)}), true
	case next != nil && next.Wide:
		return p.afford(v, workManifest, action{do: doCompare, why: fmt.Sprintf("serial %d names no paths", next.Serial)}), true
	case next != nil && !next.Set:
		return p.afford(v, workLook, action{do: doJournal, why: fmt.Sprintf("the path set of serial %d is not here", next.Serial)}), true
	case next == nil && v.Top > v.Through:
		return p.afford(v, workLook, action{do: doJournal, why: fmt.Sprintf("serial %d is known of, %d is missing", v.Top, v.Through+1)}), true
	}
	return action{}, false
}

// first is the first announcement that is to be done now, leaving out flips that wait for their time.
func (p pace) first(v view) *inbox.Item {
	for i := range v.Todo {
		if v.Todo[i].Kind != event.Flip || !p.waits(v, v.Todo[i].Serial) {
			return &v.Todo[i]
		}
	}
	return nil
}

// waits tells whether the flip with this serial is left to the flips' own path: it waits for its time, or has expired.
func (p pace) waits(v view, n event.Serial) bool {
	for _, f := range v.Flips {
		if f.Serial == n {
			now, _ := flipVerdict(f.Announcement, v.now, clockSkew(v.Head, p.skew) != 0)
			return now != flipNow
		}
	}
	return false
}

// clockSkew is how far this host's clock is from the master's, judged by the newest head when it arrived; 0 if that may be as it should.
func clockSkew(h *inbox.Head, forgiven time.Duration) time.Duration {
	if h == nil {
		return 0
	}
	switch off := h.At.Sub(h.Head.At); {
	case off < -forgiven:
		return off
	case off > h.TTL+forgiven:
		return off
	}
	return 0
}

// watch decides when there is nothing to apply: whether and when to look at the upstream's head.
func (p pace) watch(v view) action {
	news := v.looked
	if v.Head != nil && v.Head.At.After(news) {
		news = v.Head.At
	}
	due, why := news.Add(p.lookEvery), fmt.Sprintf("no news for %v", p.lookEvery)
	if v.Head == nil || v.Head.Expired(v.now, p.skew) {
		due, why = v.looked.Add(p.lookEvery/10), "the newest head has expired"
	}
	if !v.look.IsZero() && v.look.Before(due) {
		due, why = v.look, "connected, or heard something that only the upstream can explain"
	}
	if v.now.Before(due) {
		return action{do: doWait, at: due, why: "nothing to do"}
	}
	return p.afford(v, workLook, action{do: doLook, why: why})
}

// afford makes a wait of an action that the budget does not allow yet.
func (p pace) afford(v view, kind string, a action) action {
	if _, wait := p.budgets[kind].take(v.Budgets[kind], v.now); wait > 0 {
		return action{do: doWait, at: v.now.Add(wait), why: a.why + "; the rate of such work is limited"}
	}
	return a
}

// costs is the budget that an action is paid from when it begins. A comparison begins with a look and pays for itself once it knows that it can
// be made.
func (a action) costs() string {
	if a.do == doBatch {
		return workLive
	}
	return workLook
}
