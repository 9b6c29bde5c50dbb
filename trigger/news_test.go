package trigger

import (
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/envelope"
	"github.com/mirrorbus/mirrorbus/trigger/journal"
)

func TestSentence(t *testing.T) {
	set, err := event.NewPathSet([]event.Record{{Op: event.Gone, Path: "old"}, {Op: event.Meta, Mode: event.ModeFile | 0o644, Path: "with\nline feed"}})
	if err != nil {
		t.Fatal(err)
	}
	packed := envelope.Compress(set.Encode())
	a := event.Announcement{Kind: event.Change, Module: "fedora", Serial: 1042, Set: set.Digest(), At: now}
	flip := a
	flip.Kind = event.Flip
	later := flip
	later.NotBefore = time.Hour
	bare := a
	bare.Set = event.Digest{}
	for want, c := range map[string]struct {
		a journal.Stored
		n event.Serial
	}{
		`fedora 1042: 2 paths changed: -old, "with\nline feed"`:                                                               {journal.Stored{Announcement: a, Set: packed, Records: 2}, 1},
		`fedora 1042, and 3 before it: 2 paths changed: -old, "with\nline feed"`:                                              {journal.Stored{Announcement: a, Set: packed, Records: 2}, 4},
		`fedora 1042: 2 paths made visible: -old, "with\nline feed"`:                                                          {journal.Stored{Announcement: flip, Set: packed, Records: 2}, 1},
		`fedora 1042: 2 paths to be made visible at ` + now.Add(time.Hour).Format(time.RFC3339) + `: -old, "with\nline feed"`: {journal.Stored{Announcement: later, Set: packed, Records: 2}, 1},
		`fedora 1042: anything may have changed`:                                                                              {journal.Stored{Announcement: bare}, 1},
	} {
		if got := sentence(c.a, c.n); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

func TestSummary(t *testing.T) {
	p := Progress{Serial: 1042}
	for range 38 {
		p.Mirrors = append(p.Mirrors, MirrorProgress{Mirror: "x", Has: true, Applied: time.Second})
	}
	p.Mirrors = append(p.Mirrors, MirrorProgress{Mirror: "y", Has: true, Applied: 4100 * time.Millisecond}, MirrorProgress{Mirror: "z", Has: true, Applied: time.Minute})
	p.Have = 40
	if got, want := summary("fedora", p), "fedora 1042: 40 of 40 mirrors, p95 1.0 s"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for _, name := range []string{"a", "b", "c", "d", "e", "f", "g"} {
		p.Mirrors = append(p.Mirrors, MirrorProgress{Mirror: name})
	}
	p.Mirrors = append(p.Mirrors, MirrorProgress{Mirror: "h", Outcome: event.Failed}, MirrorProgress{Mirror: "i", Away: true})
	if got, want := summary("fedora", p), "fedora 1042: 40 of 49 mirrors, p95 1.0 s, slow: a, b, c, d, e and 2 more, failed: h, away: i"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := summary("fedora", Progress{Serial: 1, Mirrors: []MirrorProgress{{Mirror: "a"}}}), "fedora 1: 0 of 1 mirrors, slow: a"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
