package transports_test

import (
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/transports"
)

func TestPause(t *testing.T) {
	p := transports.Pause{Min: time.Second, Max: 10 * time.Second}
	for i, want := range []time.Duration{1, 2, 4, 8, 10, 10, 10} {
		if got := p.Next(1); got != want*time.Second {
			t.Errorf("limit %d is %v, want %v", i, got, want*time.Second)
		}
	}
	if got := p.Lost(time.Minute-1, time.Minute, false, 0.5); got != 5*time.Second {
		t.Errorf("after a connection that did not last: %v", got)
	}
	if got := p.Lost(time.Minute, time.Minute, false, 0.5); got != time.Second/2 {
		t.Errorf("after a connection that lasted: %v", got)
	}
	if got := p.Lost(0, time.Minute, true, 0); got != 10*time.Second {
		t.Errorf("after a permanent error: %v", got)
	}
	if got := p.Next(0); got != 0 {
		t.Errorf("the least wait is %v", got)
	}
}
