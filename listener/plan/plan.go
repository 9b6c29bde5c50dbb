// Package plan decides what a mirror has to run to bring a module from what it has to what was announced: which names, directory levels or
// whole directories, in which order. It is pure: the same Input gives the same Plan, and but for Input.Holds nothing is read, started or changed.
//
// The order is that of a plan's stages. The files that name other files (the module's "last" patterns), here called indexes, are captured first:
// brought where no reader looks. Then content comes, then the captured indexes are put in place, deletions at the end. So what an index names is
// looked for after the index was read, and at each boundary between runs a reader of the mirror finds every file that an index there names.
package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/filter"
)

// An Input is all that a plan depends on.
type Input struct {
	Module  event.Module
	Pending []Pending    // oldest first
	Upto    event.Serial // later pending announcements are left for the next plan; 0 means none is

	Subset *filter.Rules // which paths this mirror carries; nil means all
	Last   []string      // rsync patterns of files that name other files, see Presets

	Cost         Cost                           // zero means DefaultCost
	Holds        func(dir string, most int) int // names that a directory of this mirror holds, counted up to most; -1: not known. Nil: none is known
	KnownEntries int64                          // entries of the module as far as known, for Guard.MaxDeleteRatio; 0 means unknown
	Guard        Guard
}

// Pending is one announcement that is not applied yet.
type Pending struct {
	Serial event.Serial
	Kind   event.Kind
	Set    event.PathSet
	Open   bool // it has no path set: anything may have changed, only the manifest can tell
}

// A Guard limits deletions.
type Guard struct {
	MaxDeleteRatio float64 // of KnownEntries; 0 means no such limit
	MaxDeleteCount int     // 0 means no such limit
	Confirmed      bool    // somebody has looked at this plan: no limit
}

// A Plan is what to do.
type Plan struct {
	From, To event.Serial // it brings what stands at From to To

	// Manifest: some announcement can only be understood by comparing with the manifest. There are no stages.
	Manifest bool
	// Held, if not empty, says why somebody has to confirm the plan before it may run.
	Held string
	// NeedsHead: the result of the runs proves nothing about the upstream's serial, so its head must be asked first.
	NeedsHead bool

	Renames []Rename
	Stages  []Stage
	Indexes []string // names that are captured, sorted; what directories hold of indexes is to be added
	Spans   []Span   // directories that are read since they were announced as such
	// Expect is what the mirror must find true of its tree afterwards, cut to the subset and sorted. The mtime of directories is not part of it. It may be a
	// set of the Input itself: not to be changed.
	Expect []event.Record
	// Content is what of that must be true before an index is put in place.
	Content []event.Record

	Skipped int      // records that are not of this mirror's subset
	Reasons []string // why the plan is as it is, for people
}

// A Rename is a hint to spare transfers, done locally before the stages if From is a directory and nothing is at To, else ignored. What it does
// is checked by the stages, so it may be wrong.
type Rename struct {
	From, To string
	// Keep: fill To with hard links and leave From, because an index that is still here may name what is in it. The last stage removes it.
	Keep bool
}

// A Span is a directory of which all entries, or everything below, may have changed.
type Span struct {
	Path  string
	Whole bool
}

// Holds tells whether the span speaks for path.
func (s Span) Holds(path string) bool {
	return s.Whole && event.Under(s.Path, path) || !s.Whole && parent(path) == s.Path
}

// A StageName tells the stages apart.
type StageName string

// The stages in the order in which they run.
const (
	Capture  StageName = "capture"
	Content  StageName = "content"
	Metadata StageName = "metadata"
	Delete   StageName = "delete"
)

// A Way is how a run goes where it is not from the upstream into the tree. The words are those of listener/rsync.
type Way string

// The ways.
const (
	Aside  Way = "aside"  // indexes are captured
	Place  Way = "place"  // captured indexes are put in place
	Survey Way = "survey" // nothing changes: directories are read for the indexes in them, or for what the upstream does not have
)

// A Stage is runs that belong together. If one fails the plan ends.
type Stage struct {
	Name StageName
	Runs []Run
}

