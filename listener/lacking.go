package listener

import (
	"slices"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/listener/plan"
)

// A batch that was cut short, or that has grown, finds most of its content here already. To have rsync compare it again takes as long as it took the
// first time, and where changes do not cease a slow mirror would only ever begin anew.

// sample is how many names of a run are looked at first: if none is here as announced, the others are not looked at.
const sample = 16

// lacking are the runs of content without the files that are here as announced. Of each directory one name stays, so that its time is set.
func (b *batch) lacking(t *tree) ([]plan.Run, error) {
	all := b.plan.Runs(plan.Content)
	var runs []plan.Run
	for _, r := range all {
		if r.Mode == plan.Names {
			var err error
			if r.Paths, err = b.lackingOf(t, r.Paths); err != nil {
				return nil, err
			}
			if n := len(runs) - 1; n >= 0 && runs[n].Mode == plan.Names && len(runs[n].Paths)+len(r.Paths) <= plan.MaxNames {
				runs[n].Paths = slices.Concat(runs[n].Paths, r.Paths)
				slices.Sort(runs[n].Paths)
				continue
			}
		}
		runs = append(runs, r)
	}
	return runs, nil
}

func (b *batch) lackingOf(t *tree, names []string) (left []string, err error) {
	found, dirs := 0, map[string]bool{}
	g := t.glance()
	defer g.close()
	for i, p := range names {
		if i == sample && found == 0 {
			return names, nil
		}
		here := false
		if r := b.plan.Expected(p); r.Mode&event.ModeType == event.ModeFile && r.Op != event.Gone && r.Link == 0 {
			if here, err = b.here(g, r); err != nil {
				return nil, err
			}
		}
		if here {
			found++
		}
		if dir := parentOf(p); !here || !dirs[dir] {
			left, dirs[dir] = append(left, p), true
		}
	}
	return left, nil
}

// here tells whether a file is as its record says, neither older nor newer.
func (b *batch) here(t looker, r event.Record) (bool, error) {
	info, err := t.lstat(r.Path)
	if err != nil || info == nil {
		return false, err
	}
	return judge(r, info, b.w.m.mask()) == "" && info.Mode().IsRegular() && info.Size() == r.Size && event.StampOf(info.ModTime()).Agrees(r.MTime), nil
}
