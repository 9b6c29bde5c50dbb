package plan_test

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/eventtest"
	"github.com/mirrorbus/mirrorbus/internal/filter"
	"github.com/mirrorbus/mirrorbus/listener/plan"
)

// FuzzMake plans path sets that are well formed but may be nonsense: no run is empty, too long or out of order, the stages come in their order,
// and no path is touched that nobody announced or that is not this mirror's.
func FuzzMake(f *testing.F) {
	f.Add("+a\n-b", ">c a\ndb", "- *.x", "b")
	f.Add("-a\nLb", "Da\n+a/b", "+ a/***\n- *", "*")
	f.Add("ra\n+a/b/c", "-a/b\nMa\ndb/a", "- /a/b/\nP c", "a/")
	f.Fuzz(func(t *testing.T, one, two, subset, last string) {
		in := plan.Input{Module: "m", Last: []string{last}, Guard: plan.Guard{MaxDeleteCount: 3}}
		for i, text := range []string{one, two} {
			in.Pending = append(in.Pending, plan.Pending{Serial: event.Serial(i + 1), Kind: event.Change, Set: eventtest.Sketch(text)})
		}
		rules, err := filter.Parse(strings.Split(subset, "\n"))
		if err != nil {
			return
		}
		in.Subset = rules
		p, err := plan.Make(in)
		if err != nil {
			return
		}
		checkOrder(t, p)
		for _, s := range p.Stages {
			for _, r := range s.Runs {
				checkRun(t, in, s.Name, r)
			}
		}
		for _, r := range p.Expect {
			if r.Op != event.Gone && !rules.Included(r.Path, r.IsDir()) || !spokenOf(in, r.Path) {
				t.Errorf("expects %+v of a path that is not this mirror's", r)
			}
		}
		for _, r := range p.Renames {
			if !rules.Included(r.To, true) || rules.Below(r.To) != filter.All || rules.Below(r.From) != filter.All || !spokenOf(in, r.From) {
				t.Errorf("renames %+v, which is not all this mirror's", r)
			}
		}
	})
}

func checkOrder(t *testing.T, p plan.Plan) {
	t.Helper()
	order := []plan.StageName{plan.Capture, plan.Content, plan.Metadata, plan.Delete}
	at := 0
	for _, s := range p.Stages {
		i := slices.Index(order, s.Name)
		if i < at || len(s.Runs) == 0 {
			t.Errorf("stage %s with %d runs in %+v", s.Name, len(s.Runs), p)
		}
		at = i + 1
	}
}

func checkRun(t *testing.T, in plan.Input, stage plan.StageName, r plan.Run) {
	t.Helper()
	if len(r.Paths) == 0 || len(r.Paths) > plan.MaxNames && r.Mode != plan.Index || !slices.IsSorted(r.Paths) || r.MaxDelete != in.Guard.MaxDeleteCount {
		t.Errorf("stage %s: run %+v", stage, r)
	}
	if (r.Delete || r.Mode == plan.Gone) && stage != plan.Delete {
		t.Errorf("stage %s deletes: %+v", stage, r)
	}
	walks := r.Mode == plan.Level || r.Mode == plan.Recursive
	for _, path := range r.Paths {
		switch {
		case event.CheckPath(path) != nil || !spokenOf(in, path) && !(walks && above(in, path)):
			t.Errorf("stage %s touches %q, which nobody announced: %+v", stage, path, r)
		case r.Mode == plan.Gone:
			if in.Subset.Protected(path, false) && in.Subset.Protected(path, true) {
				t.Errorf("stage %s deletes %q, which is protected", stage, path)
			}
		case !in.Subset.Included(path, walks) && !in.Subset.Included(path, true):
			t.Errorf("stage %s: %q is not of this mirror's subset: %+v", stage, path, r)
		}
	}
}

// spokenOf tells whether some announcement names path, or a directory above it as a whole, or was renamed from it.
func spokenOf(in plan.Input, path string) bool {
	for _, p := range in.Pending {
		for _, r := range p.Set {
			if r.Path == path || r.From == path || r.Spans() && event.Under(r.Path, path) {
				return true
			}
		}
	}
	return false
}

// above tells whether something that some announcement names lies, or lay, below path.
func above(in plan.Input, path string) bool {
	return slices.ContainsFunc(in.Pending, func(p plan.Pending) bool {
		return slices.ContainsFunc(p.Set, func(r event.Record) bool { return event.Under(path, r.Path) || event.Under(path, r.From) })
	})
}

// FuzzHistory lets the fuzzer draw histories of a module, subsets and plans: see the properties.
func FuzzHistory(f *testing.F) {
	f.Add([]byte(nil))
	f.Fuzz(rapid.MakeFuzz(func(t *rapid.T) {
		bringsTheMirrorToTheMaster(t)
		batchesDoWhatOnePlanDoes(t)
		noIndexNamesAMissingFile(t)
	}))
}
