package plan_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/filter"
	"github.com/mirrorbus/mirrorbus/internal/indexes"
	"github.com/mirrorbus/mirrorbus/listener/plan"
)

// set reads records of the form "op path" or "> new old"; a path with a trailing slash is a directory, "#n" at the end puts it into link group n.
func set(t testing.TB, lines ...string) event.PathSet {
	t.Helper()
	var records []event.Record
	for _, line := range lines {
		f := strings.Fields(line)
		path, isDir := strings.CutSuffix(f[1], "/")
		r := event.Record{Op: event.Op(f[0][0]), Mode: event.ModeFile | 0o644, Path: path}
		if r.Op == event.Gone {
			r.Mode = 0
		} else if isDir || r.Spans() {
			r.Mode = event.ModeDir | 0o755
		}
		if r.Op == event.Renamed {
			r.From = f[2]
		}
		if name, link, ok := strings.Cut(path, "#"); ok {
			r.Path, r.Link = name, uint64(link[0]-'0')
		}
		records = append(records, r)
	}
	s, err := event.NewPathSet(records)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// show writes the stages as a reader would want them: "stage: mode paths [without filters] [deleting]".
func show(p plan.Plan) string {
	var b strings.Builder
	for _, r := range p.Renames {
		fmt.Fprintf(&b, "rename: %s %s keep=%v\n", r.From, r.To, r.Keep)
	}
	for _, s := range p.Stages {
		for _, r := range s.Runs {
			fmt.Fprintf(&b, "%s: %s", s.Name, r.Mode)
			if r.Way != "" {
				fmt.Fprintf(&b, " %s", r.Way)
			}
			fmt.Fprintf(&b, " %s", strings.Join(r.Paths, " "))
			for _, f := range r.Filter {
				fmt.Fprintf(&b, " [%s]", f)
			}
			if r.Delete {
				b.WriteString(" deleting")
			}
			b.WriteString("\n")
		}
	}
	return b.String()
}

func TestMake(t *testing.T) {
	rpm, _ := indexes.Presets("rpm")
	for _, c := range []struct {
		name         string
		sets         [][]string
		last, subset []string
		want         string
	}{
		{name: "nothing pending"},
		{"content, index, deletion", [][]string{{"+ a.rpm", "+ repodata/repomd.xml", "- old.rpm"}}, rpm, nil,
			"capture: index aside repodata/repomd.xml\ncontent: content a.rpm\nmetadata: index place repodata/repomd.xml\ndelete: delete old.rpm\n"},
		{"a write and a chmod of one path are one name", [][]string{{"+ a"}, {"= a"}}, nil, nil, "content: content a\n"},
		{"written and removed: only removed", [][]string{{"+ d/", "+ d/a"}, {"- d/a"}}, nil, nil, "content: content d\ndelete: delete d/a\n"},
		{"removed and there again: a tree", [][]string{{"- d"}, {"+ d/", "+ d/a"}}, nil, nil, "content: recursive d\ndelete: recursive survey d deleting\n"},
		{"a flip is one name", [][]string{{"= releases/43/"}}, nil, nil, "content: content releases/43\n"},
		{"only the topmost of what is gone", [][]string{{"- d", "- d/a", "- e/f"}}, nil, nil, "delete: delete d e/f\n"},
		{"the index goes before what it names", [][]string{{"- pool/a", "- repodata/x.xml"}}, rpm, nil,
			"delete: delete repodata/x.xml\ndelete: delete pool/a\n"},
		{"a level", [][]string{{"d pool"}}, nil, nil, "content: level pool\ndelete: level survey pool deleting\n"},
		{"a tree with an index inside is looked through for it", [][]string{{"r os"}}, []string{"*.db"}, nil,
			"capture: recursive survey os\ncontent: recursive os [- *.db]\ndelete: recursive survey os deleting\n"},
		{"a tree beside an index waits for it before deletions", [][]string{{"r pool", "+ repodata/repomd.xml"}}, []string{"/repodata/"}, nil,
			"capture: index aside repodata/repomd.xml\ncontent: recursive pool [- /repodata/]\nmetadata: index place repodata/repomd.xml\n" +
				"delete: recursive survey pool deleting\n"},
		{"a directory of indexes is no content", [][]string{{"r repodata", "+ a"}}, []string{"/repodata/"}, nil,
			"capture: recursive survey repodata\ncontent: content a\ndelete: recursive survey repodata deleting\n"},
		{"deletions below a tree that is read are its own", [][]string{{"r d", "- d/a", "+ d/b"}}, nil, nil,
			"content: recursive d\ndelete: recursive survey d deleting\n"},
		{"a rename", [][]string{{"> new old"}}, nil, nil,
			"rename: old new keep=false\ncontent: recursive new\ndelete: recursive survey new deleting\ndelete: delete old\n"},
		{"a rename with an index to come leaves the old name for now", [][]string{{"> new old", "+ x.db"}}, []string{"*.db"}, nil,
			"rename: old new keep=true\ncapture: recursive survey new\ncapture: index aside x.db\ncontent: recursive new [- *.db]\n" +
				"metadata: index place x.db\ndelete: recursive survey new deleting\ndelete: delete old\n"},
		{"names of one inode stay together", [][]string{{"+ a/x#1", "+ b/y#1", "d a"}}, nil, nil,
			"content: content a/x b/y\ncontent: level a\ndelete: level survey a deleting\n"},
		{"what is not ours is left out", [][]string{{"+ a/x", "+ b/x", "- b/y"}}, nil, []string{"- /b/"}, "content: content a/x\n"},
		{"rules go along where directories are read", [][]string{{"r a"}}, nil, []string{"- *.iso"},
			"content: recursive a [- *.iso]\ndelete: recursive survey a [- *.iso] deleting\n"},
		{"what may be protected is not deleted by name", [][]string{{"- a/sub"}}, nil, []string{"- *.iso"}, "delete: level survey a [- *.iso] deleting\n"},
		{"a directory of which nothing else is ours is one name", [][]string{{"d a"}}, nil, []string{"- /a/*"}, "content: content a\n"},
		{"names as they are", [][]string{{"+ -rf", "+ [a]*", "+ caf\xe9"}}, nil, nil, "content: content -rf [a]* caf\xe9\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := plan.Input{Module: "m", Last: c.last}
			for i, lines := range c.sets {
				in.Pending = append(in.Pending, plan.Pending{Serial: event.Serial(i + 1), Kind: event.Change, Set: set(t, lines...)})
			}
			if c.subset != nil {
				rules, err := filter.Parse(c.subset)
				if err != nil {
					t.Fatal(err)
				}
				in.Subset = rules
			}
			p, err := plan.Make(in)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, show(p)); diff != "" {
				t.Errorf("%s\nreasons: %q", diff, p.Reasons)
			}
			if len(p.Reasons) == 0 {
				t.Error("no reason is given")
			}
		})
	}
}

