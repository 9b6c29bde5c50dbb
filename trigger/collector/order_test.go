package collector_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/trigger/collector"
)

// In whatever order the reports of a mirror come, and however often, the same is known in the end.
func TestOrderDoesNotMatter(t *testing.T) {
	c, cases := open(t, t.TempDir()), 0
	rapid.Check(t, func(rt *rapid.T) {
		cases++
		said := history(rt)
		want := known(rt, c, event.Module(fmt.Sprint("in-order", cases)), said)
		shuffled := slices.Concat(said, rapid.SliceOfN(rapid.SampledFrom(said), 0, 4).Draw(rt, "again"))
		rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "order"), 0)).Shuffle(len(shuffled), func(i, j int) {
			shuffled[i], shuffled[j] = shuffled[j], shuffled[i]
		})
		got := known(rt, c, event.Module(fmt.Sprint("shuffled", cases)), shuffled)
		for i := range want {
			if got[i] != want[i] {
				rt.Errorf("in order %s,\nout of order %s", want[i], got[i])
			}
		}
	})
}

// history is what a mirror says, in the order of its runs.
func history(t *rapid.T) []event.Report {
	var all []event.Report
	outcomes := []event.Outcome{event.Have, event.Received, event.Ready, event.Failed, event.Blocked, event.Applied, event.Skipped}
	applied := event.Serial(0)
	for run := range rapid.Uint64Range(1, 6).Draw(t, "reports") {
		r := event.Report{Module: module, Mirror: "one", Epoch: epoch, Run: run + 1, Outcome: rapid.SampledFrom(outcomes).Draw(t, "outcome")}
		r.Serial = applied + event.Serial(rapid.IntRange(0, 2).Draw(t, "ahead"))
		switch r.Outcome {
		case event.Applied, event.Skipped:
			applied = r.Serial
		case event.Have:
			r.Serial = applied
		case event.Received:
			r.Via, r.Heard = "hub", time.Duration(1+r.Serial)*time.Millisecond
		case event.Failed, event.Blocked:
			r.Error = fmt.Sprint("error ", run)
		}
		r.Applied, r.Head = applied, event.Sum([]byte{byte(applied)})
		all = append(all, r)
	}
	return all
}

// known is all that a collector says after reports, without the times at which they came.
func known(t *rapid.T, c *collector.Collector, m event.Module, reports []event.Report) []string {
	for i, r := range reports {
		r.Module = m
		check(t, c.Put(context.Background(), r, start.Add(time.Duration(i)*time.Second)))
	}
	var all []string
	stand, err := c.Standings(context.Background(), m)
	check(t, err)
	for _, s := range stand {
		s.Heard, s.Said = time.Time{}, time.Time{}
		all = append(all, fmt.Sprintf("%+v", s))
	}
	for serial := range event.Serial(14) {
		words, err := c.Words(context.Background(), m, epoch, serial)
		check(t, err)
		for _, w := range words {
			done := !w.Done.IsZero()
			w.Received, w.Done = time.Time{}, time.Time{}
			all = append(all, fmt.Sprintf("serial %d done %t %+v", serial, done, w))
		}
	}
	return all
}
