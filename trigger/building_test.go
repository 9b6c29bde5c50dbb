package trigger_test

import (
	"strings"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/trigger"
)

// How far a walk is, how fast it goes, and how long it will take where the manifest before tells how many names there may be.
func TestProgressOfAWalk(t *testing.T) {
	for name, c := range map[string]struct {
		b    trigger.Building
		want string
	}{
		"a quarter":              {trigger.Building{Entries: 250_000, Bytes: 1 << 30, Expected: 1_000_000, Elapsed: 10 * time.Second}, "250,000 names, 1.0 GiB, 25000 a second, about 30s left"},
		"the first of all":       {trigger.Building{Entries: 250_000, Elapsed: 10 * time.Second}, "250,000 names, 0 B, 25000 a second"},
		"more than there were":   {trigger.Building{Entries: 1001, Expected: 1000, Elapsed: time.Second}, "1,001 names, 0 B, 1001 a second"},
		"nothing yet":            {trigger.Building{Expected: 1000}, "0 names, 0 B, 0 a second"},
		"done, with something":   {trigger.Building{Entries: 10, Expected: 20, Elapsed: 2 * time.Second, Done: true, Notes: []string{"one", "two"}}, "10 names, 0 B, 5 a second, done in 2s; one; two"},
		"done before it was one": {trigger.Building{Entries: 10, Elapsed: time.Microsecond, Done: true}, "10 names, 0 B, 10000 a second, done in 0s"},
	} {
		if got := c.b.String(); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// A scan says how far it is, of how many names, before it is done; and so does status.
func TestScanTellsHowFarItIs(t *testing.T) {
	m := newMaster(t)
	m.write("a")
	m.write("b")
	h, _ := m.running()
	steps := 0
	check(t, h.Scan(t.Context(), trigger.ScanRequest{Module: "m"}, func(s trigger.Scanned) error {
		if s.Done {
			return nil
		}
		steps++
		if s.Expected == 0 {
			t.Errorf("of how many names is not said: %s", s.Building)
		}
		st, err := h.Status(t.Context())
		if err == nil && !strings.Contains(st.Modules[0].Scanning, " names, ") {
			t.Errorf("status says %q", st.Modules[0].Scanning)
		}
		return err
	}))
	if steps == 0 {
		t.Error("nothing is said before it is done")
	}
}
