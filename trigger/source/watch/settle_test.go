package watch

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

var begin = time.Unix(1_700_000_000, 0)

func at(d time.Duration) time.Time { return begin.Add(d) }

func ms(n int) time.Duration { return time.Duration(n) * time.Millisecond }

func testTiming() Timing {
	return Timing{Quiet: ms(150), AtMost: 5 * time.Second, Burst: 1000, HotAfter: 3, HotAtMost: time.Minute}
}

// due is when the next names are due, or -1.
func dueAt(p *pending, now time.Time) time.Duration {
	t, ok := p.due(now)
	if !ok {
		return -1
	}
	return t.Sub(begin)
}

func pathsOf(out []entry) (all []string) {
	for _, e := range out {
		all = append(all, e.path)
	}
	return all
}

func TestNamesWaitUntilItIsQuiet(t *testing.T) {
	p := newPending(testTiming())
	if got := dueAt(p, at(0)); got != -1 {
		t.Errorf("with nothing there, due at %v", got)
	}
	p.touch(at(0), "a", closed)
	p.touch(at(ms(100)), "b", closed)
	if got := dueAt(p, at(ms(100))); got != ms(250) {
		t.Errorf("due at %v", got)
	}
	for n := range 100 { // it is never quiet
		p.touch(at(ms(100*n)), fmt.Sprint(n), closed)
	}
	if got := dueAt(p, at(ms(4000))); got != 5*time.Second {
		t.Errorf("due at %v, not at most 5s after the first", got)
	}
	out, _ := p.take(at(5*time.Second), false)
	if len(out) != 102 || len(p.items) != 0 || dueAt(p, at(5*time.Second)) != -1 {
		t.Errorf("took %d, %d left", len(out), len(p.items))
	}
	p.touch(at(time.Minute), "a", closed)
	if got := dueAt(p, at(time.Minute)); got != time.Minute+ms(150) {
		t.Errorf("the next is due at %v", got)
	}
}

func TestManyNamesDoNotWait(t *testing.T) {
	p := newPending(testTiming())
	for n := range 1000 {
		p.touch(at(ms(1)), fmt.Sprint(n), closed)
	}
	if got := dueAt(p, at(ms(2))); got != ms(2) {
		t.Errorf("due at %v", got)
	}
}

