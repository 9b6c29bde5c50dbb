package trigger

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/trigger/collector"
	"github.com/mirrorbus/mirrorbus/trigger/journal"
)

var (
	now  = time.Date(2026, 11, 20, 19, 0, 0, 0, time.UTC)
	line = event.Sum([]byte("the line of serial 7"))
)

const (
	away = 15 * time.Minute
	ours = event.Epoch("0123abcd")
)

// ago is so many seconds before now.
func ago(seconds int) time.Time { return now.Add(-time.Duration(seconds) * time.Second) }

// Serial 7 was announced a minute ago; serial 9 is the newest.
func TestProgress(t *testing.T) {
	announced := journal.Stored{Announcement: event.Announcement{Module: "m", Epoch: ours, Serial: 7}, Digest: line, Created: ago(60)}
	newest := collector.Tip{Epoch: ours, Serial: 9, Digest: event.Sum([]byte("the line of serial 9"))}
	s := func(applied event.Serial) collector.Standing {
		return collector.Standing{Mirror: "x", Epoch: ours, Applied: applied, Heard: ago(10), Said: ago(20)}
	}
	said := func(o event.Outcome, serial event.Serial, text string, x collector.Standing) collector.Standing {
		x.Outcome, x.Serial, x.Error = o, serial, text
		return x
	}
	heard := func(at time.Time, x collector.Standing) collector.Standing { x.Heard = at; return x }
	spoken := func(at time.Time, x collector.Standing) collector.Standing { x.Said = at; return x }
	in := func(e event.Epoch, x collector.Standing) collector.Standing { x.Epoch = e; return x }
	word := func(o event.Outcome, done time.Time) []collector.Word {
		return []collector.Word{{Mirror: "other", Outcome: event.Applied}, {Mirror: "x", Outcome: o, Error: "why", Via: "hub", Received: ago(58), Done: done}}
	}
	const history = "it has another history than this master"
	for _, c := range []struct {
		name  string
		s     collector.Standing
		words []collector.Word
		want  MirrorProgress
		wants int // of 1
	}{
		{"no word yet", s(6), nil, MirrorProgress{}, 1},
		{"received", s(6), word(event.Received, time.Time{}), MirrorProgress{Outcome: event.Received, Error: "why", Via: "hub", Received: 2 * time.Second}, 1},
		{"failed", s(6), word(event.Failed, time.Time{}), MirrorProgress{Outcome: event.Failed, Error: "why", Via: "hub", Received: 2 * time.Second}, 1},
		{"the batch up to 8 failed", said(event.Failed, 8, "no space", s(6)), word(event.Received, time.Time{}),
			MirrorProgress{Outcome: event.Failed, Error: "no space", Via: "hub", Received: 2 * time.Second}, 1},
		{"an older one failed, so this one waits", said(event.Failed, 6, "no space", s(5)), nil, MirrorProgress{Outcome: event.Failed, Error: "no space"}, 1},
		{"an older one failed, and was done", said(event.Failed, 5, "no space", s(5)), nil, MirrorProgress{}, 1},
		{"applied", s(7), word(event.Applied, ago(30)),
			MirrorProgress{Has: true, Outcome: event.Applied, Via: "hub", Received: 2 * time.Second, Applied: 30 * time.Second}, 1},
		{"skipped", s(7), word(event.Skipped, ago(30)),
			MirrorProgress{Has: true, Outcome: event.Skipped, Via: "hub", Received: 2 * time.Second, Applied: 30 * time.Second}, 1},
		{"failed, then done with 8", s(8), word(event.Failed, time.Time{}),
			MirrorProgress{Has: true, Outcome: event.Applied, Via: "hub", Received: 2 * time.Second, Applied: 40 * time.Second}, 1},
		{"done with 8, no word", s(8), nil, MirrorProgress{Has: true, Outcome: event.Applied, Applied: 40 * time.Second}, 1},
		{"done by a full sync, which it said only in its have", spoken(ago(3600), s(9)), nil,
			MirrorProgress{Has: true, Outcome: event.Applied, Applied: 50 * time.Second}, 1},
		{"away", heard(ago(901), s(6)), nil, MirrorProgress{Away: true}, 0},
		{"away, and has it", heard(ago(901), s(7)), word(event.Applied, ago(30)),
			MirrorProgress{Has: true, Away: true, Outcome: event.Applied, Via: "hub", Received: 2 * time.Second, Applied: 30 * time.Second}, 1},
		{"another epoch", in("ffffffff", s(9)), nil, MirrorProgress{Outcome: event.Blocked, Error: history}, 1},
		{"beyond the newest", s(10), word(event.Applied, ago(30)),
			MirrorProgress{Outcome: event.Blocked, Error: history, Via: "hub", Received: 2 * time.Second}, 1},
		{"has nothing yet", in("00000000", s(0)), nil, MirrorProgress{}, 1},
	} {
		c.want.Mirror = "x"
		got := progress(announced, newest, []collector.Standing{c.s}, c.words, now, away)
		have := 0
		if c.want.Has {
			have = 1
		}
		want := Progress{Serial: 7, Elapsed: time.Minute, Have: have, Want: c.wants, Mirrors: []MirrorProgress{c.want}}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, d)
		}
	}
}

func TestEnough(t *testing.T) {
	for _, c := range []struct {
		have, want, n int
		enough        bool
	}{
		{0, 0, 0, false}, {0, 3, 0, false}, {2, 3, 0, false}, {3, 3, 0, true},
		{0, 3, 1, false}, {1, 3, 1, true}, {2, 3, 1, true}, {3, 3, 4, false}, {0, 0, 1, false},
	} {
		if got := (Progress{Have: c.have, Want: c.want}).enough(c.n); got != c.enough {
			t.Errorf("%d of %d, asked for %d: %t", c.have, c.want, c.n, got)
		}
	}
}

func TestParsePosition(t *testing.T) {
	if e, s, err := parsePosition("0123abcd:42"); e != ours || s != 42 || err != nil {
		t.Errorf("got %s, %d, %v", e, s, err)
	}
	if e, s, err := parsePosition("00000000:0"); e != "00000000" || s != 0 || err != nil {
		t.Errorf("got %s, %d, %v", e, s, err)
	}
	for _, bad := range []string{"", ":", "0123abcd", "0123abcd:", ":4", "0123abcd:-1", "0123abcd:04", "0123abcd:4:", "0123ABCD:4", "0123abcd:9223372036854775808", "0123abcd 4"} {
		if e, s, err := parsePosition(bad); err == nil {
			t.Errorf("%q is taken for %s, %d", bad, e, s)
		}
	}
}
