package daemon

import (
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/transports/outlet"
)

// Before a daemon that was only there for a moment ends, it waits for a transport that is on its way, and for none that nobody calls or that cannot.
func TestMayTake(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	for name, c := range map[string]struct {
		o    outlet.Status
		want bool
	}{
		"nothing waits":               {outlet.Status{Connected: true}, false},
		"it takes what waits":         {outlet.Status{Connected: true, Waiting: 1, Since: now.Add(-time.Hour)}, true},
		"it does not":                 {outlet.Status{Connected: true, Waiting: 1, Since: now.Add(-time.Hour), SendError: "nobody has the nick"}, false},
		"it has only just connected":  {outlet.Status{Connected: true, Waiting: 1, Since: now.Add(-time.Second), SendError: "not connected"}, true},
		"it is on its way":            {outlet.Status{Waiting: 1, SendError: "not connected"}, true},
		"it has tried and failed":     {outlet.Status{Waiting: 1, Error: "connection refused"}, false},
		"it waits until it is called": {outlet.Status{Waiting: 1, Called: true}, false},
	} {
		if got := mayTake(c.o, now); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
