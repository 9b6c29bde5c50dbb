package sim

import (
	"bufio"
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// world are the options that a seed stands for: few mirrors for long or many for a short time, so that each costs about the same.
func world(seed uint64) Options {
	shapes := []Options{
		{Agents: 10, Faults: 12 * time.Hour},
		{Agents: 3, Faults: 40 * time.Hour},
		{Agents: 40, Faults: 3 * time.Hour},
		{Agents: 10, Faults: 2 * time.Hour, Every: 10 * time.Second},
		{Agents: 200, Faults: 30 * time.Minute},
	}
	o := shapes[seed%uint64(len(shapes))]
	o.Seed = seed
	return o
}

// try runs a seed and says what broke.
func try(t *testing.T, seed uint64) Result {
	t.Helper()
	r := Run(world(seed))
	for _, v := range r.Violations {
		t.Errorf("seed %d: %s", seed, v)
	}
	if t.Failed() {
		t.Logf("run it again: MIRRORBUS_SIM_FROM=%d MIRRORBUS_SIM_SEEDS=1 go test -run TestSeeds ./internal/sim; keep it: a line in testdata/regressions.txt", seed)
	}
	return r
}

func number(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// TestSeeds runs worlds full of faults: MIRRORBUS_SIM_SEEDS of them, from MIRRORBUS_SIM_FROM on. What each rule says stands in package sim.
func TestSeeds(t *testing.T) {
	from, count := number(t, "MIRRORBUS_SIM_FROM", 2), number(t, "MIRRORBUS_SIM_SEEDS", 3)
	began, hours, events := time.Now(), time.Duration(0), uint64(0)
	for seed := from; seed < from+count; seed++ {
		o := world(seed)
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { events += try(t, seed).Events })
		hours += time.Duration(o.Agents) * (o.Faults + o.Calm)
	}
	spent := time.Since(began)
	t.Logf("%d seeds: %.0f mirror hours and %d events in %v, %.0f hours a second", count, hours.Hours(), events, spent.Round(time.Millisecond), hours.Hours()/spent.Seconds())
}

// TestRegressions runs the seeds that have found something, in the product or in the simulation.
func TestRegressions(t *testing.T) {
	f, err := os.Open(filepath.Join("testdata", "regressions.txt"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // read only
	for lines := bufio.NewScanner(f); lines.Scan(); {
		first, what, _ := strings.Cut(lines.Text(), " ")
		if first == "" || first == "#" {
			continue
		}
		seed, err := strconv.ParseUint(first, 10, 64)
		if err != nil {
			t.Fatalf("%s: %v", lines.Text(), err)
		}
		t.Run(first, func(t *testing.T) {
			if try(t, seed); t.Failed() {
				t.Log("it was once:", what)
			}
		})
	}
}

func TestSameSeedSameHistory(t *testing.T) {
	o := Options{Seed: 2, Agents: 8, Faults: time.Hour}
	first := Run(o)
	for range 3 {
		if again := Run(o); again.Digest != first.Digest || again.Events != first.Events {
			t.Fatalf("histories %x (%d events) and %x (%d events) of one seed", first.Digest, first.Events, again.Digest, again.Events)
		}
	}
	o.Seed++
	if other := Run(o); other.Digest == first.Digest {
		t.Error("another seed has the same history")
	}
	t.Logf("%d events, digest %x, %v", first.Events, first.Digest, first.Counts)
}

// Each rule can be broken: with each bug it is, within a few seeds.
func TestEachBugIsFound(t *testing.T) {
	for _, c := range []struct {
		bug  Bug
		rule string // and what it says, where another fault could break the same rule
		says string
		seed uint64 // from which on it is looked for
		n    int    // agents, 10 if zero: of few it is no wonder if all come at once

		compose time.Duration
	}{
		{bug: AckBeforeCommit, rule: "I4", seed: 16},
		{bug: AcceptBeforeCommit, rule: "I4"},
		{bug: ReportBeforeSync, rule: "I5"},
		{bug: NoCheck, rule: "I5"},
		{bug: ReplayIsNews, rule: "I5"},
		{bug: NoResume, rule: "I1"},
		{bug: ForgetBeforeAnswer, rule: "I1", says: "the master takes", seed: 31},
		{bug: BusyIsFinal, rule: "I1"},
		{bug: NoBudgets, rule: "I6"},
		{bug: TwoAtOnce, rule: "I6"},
		{bug: NoJitter, rule: "I6", n: 40},
		{bug: TrustAnybody, rule: "I8"},
		{bug: DeafIsCurrent, rule: "I9"},
		{bug: FlipAtOnce, rule: "Flip"},
		{bug: HoldIgnored, rule: "Hold", compose: 30 * time.Minute},
	} {
		t.Run(string(c.bug), func(t *testing.T) {
			for seed := c.seed; seed < c.seed+40; seed++ {
				r := Run(Options{Seed: seed, Agents: cmp.Or(c.n, 10), Faults: 3 * time.Hour, Bug: c.bug, Compose: c.compose})
				for _, v := range r.Violations {
					if v.Rule == c.rule && strings.Contains(v.What, c.says) {
						t.Logf("seed %d: %s", seed, v)
						return
					}
				}
			}
			t.Errorf("%s does not find it", c.rule)
		})
	}
}

// Mirrors that were away for long find the manifest cheaper than the journal, and no rule is broken by that.
func TestSomeCatchUpByTheManifest(t *testing.T) {
	for seed := range uint64(10) {
		r := Run(Options{Seed: seed, Agents: 10, Faults: 2 * time.Hour, Every: 5 * time.Second})
		for _, v := range r.Violations {
			t.Errorf("seed %d: %s", seed, v)
		}
		if n := r.Counts["by manifest"]; n > 0 {
			t.Logf("seed %d: %d times", seed, n)
			return
		}
	}
	t.Error("nobody did")
}
