package plan_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/eventtest"
	"github.com/mirrorbus/mirrorbus/internal/filter"
	"github.com/mirrorbus/mirrorbus/listener/plan"
)

// A site is a mirror that runs what rsync would be told to, in memory.
type site struct {
	tree, upstream eventtest.Tree
	last           []string
}

func (s site) run(r plan.Run) error {
	rules, err := filter.Parse(r.Filter)
	if err != nil {
		return err
	}
	if len(r.Paths) == 0 || len(r.Paths) > plan.MaxNames || !slices.IsSorted(r.Paths) {
		return fmt.Errorf("%d names, or out of order", len(r.Paths))
	}
	for _, p := range r.Paths {
		switch r.Mode {
		case plan.Gone:
			if _, there := s.upstream[p]; !there {
				s.tree.Remove(p)
			}
			continue
		case plan.Level, plan.Recursive:
			if !rules.Included(p, true) {
				return fmt.Errorf("rsync rejects %q, which its filters exclude", p)
			}
		}
		if r.Way == plan.Survey {
			continue
		}
		if err := s.tree.Take(s.upstream, p); err != nil {
			return err
		}
	}
	if r.Mode == plan.Level || r.Mode == plan.Recursive {
		for _, p := range r.Paths {
			s.read(p, r, rules)
		}
	}
	return nil
}

// read does what rsync does with the entries of dir: it transfers them, or after a survey removes what is not there.
func (s site) read(dir string, r plan.Run, rules *filter.Rules) {
	in := func(p string) bool {
		return event.Under(dir, p) && (r.Mode == plan.Recursive || eventtest.Parent(p) == dir)
	}
	for _, p := range s.upstream.Paths() {
		if r.Way == "" && in(p) && rules.Included(p, s.upstream[p].IsDir()) {
			_ = s.tree.Take(s.upstream, p) // it is there
		}
	}
	for _, p := range s.tree.Paths() {
		if _, there := s.upstream[p]; r.Delete && in(p) && !there && !rules.Protected(p, s.tree[p].IsDir()) {
			s.tree.Remove(p)
		}
	}
}

// rename does what an agent does with a hint.
func (s site) rename(r plan.Rename) {
	_, taken := s.tree[r.To]
	if dir := eventtest.Parent(r.To); !s.tree[r.From].IsDir() || taken || dir != "" && !s.tree[dir].IsDir() {
		return
	}
	old := s.tree.Clone()
	s.tree.Move(r.From, r.To)
	for p, e := range old {
		if r.Keep {
			s.tree[p] = e
		}
	}
}

// apply runs p and calls between after each run. It ends early after so many runs, as a kill would.
func (s site) apply(p plan.Plan, runs int, between func(plan.StageName) error) error {
	for _, r := range p.Renames {
		s.rename(r)
	}
	shown, err := s.captured(p)
	if err != nil {
		return err
	}
	steps := []plan.Stage{{Name: plan.Content, Runs: p.Runs(plan.Content)}, {Name: plan.Metadata, Runs: plan.Together(shown)}, {Name: plan.Delete, Runs: p.Runs(plan.Delete)}}
	for _, stage := range steps {
		for _, r := range stage.Runs {
			if runs--; runs < 0 {
				return nil
			}
			if err := s.run(r); err != nil {
				return fmt.Errorf("stage %s: %w", stage.Name, err)
			}
			if err := between(stage.Name); err != nil {
				return fmt.Errorf("after %v in stage %s: %w", r, stage.Name, err)
			}
		}
	}
	return nil
}

// captured are the indexes that the capture stage finds: those it names, and those in the directories it looks through. Those of a plan that was
// made are there, so that all can be put in place from the upstream itself.
func (s site) captured(p plan.Plan) ([]string, error) {
	isIndex, err := plan.IsIndex(s.last)
	if err != nil {
		return nil, err
	}
	shown := map[string]bool{}
	for _, r := range p.Runs(plan.Capture) {
		rules, err := filter.Parse(r.Filter)
		if err != nil {
			return nil, err
		}
		for _, name := range r.Paths {
			shown[name] = shown[name] || r.Way == plan.Aside
			for q, e := range s.upstream {
				in := r.Mode == plan.Recursive && event.Under(name, q) || r.Mode == plan.Level && eventtest.Parent(q) == name || q == name
				if r.Way == plan.Survey && in && isIndex(q, e.IsDir()) && rules.Included(q, e.IsDir()) && p.Spanned(q) {
					shown[q] = true
				}
			}
		}
	}
	maps.DeleteFunc(shown, func(_ string, is bool) bool { return !is })
	return slices.Sorted(maps.Keys(shown)), nil
}

func always(plan.StageName) error { return nil }

func carried(t eventtest.Tree, rules *filter.Rules) eventtest.Tree {
	out := eventtest.Tree{}
	for p, e := range t {
		if rules.Included(p, e.IsDir()) {
			out[p] = e
		}
	}
	return out
}

