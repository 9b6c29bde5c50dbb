package trigger_test

import (
	"testing"

	"github.com/mirrorbus/mirrorbus/event"
)

// What a mirror says of itself is all that a master knows of it. It sees what cannot be true; what could be, it takes for true: status says "current" of
// a mirror that has nothing and says that it has all. To look is left to those who can: mirrorbus verify on the mirror, or its readers.
func TestAMirrorThatLies(t *testing.T) {
	m := newMaster(t)
	h, _ := m.start()
	one := m.mirror("one", "")
	m.publish(h, "a")
	done := m.publish(h, "b")
	one.hears("change 2")
	newest := one.announcement(done.Serial)
	claim := event.Report{Module: "m", Epoch: done.Epoch, Outcome: event.Applied}
	for i, lie := range []struct {
		why      string
		serial   event.Serial
		head     event.Digest
		epoch    event.Epoch
		standing string
	}{
		{"a serial that was never given", 9, event.Sum(nil), done.Epoch, "one diverged 0"},
		{"the newest, without knowing its line", 2, event.Sum([]byte("a guess")), done.Epoch, "one diverged 0"},
		{"another history", 2, newest.Digest, "ffffffff", "one diverged 0"},
		{"what it could know: this is believed", 2, newest.Digest, done.Epoch, "one current 0"},
		{"less than it said before: it was restored, or lied", 1, event.Digest{}, done.Epoch, "one behind 1"},
	} {
		r := claim
		r.Run, r.Serial, r.Applied, r.Head, r.Epoch = uint64(i+1), lie.serial, lie.serial, lie.head, lie.epoch
		one.says(r)
		t.Log(lie.why)
		m.shows(h, lie.standing)
	}
}

// announcement is the line of a serial that x has heard.
func (x *mirror) announcement(n event.Serial) event.Sealed {
	x.m.t.Helper()
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, s := range x.heard {
		if s.Announcement != nil && s.Announcement.Serial == n {
			return s
		}
	}
	x.m.t.Fatalf("%s has not heard serial %d", x.name, n)
	return event.Sealed{}
}
