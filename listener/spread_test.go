package listener

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
)

// After a connect the modules of a hundred mirrors are not looked at all at once: a hub that restarts would have every mirror ask its upstream in
// the same second.
func TestConnectsSpreadTheLooks(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	early, late := 0, 0
	for i := range 100 {
		name := event.Module(fmt.Sprint("m", i))
		a := &Agent{o: Options{Spread: time.Minute, Now: func() time.Time { return now }, Log: slog.New(slog.DiscardHandler)}, haves: make(chan string, 1)}
		w := newWorker(a, Module{Name: name})
		a.workers = map[event.Module]*worker{name: w}
		a.Receiver("mem").Connected()
		switch wait := w.look.Sub(now); {
		case wait < 0 || wait > time.Minute:
			t.Errorf("the head is looked at after %v, want within a minute", wait)
		case wait < 20*time.Second:
			early++
		case wait > 40*time.Second:
			late++
		}
	}
	if early < 10 || late < 10 {
		t.Errorf("of 100 mirrors %d look in the first third of a minute and %d in the last", early, late)
	}
}
