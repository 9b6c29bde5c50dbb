package daemon_test

import (
	"context"
	"testing"

	"github.com/mirrorbus/mirrorbus/listener/daemon"
)

// An agent that is told to end while somebody hands an order over stores it all the same: whoever is the agent next does it.
func TestPushAtTheEnd(t *testing.T) {
	w := newWorld(t)
	w.conf.Modules[0].Push = []string{"archive"}
	ended, end := context.WithCancel(t.Context())
	end()
	ticket, err := w.open().Push(ended, daemon.PushOrder{Archive: "archive", Whole: true})
	if err != nil || ticket.Module != "m" || ticket.Number == 0 {
		t.Errorf("%+v, %v", ticket, err)
	}
}