// many are n announced files, some in each of so many directories.
func many(n, dirs int, also ...event.Record) plan.Input {
	records := also
	for i := range n {
		records = append(records, event.Record{Op: event.Write, Mode: event.ModeFile | 0o644, Path: fmt.Sprintf("top/d%03d/f%06d", i%dirs, i)})
	}
	s, err := event.NewPathSet(records)
	if err != nil {
		panic(err) // a wrong test
	}
	return plan.Input{Module: "m", Pending: []plan.Pending{{Serial: 1, Kind: event.Change, Set: s}}}
}

// holding says that each directory of the mirror holds n names.
func holding(n int, in plan.Input) plan.Input {
	in.Holds = func(_ string, most int) int { return min(n, most) }
	return in
}

func TestManyNamesAreBroughtByTheCheapestMeans(t *testing.T) {
	newTop := event.Record{Op: event.Write, Mode: event.ModeDir | 0o755, Path: "top"}
	for _, c := range []struct {
		name string
		in   plan.Input
		want string // modes of the content runs with the number of paths
	}{
		{"few names stay names", many(100, 1), "content 100"},
		{"many in one directory: its level", many(1000, 1), "level 1"},
		{"many in several: their levels", many(3000, 3), "level 3"},
		{"few in each of many: names, cut into lists", many(5000, 500), "content 2000, content 2000, content 1000"},
		{"many in each of many: their levels", many(5000, 50), "level 50"},
		{"many of the far more that are there: names", holding(60_000, many(1000, 1)), "content 1000"},
		{"all that is there: its level", holding(1000, many(1000, 1)), "level 1"},
		{"a part of it, known: its level", holding(2000, many(1000, 1)), "level 1"},
		{"what spares less than another run costs: names", holding(60, many(60, 1)), "content 60"},
		{"a new directory full of them: a tree", many(5000, 500, newTop), "content 1, recursive 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := plan.Make(c.in)
			if err != nil || len(p.Stages) != 1 {
				t.Fatal(p.Stages, err)
			}
			var got []string
			for _, r := range p.Stages[0].Runs {
				got = append(got, fmt.Sprintf("%s %d", r.Mode, len(r.Paths)))
				if r.Delete {
					t.Error("a run deletes what nobody announced")
				}
			}
			if s := strings.Join(got, ", "); s != c.want {
				t.Errorf("got %s, want %s", s, c.want)
			}
			if len(p.Expect) != len(c.in.Pending[0].Set) || p.NeedsHead {
				t.Errorf("%d of %d records are expected, needs head: %v", len(p.Expect), len(c.in.Pending[0].Set), p.NeedsHead)
			}
		})
	}
}

