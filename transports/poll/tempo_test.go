package poll

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mirrorbus/mirrorbus/transports"
)

func TestTempo(t *testing.T) {
	p := newTempo(10*time.Second, 100*time.Second)
	looked := func(what string, news bool, fresh time.Duration, spread float64, want time.Duration) {
		t.Helper()
		if got := p.looked(news, fresh, spread); got != want {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	looked("at first", false, 0, 0.5, 10*time.Second)
	looked("no news", false, 0, 0.5, 15*time.Second)
	looked("no news, the least", false, 0, 0, 22500*time.Millisecond-22500*time.Millisecond/4)
	looked("no news, the most", false, 0, 1, 33750*time.Millisecond+33750*time.Millisecond/4)
	for range 10 {
		p.looked(false, 0, 0.5)
	}
	looked("no news for long", false, 0, 0.5, 100*time.Second)
	looked("news", true, 0, 0.5, 10*time.Second)
	looked("an answer that holds", true, 40*time.Second, 0.5, 40*time.Second)
	looked("an answer that holds for long", true, time.Hour, 0.5, 100*time.Second)
	for _, want := range []time.Duration{10, 20, 40, 80, 100, 100} {
		if got := p.failed(false, 0, 1); got != want*time.Second {
			t.Errorf("failed: %v, want %v", got, want*time.Second)
		}
	}
	if got := p.failed(false, 0, 0); got != 2500*time.Millisecond {
		t.Errorf("failed, the least: %v", got)
	}
	if got := p.failed(true, 0, 0); got != 100*time.Second {
		t.Errorf("failed for good: %v", got)
	}
	if got := p.failed(false, 10*time.Minute, 0); got != 10*time.Minute {
		t.Errorf("asked to wait: %v", got)
	}
	if got := p.failed(false, 1000*time.Hour, 0); got != mostAsked {
		t.Errorf("asked to wait for ever: %v", got)
	}
	looked("well again", false, 0, 0.5, 15*time.Second)
	if got := p.failed(false, 0, 1); got != 10*time.Second {
		t.Errorf("failed once more: %v", got)
	}
}

// A fakePlace shows what it is told to, and notes when it was looked at.
type fakePlace struct {
	shows func(n int) (sight, error)
	at    []time.Time
}

func (*fakePlace) id() string     { return "fake" }
func (*fakePlace) String() string { return "fake" }
func (p *fakePlace) look(context.Context) (sight, error) {
	p.at = append(p.at, time.Now())
	return p.shows(len(p.at))
}

type heard struct{ bodies []string }

func (*heard) Connected() {}
func (h *heard) Receive(_ context.Context, m transports.Message) error {
	h.bodies = append(h.bodies, string(m.Body))
	return nil
}

// follows looks at a place for so long, with a clock of its own, and returns the waits between the looks.
func follows(t *testing.T, span time.Duration, shows func(n int) (sight, error)) (waits []time.Duration, w *watch, h *heard, ended error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		conf := *DefaultMirrorConfig()
		conf.Head = "http://127.0.0.1:1/"
		m, err := newMirror(conf, transports.Env{})
		if err != nil {
			t.Fatal(err)
		}
		p := &fakePlace{shows: shows}
		w, h = &watch{place: p, name: "fake", tempo: newTempo(conf.EveryMin.Duration, conf.EveryMax.Duration)}, &heard{}
		ctx, fail := context.WithCancelCause(t.Context())
		in := &intake{r: h, fail: fail, one: make(chan struct{}, 1), blind: map[*watch]error{}, places: 1}
		stop := time.AfterFunc(span, func() { fail(nil) })
		m.follow(ctx, w, in, make(chan struct{}, 1))
		stop.Stop()
		ended = context.Cause(ctx)
		for i := 1; i < len(p.at); i++ {
			waits = append(waits, p.at[i].Sub(p.at[i-1]))
		}
	})
	return waits, w, h, ended
}

