package sim

import (
	"fmt"
	"testing"
	"time"
)

// Composes in worlds full of faults: no mirror that knows of one brings anything, and all come to where the master is once it has ended, be it by commit
// or because its time was over, with heads lost, the hub down, and clocks wrong.
func TestComposes(t *testing.T) {
	from, count := number(t, "MIRRORBUS_SIM_FROM", 2), number(t, "MIRRORBUS_SIM_SEEDS", 5)
	counts := map[string]int{}
	for seed := from; seed < from+count; seed++ {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			o := world(seed)
			o.Compose = time.Hour
			r := Run(o)
			for _, v := range r.Violations {
				t.Errorf("seed %d: %s", seed, v)
			}
			for _, what := range []string{"compose begun", "compose ended", "gathered"} {
				counts[what] += r.Counts[what]
			}
		})
	}
	t.Log(counts)
	if counts["compose begun"] == 0 || counts["compose begun"] != counts["compose ended"] || counts["gathered"] == 0 {
		t.Errorf("nothing was composed: %v", counts)
	}
}
