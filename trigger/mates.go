package trigger

import (
	"context"
	"maps"
	"slices"

	"github.com/mirrorbus/mirrorbus/event"
)

// A file that has several names may be written through one of them that is then removed, or replaced, before anybody looks. Its other names are changed, and
// nobody names them.

// mates are the names of files that were written through a name which is another file's by now, or nobody's: those that are not as mirrors know them. lost has
// such names, with the number of the inode that is there, or 0. It is no error if the manifest cannot tell: names are announced whatever state it is in.
func (x *exported) mates(ctx context.Context, r *resolver, fresh fresh, lost map[string]uint64) []string {
	if has, err := x.manifest.HasLinks(ctx); err == nil && !has && len(fresh.links) == 0 {
		return nil
	}
	mates, err := x.manifest.Mates(ctx, lost)
	if err != nil {
		mates = map[string]bool{}
	}
	for path := range lost {
		for _, name := range fresh.mates(path) {
			mates[name] = true
		}
	}
	maps.DeleteFunc(mates, func(name string, _ bool) bool {
		_, named := lost[name]
		return named || r.seen[name]
	})
	if slices.ContainsFunc(slices.Collect(maps.Keys(mates)), fresh.mention) && x.exporter.Export(ctx) != nil {
		return slices.Sorted(maps.Keys(mates)) // some of them may be as they were announced
	}
	maps.DeleteFunc(mates, func(path string, _ bool) bool {
		changed, err := x.manifest.Changed(ctx, r.root, path)
		return err == nil && !changed
	})
	return slices.Sorted(maps.Keys(mates))
}

// link notes which names of a set are one file's.
func (f fresh) link(set event.PathSet) {
	groups := map[uint64][]string{}
	for _, r := range set {
		if r.Link != 0 {
			groups[r.Link] = append(groups[r.Link], r.Path)
		}
	}
	for _, names := range groups {
		for _, name := range names {
			f.links[name] = append(f.links[name], names...)
		}
	}
}

// mates are the names that were announced together with path, or with a name below it, as those of one file.
func (f fresh) mates(path string) (names []string) {
	if !f.named[path] {
		return nil
	}
	for name, mates := range f.links {
		if name == path || event.Under(path, name) {
			names = append(names, mates...)
		}
	}
	return names
}
