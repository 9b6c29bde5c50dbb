package pace

import (
	"testing"
	"time"
)

// After news that a look has found the next one comes soon; then ever later, up to the bound; and not all mirrors look at the same moment.
func TestLooksComeSoonAfterNewsAndSeldomInSilence(t *testing.T) {
	r := Rhythm{Least: time.Minute, Most: 10 * time.Minute}
	if got := r.Next(0, false, 0); got != r.Most {
		t.Errorf("the first look had no news: next after %v", got)
	}
	wait := r.Next(r.Most, true, 0)
	var all []time.Duration
	for range 6 {
		all = append(all, wait)
		wait = r.Next(wait, false, 0)
	}
	want := []time.Duration{time.Minute, 2 * time.Minute, 4 * time.Minute, 8 * time.Minute, 10 * time.Minute, 10 * time.Minute}
	for i := range want {
		if all[i] != want[i] {
			t.Fatalf("looks after %v, want %v", all, want)
		}
	}
	if a, b := r.Next(r.Most, false, 0), r.Next(r.Most, false, 1); a == b || b < r.Most*3/4 {
		t.Errorf("spread from %v to %v", b, a)
	}
	if got := (Rhythm{Least: time.Hour, Most: time.Minute}).Next(0, true, 0); got != time.Minute {
		t.Errorf("no look for %v, at most a minute is configured", got)
	}
}

// An upstream whose head has expired is asked every minute at first, and not for years.
func TestAnUpstreamThatIsStaleForLongIsAskedLessOften(t *testing.T) {
	v := current()
	due := func(after time.Duration) time.Duration {
		v.Now = v.Head.Head.At.Add(v.Head.TTL + after)
		v.Looked = v.Now
		act := testPace.Decide(v)
		if act.Do != Wait {
			t.Fatalf("%v after the head has expired: %+v", after, act)
		}
		return act.At.Sub(v.Now)
	}
	if soon, late, later := due(6*time.Minute), due(20*time.Minute), due(48*time.Hour); soon != time.Minute || late != 150*time.Second || later != 10*time.Minute {
		t.Errorf("asked again after %v, %v, %v", soon, late, later)
	}
}

func TestDecideByTheRhythm(t *testing.T) {
	v := current()
	v.LookIn, v.Now = 2*time.Minute, noon.Add(3*time.Minute)
	v.Head.At = noon // a head that came by a transport puts the look off as well
	if got := testPace.Decide(v); got.Do != Look {
		t.Errorf("three minutes after the last look, with news then: %+v", got)
	}
	v.LookIn = 0
	if got := testPace.Decide(v); got.Do != Wait {
		t.Errorf("three minutes after the last look: %+v", got)
	}
}
