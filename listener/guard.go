package listener

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/listener/plan"
)

// make plans the batch. Before it is held for what it would delete, the names that are here are counted.
func (b *batch) make() error {
	err := b.planned()
	if err != nil || b.plan.Held == "" {
		return err
	}
	if grown, err := b.recount(); err != nil || !grown {
		return err
	}
	return b.planned()
}

func (b *batch) planned() (err error) {
	m := b.w.m
	b.plan, err = plan.Make(plan.Input{
		Module: m.Name, Pending: b.pending, Subset: m.Rules, Last: m.Last, Holds: b.holds, KnownEntries: b.v.Entries,
		Guard: plan.Guard{MaxDeleteRatio: m.MaxDeleteRatio, MaxDeleteCount: m.MaxDelete, Confirmed: b.confirmed},
	})
	if err != nil {
		return err
	}
	return b.guard()
}

// holds counts the names in a directory that is here, up to most; -1 if that cannot be told. The plan is right without it, only dearer.
func (b *batch) holds(dir string, most int) int {
	t, err := openTree(b.w.m.Dir, b.w.m.Links)
	if err != nil {
		return -1
	}
	defer t.close() //nolint:errcheck // only read from
	root, name := t.at(dir)
	d, err := root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return 0
	}
	if err != nil {
		return -1
	}
	defer d.Close() //nolint:errcheck // only read from
	names, err := d.Readdirnames(most)
	if err != nil && !errors.Is(err, io.EOF) {
		return -1
	}
	return len(names)
}

// recount counts the names that are here, since what is known of their number is of the last comparison with a manifest, and a module grows: what is
// a large part of it then may be a small one now. It tells whether there are more.
func (b *batch) recount() (grown bool, err error) {
	t, err := openTree(b.w.m.Dir, b.w.m.Links)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, t.close()) }()
	n := 0
	for _, r := range t.roots {
		if n, err = count(r.dir, ".", true, n, math.MaxInt); err != nil {
			return false, err
		}
		n-- // the root itself
	}
	if info, err := t.lstat(event.ExportDir); err != nil {
		return false, err
	} else if info != nil {
		ours, err := count(t.roots[len(t.roots)-1].dir, event.ExportDir, info.IsDir(), 0, math.MaxInt)
		if err != nil {
			return false, err
		}
		n -= ours
	}
	if int64(n) <= b.v.Entries {
		return false, nil
	}
	b.v.Entries, b.entries = int64(n), int64(n)
	return true, nil
}

// guard holds the plan if it would remove more names than it may, counted on this mirror, and only then: the announcement of a removed directory names
// it alone, and one of names that came and went while this mirror was away removes nothing. Without it rsync would remove as many as it may before it
// says that there are more.
func (b *batch) guard() (err error) {
	var t *tree
	n := 0
	for _, s := range b.plan.Stages {
		for _, r := range s.Runs {
			if r.Mode != plan.Gone || r.MaxDelete == plan.Unlimited {
				continue
			}
			if t == nil {
				if t, err = openTree(b.w.m.Dir, b.w.m.Links); err != nil {
					return err
				}
				defer func() { err = errors.Join(err, t.close()) }()
			}
			if n, err = b.names(t, r, n); err != nil {
				return err
			}
			if n > r.MaxDelete {
				if b.plan.Held == "" {
					b.plan.Held = fmt.Sprintf("more than %d names would be deleted, and no more may be without confirmation", r.MaxDelete)
				}
				return nil
			}
		}
	}
	b.plan.Held = ""
	return nil
}

// names adds to n the names that a run would remove, until they are more than it may. What is renamed before is not there to be removed.
func (b *batch) names(t *tree, r plan.Run, n int) (int, error) {
	for _, p := range r.Paths {
		if b.renamed(p) {
			continue
		}
		info, err := t.lstat(p)
		if err != nil {
			return n, err
		}
		if info == nil {
			continue
		}
		dir, name := t.at(p)
		if n, err = count(dir, name, info.IsDir(), n, r.MaxDelete); err != nil || n > r.MaxDelete {
			return n, err
		}
	}
	return n, nil
}

func (b *batch) renamed(p string) bool {
	for _, r := range b.plan.Renames {
		if p == r.From || event.Under(r.From, p) {
			return true
		}
	}
	return false
}

// count adds name and all below it to n, until that is above most.
func count(root *os.Root, name string, isDir bool, n, most int) (int, error) {
	if n++; !isDir || n > most {
		return n, nil
	}
	d, err := root.Open(name)
	if err != nil {
		return n, fmt.Errorf("count what is in %.300q: %w", name, err)
	}
	entries, err := d.ReadDir(-1)
	if err = errors.Join(err, d.Close()); err != nil {
		return n, fmt.Errorf("count what is in %.300q: %w", name, err)
	}
	for _, e := range entries {
		if n, err = count(root, path.Join(name, e.Name()), e.IsDir(), n, most); err != nil || n > most {
			return n, err
		}
	}
	return n, nil
}