func TestIndexesByWhichReadersBeginComeLast(t *testing.T) {
	records := []event.Record{{Op: event.Write, Mode: event.ModeFile, Path: "dists/sid/InRelease"}}
	for i := range plan.MaxNames {
		records = append(records, event.Record{Op: event.Write, Mode: event.ModeFile, Path: fmt.Sprintf("dists/sid/main/by-hash/%d", i)})
	}
	s, err := event.NewPathSet(records)
	if err != nil {
		t.Fatal(err)
	}
	last, _ := indexes.Presets("debian")
	p, err := plan.Make(plan.Input{Module: "m", Last: last, Pending: []plan.Pending{{Serial: 1, Set: s}}})
	runs := p.Runs(plan.Metadata)
	if err != nil || len(runs) != 2 {
		t.Fatal(p.Stages, err)
	}
	if got := runs[1].Paths; len(got) != 1 || got[0] != "dists/sid/InRelease" {
		t.Errorf("last come %q", got)
	}
}

func TestMassDeletionsAreHeld(t *testing.T) {
	var lines []string
	for i := range 30 {
		lines = append(lines, fmt.Sprintf("- f%02d", i))
	}
	for _, c := range []struct {
		name  string
		guard plan.Guard
		known int64
		held  bool
		limit int
	}{
		{"no guard", plan.Guard{}, 100, false, plan.Unlimited},
		{"above the ratio", plan.Guard{MaxDeleteRatio: 0.2}, 100, true, 20},
		{"below the ratio", plan.Guard{MaxDeleteRatio: 0.2}, 1000, false, 200},
		{"ratio of what is not known", plan.Guard{MaxDeleteRatio: 0.2}, 0, false, plan.Unlimited},
		{"above the count", plan.Guard{MaxDeleteRatio: 0.2, MaxDeleteCount: 10}, 1000, true, 10},
		{"confirmed", plan.Guard{MaxDeleteRatio: 0.2, MaxDeleteCount: 10, Confirmed: true}, 100, false, plan.Unlimited},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := plan.Make(plan.Input{Module: "m", Guard: c.guard, KnownEntries: c.known, Pending: []plan.Pending{{Serial: 1, Set: set(t, lines...)}}})
			if err != nil {
				t.Fatal(err)
			}
			if (p.Held != "") != c.held || p.Stages[0].Runs[0].MaxDelete != c.limit {
				t.Errorf("held %q, limit %d", p.Held, p.Stages[0].Runs[0].MaxDelete)
			}
		})
	}
}

func TestUptoOpenAndOrder(t *testing.T) {
	one, two := plan.Pending{Serial: 4, Set: set(t, "+ a")}, plan.Pending{Serial: 5, Open: true}
	p, err := plan.Make(plan.Input{Module: "m", Upto: 4, Pending: []plan.Pending{one, two}})
	if err != nil || p.From != 3 || p.To != 4 || p.Manifest || len(p.Stages) != 1 {
		t.Errorf("up to serial 4: %+v, %v", p, err)
	}
	p, err = plan.Make(plan.Input{Module: "m", Pending: []plan.Pending{one, two}})
	if err != nil || !p.Manifest || len(p.Stages) != 0 {
		t.Errorf("with an open one: %+v, %v", p, err)
	}
	if _, err = plan.Make(plan.Input{Module: "m", Pending: []plan.Pending{two, one}}); err == nil || !strings.Contains(err.Error(), "serial 4 follows serial 5") {
		t.Errorf("out of order: %v", err)
	}
	if _, err = plan.Make(plan.Input{Module: "m", Last: []string{"[x"}, Pending: []plan.Pending{one}}); err == nil {
		t.Error("a pattern without its bracket is taken")
	}
}

func TestPresetsAreValid(t *testing.T) {
	for _, name := range []string{"debian", "rpm", "alpine", "arch", "cpan", "generic"} {
		list, ok := indexes.Presets(name)
		if _, err := plan.Make(plan.Input{Module: "m", Last: list, Pending: []plan.Pending{{Serial: 1, Set: set(t, "+ a")}}}); !ok || err != nil {
			t.Errorf("%s: %v %v", name, ok, err)
		}
	}
	if _, ok := indexes.Presets("none"); ok {
		t.Error("a preset that is not there")
	}
}
