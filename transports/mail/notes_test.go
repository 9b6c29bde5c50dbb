package mail

import (
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestNotes: what ends what is wrong with a recipient, and what does not.
func TestNotes(t *testing.T) {
	const people, id = "people@b.test", "1.debian.announce.mirrorbus@a.test"
	for name, c := range map[string]struct {
		what  string
		then  func(*transport)
		mends bool
	}{
		"refused, then taken":                    {isRefused, func(t *transport) { t.accepted(people, id) }, true},
		"refused, then another taken":            {isRefused, func(t *transport) { t.accepted("other@b.test", id) }, false},
		"refused, then nothing for long":         {isRefused, func(*transport) { time.Sleep(3 * backAgain) }, false},
		"came back, then taken":                  {comesBack, func(t *transport) { t.accepted(people, id) }, false},
		"came back, then nothing for long":       {comesBack, func(*transport) { time.Sleep(3 * backAgain) }, false},
		"came back, then taken, and long quiet":  {comesBack, func(t *transport) { t.accepted(people, ""); time.Sleep(backAgain + time.Second) }, true},
		"came back, then taken, and not so long": {comesBack, func(t *transport) { t.accepted(people, ""); time.Sleep(backAgain - time.Second) }, false},
		"came back again after that": {comesBack, func(t *transport) {
			t.accepted(people, id)
			time.Sleep(backAgain - time.Second)
			t.note(people, comesBack, "again")
			time.Sleep(2 * time.Second)
			t.accepted(people, "")
		}, false},
		"answered":                      {comesBack, func(t *transport) { t.accepted(people, id); t.answered("People@B.test", "<"+id+">") }, true},
		"answered by another":           {comesBack, func(t *transport) { t.accepted(people, id); t.answered("other@b.test", "<"+id+">") }, false},
		"answered what it was not sent": {comesBack, func(t *transport) { t.accepted(people, id); t.answered(people, "<2"+id+">") }, false},
		"answered what came back": {comesBack, func(t *transport) {
			t.accepted(people, id)
			t.note(people, comesBack, "again")
			t.answered(people, "<"+id+">")
		}, false},
		"answered a digest, which has no answer": {comesBack, func(t *transport) { t.accepted(people, ""); t.answered(people, "<>") }, false},
		"answered one of long ago": {comesBack, func(t *transport) {
			t.accepted(people, id)
			for range maxAnswerable {
				t.accepted(people, "later")
			}
			t.answered(people, "<"+id+">")
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				one := &transport{log: slog.New(slog.DiscardHandler), counts: map[string]uint64{}, notes: map[string]note{}}
				one.note(people, c.what, "5.1.1 nobody\r\nhere")
				if got := one.Degraded(); len(got) != 1 || !strings.HasPrefix(got[0], "mail to people@b.test "+c.what+" since 2000-01-01T00:00:00Z: 5.1.1 nobody") {
					t.Fatalf("degraded: %q", got)
				}
				c.then(one)
				if got := one.Degraded(); (len(got) == 0) != c.mends {
					t.Errorf("afterwards: %q", got)
				}
			})
		})
	}
}