// A Mode is what a run does with its paths. The words are those of listener/rsync.
type Mode string

// The modes.
const (
	Names     Mode = "content"   // each name by itself; of a directory its own inode
	Index     Mode = "index"     // the same, appearing together at the end
	Level     Mode = "level"     // directories and their own entries
	Recursive Mode = "recursive" // directories and all below
	Gone      Mode = "delete"    // remove the names, with all below, that the upstream does not have
)

// Unlimited is a Run.MaxDelete without a limit.
const Unlimited = -1

// A Run is one job for rsync.
type Run struct {
	Mode   Mode
	Way    Way
	Paths  []string // sorted bytewise
	Filter []string // rsync filter rules, for Level and Recursive
	Delete bool     // with Survey: what the upstream does not have goes
	// MaxDelete bounds what may be removed, also by Names and Index, where a directory may stand in the way of a file.
	MaxDelete int
}

// MaxNames is the most names in one run, but for Index: rsync compares each name that it receives with each one in the list.
const MaxNames = 2000

// Make makes the plan. The error tells of an Input that is wrong in itself.
func Make(in Input) (Plan, error) {
	taken, p, err := in.take()
	if err != nil || len(taken) == 0 {
		return p, err
	}
	last, err := lastRules(in.Last)
	if err != nil {
		return p, err
	}
	sets := make([]event.PathSet, len(taken), len(taken)+1)
	for i, x := range taken {
		if sets[i] = x.Set; x.Open {
			p.Manifest = true
			p.reason("serial %d names no paths: only the manifest tells what changed", x.Serial)
			return p, nil
		}
	}
	merged := event.Merge(append(sets, nil)...) // the empty set makes it spell out what renames leave behind
	p.reason("serials %d to %d: %d records", p.From+1, p.To, len(merged))
	m := newMaker(in, &p, last)
	ours := m.cut(merged)
	m.sort(ours)
	m.expect(ours)
	m.expectFirst()
	limit := m.guard(ours)
	m.stages(limit)
	return p, nil
}

// take picks the announcements that the plan is for.
func (in Input) take() ([]Pending, Plan, error) {
	var p Plan
	for i, x := range in.Pending {
		if i > 0 && x.Serial <= in.Pending[i-1].Serial {
			return nil, p, fmt.Errorf("plan for module %s: serial %d follows serial %d", in.Module, x.Serial, in.Pending[i-1].Serial)
		}
		if x.Serial == 0 {
			return nil, p, fmt.Errorf("plan for module %s: serial 0 is no announcement", in.Module)
		}
	}
	n := 0
	for n < len(in.Pending) && (in.Upto == 0 || in.Pending[n].Serial <= in.Upto) {
		n++
	}
	if n == 0 {
		p.reason("nothing is pending")
		return nil, p, nil
	}
	p.From, p.To = in.Pending[0].Serial-1, in.Pending[n-1].Serial
	return in.Pending[:n], p, nil
}

// Expected is what is to be true of a path, the zero Record if nothing was said of it.
func (p Plan) Expected(path string) event.Record {
	i, ok := slices.BinarySearchFunc(p.Expect, path, func(r event.Record, path string) int { return strings.Compare(r.Path, path) })
	if !ok {
		return event.Record{}
	}
	return p.Expect[i]
}

// Spanned tells whether a directory that is read as a whole speaks for path.
func (p Plan) Spanned(path string) bool {
	return slices.ContainsFunc(p.Spans, func(s Span) bool { return s.Path == path || s.Holds(path) })
}

// Touches tells whether a directory that is read as a whole speaks for path or for anything below it.
func (p Plan) Touches(path string) bool {
	return p.Spanned(path) || slices.ContainsFunc(p.Spans, func(s Span) bool { return event.Under(path, s.Path) })
}

// Runs are the runs of a stage.
func (p Plan) Runs(name StageName) []Run {
	for _, s := range p.Stages {
		if s.Name == name {
			return s.Runs
		}
	}
	return nil
}

func (p *Plan) reason(format string, args ...any) {
	p.Reasons = append(p.Reasons, fmt.Sprintf(format, args...))
}
