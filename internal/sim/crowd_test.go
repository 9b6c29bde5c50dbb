package sim

import (
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/listener/pace"
	"github.com/mirrorbus/mirrorbus/transports/hub"
)

// costs are CPU time on the master: see TestCosts, and BenchmarkBroadcast in transports/hub (26 ms to 500).
var costs = Costs{
	Cores: 2, Send: 52 * time.Microsecond, Handshake: time.Millisecond, Refuse: 2 * time.Millisecond, Run: 4300 * time.Microsecond, Path: 20 * time.Microsecond, Trips: 7.5,
}

// TestTenThousand says what 10,000 mirrors do to one hub and one rsync daemon, as the program is and as it was before this was asked.
func TestTenThousand(t *testing.T) {
	now := hub.DefaultServerConfig()
	before := &pace.Tempo{First: 10 * time.Second, Most: 5 * time.Minute, Full: true}
	t.Logf("%-39s %6s %7s %8s %5s | %-23s | %-23s | %s", "", "rsyncs", "refused", "busiest", "peak", "have it 50 % 95 % 100 %", "connected 50 % 95 % 100 %", "ideal, s")
	for _, c := range []struct {
		what                        string
		mirrors, connections, paths int
		restart, old                bool
	}{
		{"announced", 10_000, 50, 1, false, false}, {"announced", 10_000, 50, 100, false, false}, {"announced", 10_000, 200, 1, false, false},
		{"announced", 10_000, 200, 100, false, false}, {"announced, 5 min", 10_000, 50, 1, false, true}, {"announced, 5 min", 10_000, 200, 1, false, true},
		{"hub restarts", 10_000, 50, 1, true, false}, {"hub restarts", 10_000, 200, 1, true, false}, {"hub restarts", 10_000, 200, 100, true, false},
		{"hub restarts, 50/s", 10_000, 200, 1, true, true}, {"hub restarts", 2000, 200, 1, true, false}, {"hub restarts, 50/s", 2000, 200, 1, true, true},
	} {
		q := Crowd{Seed: 1, Mirrors: c.mirrors, Connections: c.connections, Paths: c.paths, Restart: c.restart, AcceptRate: now.AcceptRate, AcceptBurst: now.AcceptBurst, Costs: costs}
		if c.old {
			q.Tempo, q.AcceptRate, q.AcceptBurst = before, 50, 100
		}
		a := Ask(q)
		t.Logf("%-18s %5d, max %3d, %3d paths %s", c.what, c.mirrors, c.connections, c.paths, a)
		if c.old {
			continue
		}
		if a.Done[2] < 0 || a.Done[1] > 3*a.Ideal+time.Minute || a.Peak > c.connections {
			t.Errorf("%s: %d mirrors at %d connections: %+v", c.what, c.mirrors, c.connections, a)
		}
	}
}
