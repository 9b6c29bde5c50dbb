package collector_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/trigger/collector"
)

const (
	module = event.Module("debian")
	epoch  = event.Epoch("0123abcd")
)

var start = time.Date(2026, 11, 20, 19, 0, 0, 0, time.UTC)

func open(t testing.TB, dir string) *collector.Collector {
	t.Helper()
	c, err := collector.Open(t.Context(), dir)
	check(t, err)
	t.Cleanup(func() { check(t, c.Close()) })
	return c
}

func check(t interface {
	Helper()
	Fatal(...any)
}, err error,
) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// report is what a mirror says in its nth report.
func report(mirror string, run uint64, o event.Outcome, serial, applied event.Serial) event.Report {
	return event.Report{Module: module, Mirror: mirror, Epoch: epoch, Run: run, Outcome: o, Serial: serial, Applied: applied}
}

// put stores reports, one a second.
func put(t testing.TB, c *collector.Collector, reports ...event.Report) {
	t.Helper()
	for i, r := range reports {
		check(t, c.Put(t.Context(), r, start.Add(time.Duration(i)*time.Second)))
	}
}

func standings(t testing.TB, c *collector.Collector) []collector.Standing {
	t.Helper()
	all, err := c.Standings(t.Context(), module)
	check(t, err)
	return all
}

func words(t testing.TB, c *collector.Collector, e event.Epoch, s event.Serial) []collector.Word {
	t.Helper()
	all, err := c.Words(t.Context(), module, e, s)
	check(t, err)
	return all
}

func same(t testing.TB, what string, got, want any) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

func at(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second).Local() }

func TestStandingAndWord(t *testing.T) {
	c := open(t, t.TempDir())
	applied := report("one", 3, event.Applied, 7, 7)
	applied.Took, applied.Files, applied.Bytes, applied.Deleted, applied.Head = 1500*time.Millisecond, 3, 4000, 1, event.Sum([]byte("line"))
	received := report("one", 2, event.Received, 7, 6)
	received.Via, received.Heard = "hub", -20*time.Millisecond
	put(t, c, report("one", 1, event.Have, 6, 6), received, applied, report("two", 1, event.Have, 0, 0))
	same(t, "standings", standings(t, c), []collector.Standing{
		{Mirror: "one", Epoch: epoch, Applied: 7, Head: applied.Head, Heard: at(2), Outcome: event.Applied, Serial: 7, Said: at(2)},
		{Mirror: "two", Epoch: epoch, Heard: at(3), Outcome: event.Have, Said: at(3)},
	})
	same(t, "words", words(t, c, epoch, 7), []collector.Word{{Mirror: "one", Outcome: event.Applied, Via: "hub", Took: applied.Took, Heard: received.Heard,
		Files: 3, Bytes: 4000, Deleted: 1, Received: at(1), Done: at(2)}})
	same(t, "words on a serial nobody spoke of", words(t, c, epoch, 6), []collector.Word(nil))
	same(t, "words in another epoch", words(t, c, "ffffffff", 7), []collector.Word(nil))
	if other, err := c.Standings(t.Context(), "fedora"); err != nil || other != nil {
		t.Errorf("another module: %v, %v", other, err)
	}
}

// A report that is delivered again does not make its mirror look alive.
func TestRepeatedReportIsNoSignOfLife(t *testing.T) {
	c := open(t, t.TempDir())
	r := report("one", 5, event.Applied, 7, 7)
	put(t, c, r, r, report("one", 4, event.Have, 6, 6), r)
	same(t, "standing", standings(t, c), []collector.Standing{
		{Mirror: "one", Epoch: epoch, Applied: 7, Heard: at(0), Outcome: event.Applied, Serial: 7, Said: at(0)}})
}

// "have" says where a mirror is and that it lives; that it could not apply a serial stays known. The failure may come after a newer "have".
func TestHaveKeepsTheLastWord(t *testing.T) {
	failed := report("one", 2, event.Failed, 7, 6)
	failed.Error = "no space"
	want := collector.Standing{Mirror: "one", Epoch: epoch, Applied: 6, Outcome: event.Failed, Serial: 7, Error: "no space"}
	for name, order := range map[string][]event.Report{
		"in order":     {failed, report("one", 3, event.Have, 6, 6)},
		"out of order": {report("one", 3, event.Have, 6, 6), failed},
	} {
		c := open(t, t.TempDir())
		put(t, c, order...)
		got := standings(t, c)
		got[0].Heard, got[0].Said = time.Time{}, time.Time{}
		same(t, name, got, []collector.Standing{want})
	}
}

// A word that comes late does not take back how far its mirror has come since.
func TestALateWordDoesNotMoveTheSerialBack(t *testing.T) {
	c := open(t, t.TempDir())
	put(t, c, report("one", 3, event.Have, 8, 8), report("one", 1, event.Failed, 7, 6))
	got := standings(t, c)
	if len(got) != 1 || got[0].Applied != 8 || got[0].Outcome != event.Failed || got[0].Heard != at(0) {
		t.Errorf("it is at %+v", got)
	}
}

