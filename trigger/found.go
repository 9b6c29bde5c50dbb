package trigger

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/mirrorbus/mirrorbus/event"
)

// A finder looks at names that may have changed, and says what is true of them now. What was said to have happened to a name only tells how wide to look: names
// come from those who saw them change, and may have changed again.
type finder struct {
	*resolver
	records []event.Record
	gone    map[string]bool // topmost names that are not there
	moved   map[string]bool // old names of directories that are announced as renamed
	leftOut int
	lost    []Name          // that are not there
	said    map[string]bool // names that were gone when they were named
}

// found is what is to be announced of names, and how many were left out because mirrors cannot take them.
func (p *Publisher) found(ctx context.Context, m event.Module, r *resolver, names []Name) ([]event.Record, int, error) {
	f := finder{resolver: r, gone: map[string]bool{}, moved: map[string]bool{}, said: map[string]bool{}}
	for _, n := range f.distinct(names) {
		if err := f.take(n); err != nil {
			return nil, 0, err
		}
	}
	f.asSeen()
	f.agree()
	if x := p.exports[m]; x != nil {
		if err := p.known(ctx, m, x, &f); err != nil {
			return nil, 0, err
		}
	}
	for _, path := range slices.Sorted(maps.Keys(f.gone)) {
		f.records = append(f.records, event.Record{Op: event.Gone, Path: path})
	}
	return f.records, f.leftOut, nil
}

// known takes in what the manifest, and what was announced after it, tell of the names that f has looked at.
func (p *Publisher) known(ctx context.Context, m event.Module, x *exported, f *finder) error {
	lost := map[string]uint64{}
	for path := range f.gone {
		lost[path] = 0
	}
	for _, r := range f.records {
		if r.Op == event.Write && !r.IsDir() {
			lost[r.Path] = f.inodes[r.Path].ino
		}
	}
	if len(lost) == 0 {
		return nil
	}
	fresh, sure := p.fresh(ctx, m, x)
	for _, mate := range x.mates(ctx, f.resolver, fresh, lost) {
		if err := f.take(Name{Path: mate}); err != nil {
			return err
		}
	}
	if sure {
		x.leaveOut(ctx, fresh, f.gone)
	}
	return nil
}

// width orders ops by how much they ask for.
func width(op event.Op) int {
	return strings.IndexByte("=+dr>", byte(cmp.Or(op, event.Write)))
}

// distinct names each path once, by the op that asks for the most. A rename is only one if it still looks like that: else there are two names that may
// have changed, with all below.
func (f *finder) distinct(names []Name) []Name {
	all := map[string]Name{}
	put := func(n Name) {
		if event.CheckPath(n.Path) != nil {
			f.leftOut++
			return
		}
		if old, ok := all[n.Path]; !ok || width(n.Op) > width(old.Op) {
			all[n.Path] = n
		}
	}
	for _, n := range names {
		if n.Op == event.Gone {
			f.said[n.Path] = true
		} else if n.Op == event.Renamed {
			f.said[n.From] = true
		}
		switch {
		case n.Op != event.Renamed:
		case f.moved[n.From] || !f.isRename(n):
			put(Name{Op: event.Tree, Path: n.From})
			n = Name{Op: event.Tree, Path: n.Path}
		default:
			f.moved[n.From] = true
		}
		put(n)
	}
	return slices.SortedFunc(maps.Values(all), func(a, b Name) int { return cmp.Or(cmp.Compare(f.turn(a), f.turn(b)), cmp.Compare(a.Path, b.Path)) })
}

func (f *finder) isRename(n Name) bool {
	if (event.Record{Op: n.Op, Path: n.Path, From: n.From}).Check() != nil {
		return false
	}
	to, fi, err := f.stand(n.Path)
	if err != nil || fi == nil || !fi.IsDir() || to != n.Path {
		return false
	}
	_, fi, err = f.stand(n.From)
	return err == nil && fi == nil
}

// stand goes down to a path as far as there is something. It returns what is there, and where: the path itself, or what is in its way and no directory. nil says that
// the path returned, the topmost on the way, is missing.
func (f *finder) stand(p string) (string, fs.FileInfo, error) {
	for i := range len(p) + 1 {
		if i < len(p) && (p[i] != '/' || f.parents[p[:i]]) {
			continue
		}
		fi, err := f.root.Lstat(p[:i])
		switch {
		case missing(err):
			return p[:i], nil, nil
		case err != nil:
			return "", nil, &PathError{p[:i], err, "run the command, or the hub, as a user who may read the module"}
		case i == len(p):
			return p, fi, nil
		case fi.Mode().Type() == fs.ModeSymlink:
			return "", nil, errLink
		case !fi.IsDir():
			return p[:i], fi, nil
		}
		f.parents[p[:i]] = true
	}
	return p, nil, nil
}

