package listener

import (
	"fmt"
	"slices"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/filter"
)

// A flip is the part of a flip's path set that is this mirror's own, seen against its tree.
type flip struct {
	own    []event.Record
	change []event.Record // whose permissions differ
	absent *finding       // the first whose content is not there as the flip knew it
}

// prepareFlip looks at the inodes that a flip names, and at nothing else.
func (t *tree) prepareFlip(set event.PathSet, rules *filter.Rules, mask uint32) (flip, error) {
	var f flip
	for _, r := range set {
		if r.Op != event.Meta {
			return f, &pathError{r.Path, fmt.Errorf("a flip with a record of another kind (%c)", r.Op)}
		}
		if !rules.Included(r.Path, r.IsDir()) || r.Mode&event.ModeType == event.ModeLink {
			continue
		}
		f.own = append(f.own, r)
		if err := t.through(r.Path); err != nil {
			return f, err
		}
		info, err := t.lstat(r.Path)
		if err != nil {
			return f, err
		}
		switch what := judge(r, info, mask); {
		case what == otherMode:
			f.change = append(f.change, r)
		case what != "" && f.absent == nil:
			f.absent = &finding{r.Path, what}
		}
	}
	return f, nil
}

// applyFlip changes the permissions: first what takes rights away, from the top; then what gives rights, from the bottom, so that a directory
// opens when what is in it is ready.
func (t *tree) applyFlip(records []event.Record, mask uint32) error {
	var giving []event.Record
	for _, r := range records {
		info, err := t.lstat(r.Path)
		if err != nil {
			return err
		}
		if info == nil {
			continue // gone meanwhile: a later announcement speaks of it
		}
		want, have := r.Mode&0o7777&^mask, unixMode(info.Mode())
		if want&^have != 0 {
			giving = append(giving, r)
			continue
		}
		if err := t.setMode(r, want); err != nil {
			return err
		}
	}
	for _, r := range slices.Backward(giving) {
		if err := t.setMode(r, r.Mode&0o7777&^mask); err != nil {
			return err
		}
	}
	return nil
}

func (t *tree) setMode(r event.Record, mode uint32) error {
	if err := t.chmod(r.Path, mode); err != nil {
		return &pathError{r.Path, err}
	}
	return nil
}