// TestLooksComeLessOftenAndSoonAfterNews in two hours of which the middle has something new.
func TestLooksComeLessOftenAndSoonAfterNews(t *testing.T) {
	body := "first"
	looks := 0
	waits, w, h, ended := follows(t, 2*time.Hour, func(n int) (sight, error) {
		if n == 20 {
			body, looks = "second", n
		}
		return sight{bodies: [][]byte{[]byte(body)}}, nil
	})
	if !errors.Is(ended, context.Canceled) || len(h.bodies) != 2 || h.bodies[1] != "second" {
		t.Errorf("ended with %v, heard %q", ended, h.bodies)
	}
	if len(waits) < 20 || len(waits) > 45 {
		t.Fatalf("looked %d times in two hours", len(waits)+1)
	}
	around := func(i int, want time.Duration) {
		t.Helper()
		if got := waits[i]; got < want*3/4 || got > want*5/4 {
			t.Errorf("wait %d is %v, want about %v", i, got, want)
		}
	}
	around(0, 15*time.Second)
	around(1, 22500*time.Millisecond)
	around(18, 5*time.Minute)
	around(looks-1, 15*time.Second)
	if w.changed.IsZero() || w.err != nil || w.looked.Before(w.changed) {
		t.Errorf("the watch says %s", w)
	}
}

// TestNoNewsIsNotCannotTell: after an error it is said since when nothing is known, and why; the last news stay what they were.
func TestNoNewsIsNotCannotTell(t *testing.T) {
	broken := errors.New("the server says \"500\"\x1b[2J")
	_, w, h, ended := follows(t, time.Hour, func(n int) (sight, error) {
		if n > 5 {
			return sight{}, later{broken, 10 * time.Minute}
		}
		return sight{unchanged: n > 1, bodies: [][]byte{[]byte("first")}}, nil
	})
	if !errors.Is(ended, broken) || len(h.bodies) != 1 {
		t.Errorf("ended with %v, heard %q", ended, h.bodies)
	}
	if !errors.Is(w.err, broken) || w.blind.IsZero() || !w.changed.Before(w.blind) || w.due.Sub(w.looked) < 10*time.Minute {
		t.Errorf("the watch says %s", w)
	}
	want := "fake: cannot tell since " + stamp(w.blind) + `: the server says "500" [2J, changed ` + stamp(w.changed) + ", next look " + stamp(w.due)
	if w.String() != want {
		t.Errorf("the watch says %q, want %q", w, want)
	}
}

// TestAHeadThatIsSignedAnewIsNoNews: it is handed on, since it says that the old one still holds, and does not make looks come sooner.
func TestAHeadThatIsSignedAnewIsNoNews(t *testing.T) {
	waits, _, h, _ := follows(t, time.Hour, func(n int) (sight, error) {
		return sight{bodies: [][]byte{[]byte("mirrorbus1 head epoch=1 serial=7 at=" + stamp(time.Now()))}}, nil
	})
	if len(h.bodies) != len(waits)+1 || len(waits) > 25 {
		t.Errorf("looked %d times, heard %d", len(waits)+1, len(h.bodies))
	}
}

func TestRetryAfterAndFreshness(t *testing.T) {
	now := time.Date(2026, 11, 20, 19, 0, 0, 0, time.UTC)
	for field, want := range map[string]time.Duration{
		"": 0, "0": 0, "120": 2 * time.Minute, "-1": 0, "soon": 0, "99999999999999999999": 0,
		"Fri, 20 Nov 2026 19:05:00 GMT": 5 * time.Minute, "Fri, 20 Nov 2026 18:00:00 GMT": 0,
	} {
		if got := retryAfter(field, now); got != want {
			t.Errorf("Retry-After %q: %v, want %v", field, got, want)
		}
	}
	for _, c := range []struct {
		control, age string
		want         time.Duration
	}{
		{"", "", 0}, {"max-age=60", "", time.Minute}, {"public, Max-Age=\"60\"", "20", 40 * time.Second}, {"max-age=60, no-cache", "", 0}, {"no-store", "", 0},
		{"max-age=60", "90", 0}, {"max-age=x", "", 0}, {"max-age=60", "x", time.Minute},
	} {
		h := http.Header{}
		h.Set("Cache-Control", c.control)
		h.Set("Age", c.age)
		if got := freshness(h); got != c.want {
			t.Errorf("Cache-Control %q, Age %q: %v, want %v", c.control, c.age, got, c.want)
		}
	}
}