func TestTakenInTheOrderOfATree(t *testing.T) {
	p := newPending(testTiming())
	want := []string{"a", "a/b", "a/b/c", "a/c", "a b", "a-b", "ab", "b"}
	for _, path := range slices.Backward(want) {
		p.touch(at(0), path, closed)
	}
	out, _ := p.take(at(0), false)
	if got := pathsOf(out); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

// A file that changes all the time is announced at once some times, then at longer and longer distances, and named once.
func TestHotFile(t *testing.T) {
	p := newPending(testTiming())
	var announced []time.Duration
	var warned []string
	for now := time.Duration(0); now < 5*time.Minute; now += time.Second {
		p.touch(at(now), "hot", closed)
		if now%(20*time.Second) == 0 {
			p.touch(at(now), "other", closed)
		}
		out, hot := p.take(at(now), false)
		p.announced(at(now), out)
		warned = append(warned, hot...)
		if slices.Contains(pathsOf(out), "hot") {
			announced = append(announced, now/time.Second)
		}
		if now%(20*time.Second) == 0 && !slices.Contains(pathsOf(out), "other") {
			t.Errorf("at %v the other file is held back", now)
		}
	}
	if want := []time.Duration{0, 1, 2, 7, 17, 37, 77, 137, 197, 257}; !slices.Equal(announced, want) {
		t.Errorf("announced after %d seconds, want %d", announced, want)
	}
	if !slices.Equal(warned, []string{"hot"}) {
		t.Errorf("warned of %q", warned)
	}
	// It waits with a time of its own, and does not keep anything else waiting.
	p.touch(at(5*time.Minute), "hot", closed)
	if got := dueAt(p, at(5*time.Minute)); got != (257+60)*time.Second {
		t.Errorf("due at %v", got)
	}
	// Left alone for long enough it is as any other.
	out, _ := p.take(at(317*time.Second), false)
	p.announced(at(317*time.Second), out)
	p.touch(at(10*time.Minute), "hot", closed)
	if out, _ := p.take(at(10*time.Minute), false); len(out) != 1 {
		t.Error("it is still hot")
	}
	p.announced(at(time.Hour), []entry{{"x", &item{}}})
	if len(p.heat) != 1 {
		t.Errorf("%d names are remembered", len(p.heat))
	}
}

// What an index names goes soon after it has changed: to hold the index back, and announce that, would show mirrors' readers what is not there.
func TestAnIndexIsNeverHot(t *testing.T) {
	p := newPending(testTiming())
	p.index = func(path string) bool { return path == "repodata/repomd.xml" }
	for n := range 20 {
		now := at(time.Duration(n) * time.Second)
		for _, path := range []string{"repodata/repomd.xml", "hot"} {
			p.touch(now, path, closed)
		}
		out, hot := p.take(now, false)
		if paths := pathsOf(out); !slices.Contains(paths, "repodata/repomd.xml") || slices.Contains(hot, "repodata/repomd.xml") {
			t.Fatalf("after %d s only %q are announced; hot are %q", n, paths, hot)
		}
		p.announced(now, out)
	}
	if len(p.held) != 1 || p.held["hot"] == nil {
		t.Errorf("%d are held back, not what is hot and no index", len(p.held))
	}
}

// Everything is everything, hot or not.
func TestTakeEverything(t *testing.T) {
	p := newPending(testTiming())
	for now := range 4 {
		p.touch(at(time.Duration(now)), "hot", closed)
		out, _ := p.take(at(time.Duration(now)), false)
		p.announced(at(time.Duration(now)), out)
	}
	if len(p.held) != 1 {
		t.Fatalf("%d are held back", len(p.held))
	}
	if out, _ := p.take(at(4), true); len(out) != 1 || len(p.held) != 0 || len(p.items) != 0 {
		t.Errorf("took %q, %d held", pathsOf(out), len(p.held))
	}
}

// What could not be announced comes back, with what has happened to it since.
func TestBack(t *testing.T) {
	p := newPending(testTiming())
	p.touch(at(0), "made", born)
	p.touch(at(0), "gone", left|isDir)
	p.renamed(at(0), "old", "new", isDir)
	out, _ := p.take(at(0), false)
	p.touch(at(1), "made", left)
	p.touch(at(1), "gone", born|isDir)
	for _, e := range out {
		p.back(at(2), e, time.Time{})
	}
	made, gone, renamed := p.items["made"], p.items["gone"], p.items["new"]
	if !made.born || !made.left || made.open {
		t.Errorf("made: %+v", made)
	}
	if gone.born || !gone.whole {
		t.Errorf("gone: %+v", gone)
	}
	if renamed.from != "old" {
		t.Errorf("new: %+v", renamed)
	}
	if got := dueAt(p, at(2)); got != ms(150)+1 {
		t.Errorf("due at %v", got)
	}
	out, _ = p.take(at(3), false)
	p.back(at(3), out[0], at(time.Second))
	if _, ok := p.due(at(3)); !ok || len(p.held) != 1 {
		t.Errorf("%d held", len(p.held))
	}
	if out, _ := p.take(at(ms(500)), false); len(out) != 0 {
		t.Errorf("took %q too early", pathsOf(out))
	}
	if out, _ := p.take(at(time.Second), false); len(out) != 1 {
		t.Error("it is not taken in its time")
	}
}

// A file that was held back because somebody wrote it waits no longer once that is over.
func TestClosedIsNotHeldBack(t *testing.T) {
	p := newPending(testTiming())
	p.touch(at(0), "a", born)
	out, _ := p.take(at(ms(200)), false)
	p.back(at(ms(200)), out[0], at(time.Hour))
	p.touch(at(ms(300)), "a", 0)
	if got := dueAt(p, at(ms(300))); got != time.Hour {
		t.Errorf("due at %v", got)
	}
	p.touch(at(ms(400)), "a", closed)
	if got := dueAt(p, at(ms(400))); got != ms(550) || len(p.held) != 0 {
		t.Errorf("due at %v, %d held", got, len(p.held))
	}
}

func TestOrderOfEvents(t *testing.T) {
	for _, c := range []struct {
		name   string
		events func(p *pending)
		want   item
	}{
		{"made", func(p *pending) { p.touch(at(0), "x", born) }, item{born: true, open: true}},
		{"made and closed", func(p *pending) { p.touch(at(0), "x", born); p.touch(at(0), "x", closed) }, item{born: true}},
		{"in one event", func(p *pending) { p.touch(at(0), "x", born|closed) }, item{born: true}},
		{"made and removed", func(p *pending) { p.touch(at(0), "x", born); p.touch(at(0), "x", left) }, item{born: true, left: true, open: true}},
		{"made and removed in one event, or the other way round", func(p *pending) { p.touch(at(0), "x", born|left) }, item{left: true, open: true}},
		{"removed and made", func(p *pending) { p.touch(at(0), "x", left); p.touch(at(0), "x", born) }, item{left: true, open: true}},
		{"a directory made", func(p *pending) { p.touch(at(0), "x", born|isDir) }, item{born: true}},
		{"a file renamed while it is written", func(p *pending) { p.touch(at(0), "y", born); p.renamed(at(0), "y", "x", 0) }, item{open: true}},
		{"a directory renamed", func(p *pending) { p.renamed(at(0), "y", "x", isDir) }, item{from: "y"}},
		{"twice", func(p *pending) { p.renamed(at(0), "z", "y", isDir); p.renamed(at(0), "y", "x", isDir) }, item{from: "z"}},
		{"and back", func(p *pending) { p.renamed(at(0), "x", "y", isDir); p.renamed(at(0), "y", "x", isDir) }, item{left: true, whole: true, tree: true}},
		{"made aside and renamed", func(p *pending) { p.touch(at(0), "y", born|isDir); p.renamed(at(0), "y", "x", isDir) }, item{tree: true}},
		{"moved in and renamed", func(p *pending) { p.arrived(at(0), "y"); p.renamed(at(0), "y", "x", isDir) }, item{tree: true}},
		{"renamed away", func(p *pending) { p.renamed(at(0), "y", "x", isDir); p.renamed(at(0), "x", "z", isDir) }, item{left: true, whole: true}},
	} {
		p := newPending(testTiming())
		c.events(p)
		got := *p.items["x"]
		got.since = time.Time{}
		if got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}