func drawInput(t *rapid.T, h eventtest.History, subset bool) plan.Input {
	in := plan.Input{Module: "m"}
	for i, s := range h.Sets {
		in.Pending = append(in.Pending, plan.Pending{Serial: event.Serial(i + 7), Kind: event.Change, Set: s})
		t.Logf("serial %d: %q", i+7, s.Encode())
	}
	if rapid.Bool().Draw(t, "cheap directories") {
		in.Cost = plan.DefaultCost()
		in.Cost.MinNames, in.Cost.Dir, in.Cost.Run, in.Cost.TreeGuess = 1, 0, 0, 2
	}
	if subset {
		lists := [][]string{{"- /a/"}, {"- b"}, {"- *-b/", "- c/a"}, {"+ /pool/", "+ /pool/***", "- *"}, {"+ */", "+ a", "- *"}, {"- /a/*/"}}
		rules, err := filter.Parse(rapid.SampledFrom(lists).Draw(t, "subset"))
		if err != nil {
			t.Fatal(err)
		}
		in.Subset = rules
	}
	in.Last = rapid.SampledFrom([][]string{nil, {eventtest.Index}, {"a/"}, {"/a", "b/"}, {"*"}}).Draw(t, "last")
	return in
}

func mustMake(t *rapid.T, in plan.Input) plan.Plan {
	p, err := plan.Make(in)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func checkDone(t *rapid.T, what string, s site, p plan.Plan, rules *filter.Rules) {
	for p, e := range s.upstream {
		if !rules.Included(p, e.IsDir()) && rules.Included(p, !e.IsDir()) {
			s.tree.Remove(p) // what it was before was ours, what it is now is not: see maker.cut
		}
	}
	if diff := eventtest.Diff(s.tree, carried(s.upstream, rules)); diff != nil {
		t.Fatalf("%s: %+v\nleaves %q", what, p, diff)
	}
	for _, r := range p.Expect {
		if err := eventtest.Holds(s.tree, r); err != nil {
			t.Fatalf("%s: %+v\nexpects what is not so: %v", what, p, err)
		}
	}
}

func TestPlanBringsTheMirrorToTheMasterWithinItsSubset(t *testing.T) {
	rapid.Check(t, bringsTheMirrorToTheMaster)
}

func bringsTheMirrorToTheMaster(t *rapid.T) {
	h := eventtest.Draw(t, eventtest.Options{})
	in := drawInput(t, h, rapid.Bool().Draw(t, "has a subset"))
	p := mustMake(t, in)
	s := site{carried(h.States[0], in.Subset), h.Last(), in.Last}
	if err := s.apply(p, 1000, always); err != nil {
		t.Fatalf("%v: %+v", err, p)
	}
	checkDone(t, "a plan", s, p, in.Subset)
	if diff := cmp.Diff(p, mustMake(t, in)); diff != "" {
		t.Fatal(diff)
	}
}

func TestAPlanThatWasKilledAnywhereCanBeRunAgain(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := eventtest.Draw(t, eventtest.Options{})
		in := drawInput(t, h, false)
		p := mustMake(t, in)
		s := site{h.States[0].Clone(), h.Last(), in.Last}
		for _, runs := range []int{rapid.IntRange(0, 5).Draw(t, "runs before the kill"), 1000} {
			if err := s.apply(p, runs, always); err != nil {
				t.Fatalf("%v: %+v", err, p)
			}
		}
		checkDone(t, "a killed plan", s, p, nil)
	})
}

func TestBatchesDoWhatOnePlanDoes(t *testing.T) { rapid.Check(t, batchesDoWhatOnePlanDoes) }

func batchesDoWhatOnePlanDoes(t *rapid.T) {
	h := eventtest.Draw(t, eventtest.Options{})
	in := drawInput(t, h, rapid.Bool().Draw(t, "has a subset"))
	s := site{tree: carried(h.States[0], in.Subset), last: in.Last}
	for from := 0; from < len(h.Sets); {
		to := rapid.IntRange(from+1, len(h.Sets)).Draw(t, "batch up to")
		batch := in
		batch.Pending, batch.Upto = in.Pending[from:], in.Pending[to-1].Serial
		s.upstream = h.States[to]
		p := mustMake(t, batch)
		if err := s.apply(p, 1000, always); err != nil {
			t.Fatalf("%v: %+v", err, p)
		}
		checkDone(t, "a batch", s, p, in.Subset)
		from = to
	}
}

// missing names a file that an index on the mirror names and that is not there. Not counted are files whose directory is a file now, which must
// make way for it, and indexes that are about to be removed themselves.
func missing(s site, deleting bool) error {
	for p, e := range s.tree {
		if _, stays := s.upstream[p]; deleting && !stays {
			continue
		}
		for _, need := range e.Needs {
			inTheWay := slices.ContainsFunc(eventtest.Parents(need), func(dir string) bool {
				e, ok := s.upstream[dir]
				return ok && !e.IsDir()
			})
			if _, ok := s.tree[need]; !ok && !inTheWay {
				return fmt.Errorf("%q names %q, which is missing", p, need)
			}
		}
	}
	return nil
}

func TestNoIndexNamesAFileThatIsMissing(t *testing.T) { rapid.Check(t, noIndexNamesAMissingFile) }

func noIndexNamesAMissingFile(t *rapid.T) {
	h := eventtest.Draw(t, eventtest.Options{Indexed: true})
	in := drawInput(t, h, false)
	in.Last = []string{eventtest.Index}
	p := mustMake(t, in)
	s := site{h.States[0].Clone(), h.Last(), in.Last}
	err := s.apply(p, 1000, func(stage plan.StageName) error { return missing(s, stage == plan.Delete) })
	if err != nil {
		t.Fatalf("%v: %+v", err, p)
	}
	if err := missing(s, false); err != nil {
		t.Fatal(err)
	}
	checkDone(t, "a plan", s, p, nil)
}