// What a mirror writes ends on an operator's terminal.
func TestErrorTextIsHarmless(t *testing.T) {
	c := open(t, t.TempDir())
	r := report("one", 1, event.Failed, 7, 6)
	r.Error = "\x1b]0;owned\a\x1b[2J a\nb\r\u009b é ' \\ \u202e\ufffd"
	put(t, c, r)
	const want = `\x1b]0;owned\a\x1b[2J a\nb\r\u009b é ' \ \u202e` + "\ufffd"
	if got := standings(t, c)[0].Error; got != want {
		t.Errorf("standing says %q, want %q", got, want)
	}
	if got := words(t, c, epoch, 7)[0].Error; got != want {
		t.Errorf("word says %q, want %q", got, want)
	}
}

func TestForget(t *testing.T) {
	c := open(t, t.TempDir())
	put(t, c, report("one", 9, event.Applied, 7, 7), report("two", 1, event.Applied, 7, 7))
	changed := c.Changed()
	check(t, c.Forget(t.Context(), "one"))
	select {
	case <-changed:
	default:
		t.Error("nobody was told")
	}
	if s, w := standings(t, c), words(t, c, epoch, 7); len(s) != 1 || s[0].Mirror != "two" || len(w) != 1 || w[0].Mirror != "two" {
		t.Errorf("left are %+v, %+v", s, w)
	}
	if err := c.Forget(t.Context(), "one"); !errors.Is(err, collector.ErrUnknown) {
		t.Errorf("forgotten twice: %v", err)
	}
	put(t, c, report("one", 1, event.Have, 3, 3)) // it was set up anew and counts from the start
	if s := standings(t, c); len(s) != 2 || s[0].Applied != 3 {
		t.Errorf("after it came back: %+v", s)
	}
}

func TestChangedIsToldOncePerChange(t *testing.T) {
	c := open(t, t.TempDir())
	before := c.Changed()
	select {
	case <-before:
		t.Fatal("changed before anything was said")
	default:
	}
	put(t, c, report("one", 1, event.Have, 3, 3))
	<-before
	select {
	case <-c.Changed():
		t.Error("changed, and nothing new was said")
	default:
	}
}

func TestKeptOverARestart(t *testing.T) {
	dir := t.TempDir()
	first, err := collector.Open(t.Context(), dir)
	check(t, err)
	put(t, first, report("one", 1, event.Applied, 7, 7))
	want := standings(t, first)
	check(t, first.Close())
	same(t, "standings", standings(t, open(t, dir)), want)
}

// A mirror speaks for itself alone: serials that never were make nobody else's words go away, and its own are bounded.
func TestRetentionIsOfEachMirror(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir, 5000)
	c := open(t, dir)
	put(t, c, report("honest", 1, event.Applied, 7, 7))
	put(t, c, report("odd", 6000, event.Failed, math.MaxInt64, 0))
	odd := report("odd", 6001, event.Applied, 3, 3)
	odd.Epoch = "ffffffff"
	put(t, c, odd)
	if w := words(t, c, epoch, 7); len(w) != 1 || w[0].Mirror != "honest" {
		t.Errorf("of serial 7 is known: %+v", w)
	}
	for serial, kept := range map[event.Serial]int{math.MaxInt64: 1, 5000: 1, 4003: 1, 4002: 0, 1000: 0} {
		if got := len(words(t, c, epoch, serial)); got != kept {
			t.Errorf("words on serial %d: %d, want %d", serial, got, kept)
		}
	}
}

// fill gives the mirror "odd" a word on each of n serials, past the Collector as that would take one fsync each.
func fill(t *testing.T, dir string, n int) {
	t.Helper()
	first, err := collector.Open(t.Context(), dir)
	check(t, err)
	check(t, first.Close())
	db, err := sql.Open("sqlite", filepath.Join(dir, "reports.db"))
	check(t, err)
	_, err = db.ExecContext(t.Context(), `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
		INSERT INTO outcome SELECT ?, ?, i, 'odd', i, 'applied', '', '', 0, 0, 0, 0, 0, 1, 1 FROM n`, n, module, epoch)
	check(t, err)
	check(t, db.Close())
}

func TestErrorsNameMirrorAndModule(t *testing.T) {
	c := open(t, t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	changed := c.Changed()
	if err := c.Put(ctx, report("one", 1, event.Have, 3, 3), start); err == nil || !strings.HasPrefix(err.Error(), "store report of one on debian: ") {
		t.Errorf("Put: %v", err)
	}
	if err := c.Forget(ctx, "one"); err == nil || !strings.HasPrefix(err.Error(), "forget mirror one: ") {
		t.Errorf("Forget: %v", err)
	}
	if _, err := c.Standings(ctx, module); err == nil {
		t.Error("Standings: no error")
	}
	if _, err := c.Words(ctx, module, epoch, 1); err == nil {
		t.Error("Words: no error")
	}
	select {
	case <-changed:
		t.Error("told of a change that was not stored")
	default:
	}
}

func BenchmarkPut(b *testing.B) {
	c := open(b, b.TempDir())
	for run := uint64(1); b.Loop(); run++ {
		check(b, c.Put(b.Context(), report(fmt.Sprint("mirror", run%50), run, event.Applied, event.Serial(run), event.Serial(run)), start))
	}
}
