package watch

import (
	"log/slog"
	"testing"
	"time"
)

// Who waits for a sync is not answered before what is to be scanned, or is being scanned, was: that may find more to announce.
func TestASyncWaitsForScans(t *testing.T) {
	for name, want := range map[string]errand{"of everything": {why: "asked"}, "of what was uncovered": {dirs: []string{"pool/sub"}, why: "unmounted below"}} {
		w := New(Options{Module: "m", Root: t.TempDir()}, nil, slog.New(slog.DiscardHandler))
		w.in.need(want)
		a := &ask{done: make(chan error, 1)}
		w.readUpTo([]*ask{a}, false)
		if n := len(w.takeReady()); n != 0 {
			t.Errorf("%s: answered while it is due", name)
		}
		e, _ := w.errand(time.Now())
		if e == nil {
			t.Fatalf("%s: no scan is due", name)
		}
		if n := len(w.takeReady()); n != 0 {
			t.Errorf("%s: answered while it runs", name)
		}
		w.scanned(*e, false)
		if n := len(w.takeReady()); n != 0 {
			t.Errorf("%s: answered although it failed", name)
		}
		e, _ = w.errand(time.Now())
		w.scanned(*e, true)
		if n := len(w.takeReady()); n != 1 {
			t.Errorf("%s: not answered after it", name)
		}
	}
}
