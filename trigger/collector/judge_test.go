package collector_test

import (
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/trigger/collector"
)

func TestJudge(t *testing.T) {
	line := event.Sum([]byte("the line of serial 7"))
	newest := collector.Tip{Epoch: epoch, Serial: 7, Digest: line}
	for _, c := range []struct {
		name string
		s    collector.Standing
		want collector.State
	}{
		{"has all", collector.Standing{Epoch: epoch, Applied: 7, Head: line}, collector.Current},
		{"has all, of a line it does not name", collector.Standing{Epoch: epoch, Applied: 7}, collector.Current},
		{"has all, a later flip failed", collector.Standing{Epoch: epoch, Applied: 7, Head: line, Outcome: event.Failed, Serial: 6}, collector.Current},
		{"has another line", collector.Standing{Epoch: epoch, Applied: 7, Head: event.Sum(nil)}, collector.Diverged},
		{"has more than there is", collector.Standing{Epoch: epoch, Applied: 8}, collector.Diverged},
		{"has another epoch", collector.Standing{Epoch: "ffffffff", Applied: 3}, collector.Diverged},
		{"diverged and away", collector.Standing{Epoch: "ffffffff", Applied: 3, Heard: start.Add(-901 * time.Second)}, collector.Diverged},
		{"has nothing yet", collector.Standing{Epoch: "00000000"}, collector.Behind},
		{"cannot get its first copy", collector.Standing{Epoch: "00000000", Outcome: event.Failed}, collector.Failing},
		{"knows the new epoch and has nothing of it", collector.Standing{Epoch: "ffffffff"}, collector.Behind},
		{"an older line counts for nothing", collector.Standing{Epoch: epoch, Applied: 6, Head: event.Sum(nil)}, collector.Behind},
		{"received", collector.Standing{Epoch: epoch, Applied: 6, Outcome: event.Received, Serial: 7}, collector.Behind},
		{"failing", collector.Standing{Epoch: epoch, Applied: 6, Outcome: event.Failed, Serial: 7}, collector.Failing},
		{"failed what it has now", collector.Standing{Epoch: epoch, Applied: 6, Outcome: event.Failed, Serial: 6}, collector.Behind},
		{"blocked", collector.Standing{Epoch: epoch, Applied: 6, Outcome: event.Blocked, Serial: 7}, collector.Stuck},
		{"just not away", collector.Standing{Epoch: epoch, Applied: 7, Heard: start.Add(-900 * time.Second)}, collector.Current},
		{"away, and has all", collector.Standing{Epoch: epoch, Applied: 7, Heard: start.Add(-901 * time.Second)}, collector.Away},
		{"away, and blocked", collector.Standing{Epoch: epoch, Applied: 6, Heard: start.Add(-901 * time.Second), Outcome: event.Blocked, Serial: 7}, collector.Away},
	} {
		if c.s.Heard.IsZero() {
			c.s.Heard = start
		}
		if got := collector.Judge(newest, c.s, start, 15*time.Minute); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}
