package journal_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/trigger/journal"
)

// wants fails unless err Is want, nil for none.
func wants(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

func begin(t *testing.T, j *journal.Journal, at time.Time) journal.Compose {
	t.Helper()
	c, err := j.BeginCompose(t.Context(), journal.Compose{Module: module, Began: at, Until: at.Add(time.Hour), Who: "alice", Note: "a push"})
	check(t, err)
	return c
}

func flip(path string) journal.Entry {
	return journal.Entry{Module: module, Kind: event.Flip, Set: event.PathSet{{Op: event.Meta, Mode: event.ModeFile | 0o644, Path: path}}}
}

// While a compose is under way changes are refused, flips are not, and names are gathered. What ends it is one announcement.
func TestCompose(t *testing.T) {
	dir := t.TempDir()
	j, _ := open(t, dir, options(t))
	if c, err := j.Compose(t.Context(), module); err != nil || c.Ended == "" || !c.Began.IsZero() {
		t.Errorf("before the first: %+v, %v", c, err)
	}
	wants(t, "gather without one", j.Gather(t.Context(), module, []journal.Gathered{{Path: "a"}}), journal.ErrNoCompose)
	_, err := j.ExtendCompose(t.Context(), module, start, start)
	wants(t, "extend without one", err, journal.ErrNoCompose)
	_, err = j.BeginCompose(t.Context(), journal.Compose{Module: "other"})
	wants(t, "begin of an unknown module", err, journal.ErrUnknownModule)

	begin(t, j, start)
	again, err := j.BeginCompose(t.Context(), journal.Compose{Module: module, Began: start.Add(time.Minute), Who: "bob"})
	wants(t, "begin twice", err, journal.ErrComposing)
	if again.Who != "alice" || again.Note != "a push" || !again.Began.Equal(start) {
		t.Errorf("the one under way is told as %+v", again)
	}
	_, err = j.Append(t.Context(), write("a"))
	wants(t, "a change", err, journal.ErrComposing)
	_, err = j.Append(t.Context(), flip("a"))
	wants(t, "a flip", err, nil)
	check(t, j.Gather(t.Context(), module, []journal.Gathered{{Op: event.Write, Path: "a"}, {Op: event.Gone, Path: "b\xff"}, {Path: "c"}, {Op: event.Write, Path: "d"}}))
	check(t, j.Gather(t.Context(), module, []journal.Gathered{{Op: event.Write, Path: "a"}, {Op: event.Level, Path: "d"}, {Op: event.Renamed, Path: "e", From: "f"}}))
	check(t, j.Close())

	j, _ = open(t, dir, options(t)) // all of it is kept
	c, names, err := j.Gathered(t.Context(), module)
	check(t, err)
	want := []journal.Gathered{{Op: event.Write, Path: "a"}, {Op: event.Gone, Path: "b\xff"}, {Path: "c"}, {Path: "d"}, {Op: event.Renamed, Path: "e", From: "f"}}
	if !slices.Equal(names, want) || c.Names != 5 || c.Ended != "" || !c.Until.Equal(start.Add(time.Hour)) {
		t.Errorf("gathered %q of %+v, want %q", names, c, want)
	}
	check(t, j.Gather(t.Context(), module, []journal.Gathered{{Path: "late"}}))
	e := write("a")
	e.Ends = &journal.End{Compose: c, How: journal.Committed}
	_, err = j.Append(t.Context(), e)
	wants(t, "the end by one who has not seen all", err, journal.ErrGathered)
	wants(t, "likewise without an announcement", j.EndCompose(t.Context(), c, journal.Aborted), journal.ErrGathered)
	e.Ends.Compose, _, err = j.Gathered(t.Context(), module)
	check(t, err)
	a, err := j.Append(t.Context(), e)
	check(t, err)
	if a.Announcement.Serial != 2 {
		t.Errorf("announced as %d", a.Announcement.Serial)
	}
	_, err = j.Append(t.Context(), e)
	wants(t, "the end twice", err, journal.ErrNoCompose)
	if c, err := j.Compose(t.Context(), module); err != nil || c.Ended != journal.Committed || c.Names != 0 || c.EndedAt.IsZero() {
		t.Errorf("afterwards: %+v, %v", c, err)
	}
	_, err = j.Append(t.Context(), write("b"))
	wants(t, "a change afterwards", err, nil)

	c = begin(t, j, start.Add(time.Minute)) // and the next one has nothing of it
	if c.Names != 0 || c.Ended != "" || !c.EndedAt.IsZero() {
		t.Errorf("the next one: %+v", c)
	}
	check(t, j.EndCompose(t.Context(), c, journal.Aborted))
}

// A head says for how long mirrors are to wait, and of two heads of one serial the one that is true now is the later, be they signed in the same second.
func TestHeadsTellOfAComposeInTheirOrder(t *testing.T) {
	j, _ := open(t, t.TempDir(), options(t))
	appendN(t, j, 1, 1)
	var last event.Head
	head := func(now time.Time, want time.Duration) {
		t.Helper()
		line, h, err := j.Head(t.Context(), module, 48*time.Hour, now)
		check(t, err)
		read, err := event.Read(line)
		check(t, err)
		if end := h.At.Add(h.Hold); read.Head.Hold != h.Hold || !read.Head.At.Equal(h.At) || (h.Hold > 0) != (want > 0) || want > 0 && !end.Equal(start.Add(want)) {
			t.Errorf("head of %v: hold %v until %v, want until %v", h.At, h.Hold, end, start.Add(want))
		}
		if h.Hold != last.Hold && h.At.Equal(last.At) || h.At.Before(last.At) {
			t.Errorf("the head that holds %v is of %v, that which holds %v of %v", h.Hold, h.At, last.Hold, last.At)
		}
		last = h
	}
	head(start, 0)
	for range 3 {
		begin(t, j, start)
		head(start, time.Hour)
		c, err := j.ExtendCompose(t.Context(), module, start.Add(2*time.Hour), start)
		check(t, err)
		head(start, 2*time.Hour)
		check(t, j.EndCompose(t.Context(), c, journal.Aborted))
		head(start, 0)
	}
	begin(t, j, start)
	head(start.Add(30*time.Minute), time.Hour)
	head(start.Add(time.Hour), 0) // its time is over, whether or not somebody has noted that

	// A compose may be begun for longer than a head may say.
	c, err := j.ExtendCompose(t.Context(), module, start.Add(72*time.Hour), start)
	check(t, err)
	line, h, err := j.Head(t.Context(), module, 48*time.Hour, start.Add(time.Hour))
	if err != nil || h.Hold != event.MaxHold || h.TTL != event.MaxHold || len(line) > event.MaxCompact || !c.Until.After(start) {
		t.Errorf("%s: %v", line, err)
	}
}

// A clock that was wrong when a compose began does not make heads of the future.
func TestAComposeOfAWrongClock(t *testing.T) {
	j, _ := open(t, t.TempDir(), options(t))
	c := begin(t, j, start.Add(1000*time.Hour))
	check(t, j.EndCompose(t.Context(), c, journal.Aborted))
	if _, h, err := j.Head(t.Context(), module, time.Hour, start); err != nil || !h.At.Equal(start) {
		t.Errorf("head of %v, %v", h.At, err)
	}
}

// The exported head is written anew when what it says of a compose changes, and not otherwise.
func TestExportedHeadTellsOfACompose(t *testing.T) {
	m := newMaster(t, journal.ExportOptions{HeadEvery: 5 * time.Minute, HeadTTL: 15 * time.Minute})
	advance := func(later time.Duration, want string) {
		t.Helper()
		m.now = m.now.Add(later)
		check(t, m.Advance(t.Context()))
		h := readHead(t, m.dir())
		if got := fmt.Sprint(h.At.Sub(start), " ", h.Hold); got != want {
			t.Errorf("at %v the head says %s, want %s", m.now.Sub(start), got, want)
		}
	}
	advance(0, "0s 0s")
	begin(t, m.Journal, m.now)
	advance(0, "1s 59m59s")
	advance(2*time.Minute, "1s 59m59s")
	_, err := m.ExtendCompose(t.Context(), module, start.Add(2*time.Hour), m.now)
	check(t, err)
	advance(0, "2m1s 1h57m59s")
	advance(6*time.Minute, "8m0s 1h52m0s")
	c, _, err := m.Gathered(t.Context(), module)
	check(t, err)
	check(t, m.EndCompose(t.Context(), c, journal.Committed))
	advance(0, "8m1s 0s")
	begin(t, m.Journal, m.now)
	advance(0, "8m2s 59m58s")
	advance(time.Hour, "1h8m0s 0s") // over
}