// take looks at one name.
func (f *finder) take(n Name) error {
	at, fi, err := f.stand(n.Path)
	if n.Op == event.Renamed && (err != nil || fi == nil || !fi.IsDir() || at != n.Path) { // not any more
		delete(f.moved, n.From)
		f.lost = append(f.lost, Name{Path: n.From})
		f.lose(n.From)
	}
	switch {
	case errors.Is(err, errLink): // where it really lies it has another name
		f.leftOut++
		return nil
	case err != nil:
		return err
	case f.replaced(n, at, fi):
		return nil
	case fi == nil:
		f.lost = append(f.lost, n)
		f.lose(at)
		return nil
	case at != n.Path:
		n = Name{Path: at}
	}
	if f.seen[n.Path] {
		return nil
	}
	f.seen[n.Path] = true
	switch kind := fi.Mode().Type(); {
	case kind != 0 && kind != fs.ModeDir && kind != fs.ModeSymlink:
		f.leftOut++
		return nil
	case n.Op == 0 || n.Op == event.Gone || kind != fs.ModeDir && n.Op != event.Meta:
		n.Op, n.From = event.Write, ""
	}
	rec, err := f.summed(n, fi)
	if err != nil {
		return err
	}
	if f.isIndex(n) && !n.As.Same(versionIn(rec)) { // it was replaced while it was read
		f.ahead, rec = true, n.As.record(n.Path)
		delete(f.inodes, n.Path)
	}
	if n.Op == event.Write && f.sums != nil && f.sums(n.Path) { // it was open for a while
		if _, err := f.root.Lstat(n.Path); missing(err) && n.As == nil {
			f.lose(n.Path)
			return nil
		} else if err != nil {
			f.ahead = true
		}
	}
	f.records = append(f.records, rec)
	return nil
}

// lose notes a name that is gone. The old name of a directory that was renamed is told by its new one.
func (f *finder) lose(path string) {
	for dir := path; dir != ""; dir = above(dir) {
		if f.moved[dir] || f.gone[dir] {
			return
		}
	}
	f.gone[path] = true
}

func above(path string) string { return path[:max(strings.LastIndexByte(path, '/'), 0)] }

// agree looks once more at what was gone and had something in it a moment before or later, and drops what is below something that is gone.
func (f *finder) agree() {
	doubtful := map[string]bool{}
	for _, r := range f.records {
		for dir := r.Path; dir != ""; dir = above(dir) {
			if f.gone[dir] {
				doubtful[dir] = true
			}
		}
	}
	for path := range doubtful {
		fi, err := f.root.Lstat(path)
		isDir := err == nil && fi.IsDir()
		f.records = slices.DeleteFunc(f.records, func(r event.Record) bool { return r.Path == path || !isDir && event.Under(path, r.Path) })
		if err != nil {
			continue
		}
		delete(f.gone, path)
		n := Name{Path: path} // a directory stands for all below: it is another one than mirrors have
		if rec, err := f.describe(n, fi); err == nil {
			f.records = append(f.records, rec)
		}
	}
	maps.DeleteFunc(f.gone, func(path string, _ bool) bool {
		for dir := above(path); dir != ""; dir = above(dir) {
			if f.gone[dir] {
				return true
			}
		}
		return false
	})
}

// linked adds the names that the manifest knows of inodes which are announced by one name: a change through one name is one of them all. Names are
// announced whatever state the manifest is in, so it is no error if it cannot tell.
func (p *Publisher) linked(ctx context.Context, m event.Module, r *resolver, records []event.Record) []event.Record {
	x := p.exports[m]
	if x == nil || len(r.inodes) == 0 {
		return records
	}
	all, missing := x.linked(ctx, r, records)
	if !missing || x.exporter.Export(ctx) != nil { // what was announced a moment ago may not be in the manifest yet
		return all
	}
	all, _ = x.linked(ctx, r, records)
	return all
}

// linked tells, too, whether there is an inode of which it does not find all names.
func (x *exported) linked(ctx context.Context, r *resolver, records []event.Record) (_ []event.Record, missing bool) {
	named, names := map[string]bool{}, map[inode]int{}
	for _, rec := range records {
		named[rec.Path] = true
		if i, ok := r.inodes[rec.Path]; ok {
			names[i]++
		}
	}
	done := map[inode]bool{}
	for _, rec := range slices.Clone(records) {
		i, ok := r.inodes[rec.Path]
		if !ok || done[i] || rec.Op != event.Write && rec.Op != event.Meta {
			continue
		}
		done[i] = true
		paths, _ := x.manifest.Linked(ctx, i.ino)
		for _, path := range paths {
			if other, ok := r.other(rec, path, i); ok && !named[path] {
				named[path] = true
				names[i]++
				records = append(records, other)
			}
		}
		missing = missing || names[i] < r.links[i]
	}
	return records, missing
}

// other is the record of another name of the inode i, which rec names; ok is false if it is none.
func (r *resolver) other(rec event.Record, path string, i inode) (_ event.Record, ok bool) {
	if r.checkParents(path) != nil {
		return event.Record{}, false
	}
	fi, err := r.root.Lstat(path)
	if err != nil || fi.IsDir() || inodeOf(fi) != i {
		return event.Record{}, false
	}
	other, err := r.describe(Name{Op: rec.Op, Path: path}, fi)
	other.Sum = rec.Sum
	return other, err == nil
}
