package replay

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/filter"
	"github.com/mirrorbus/mirrorbus/internal/indexes"
)

// A Day is a stream of changes to one tree. The same seed on the same tree makes the same changes, apart from times. It is the tree's only writer.
type Day struct {
	// Keeps is how many further issues of a repository what its index has named stays, as masters let it stay that care for slow mirrors. 0: none.
	Keeps int

	root   string
	rng    *rand.Rand
	dirs   []string   // directories, relative to root; "." is the root
	hidden []string   // directories that a flip will show
	links  [][]string // names of one inode, for inodes that have several
	repos  []*repo
	held   []Batch       // changes not announced yet
	plain  *filter.Rules // includes what is no index
	made   int           // numbers new names
	small  int           // a directory with more names below it is left alone by what removes or moves it
}

// Begin looks at the tree below root and begins a day on it.
func Begin(root string, seed uint64) (*Day, error) {
	plain, err := indexes.Rules(indexes.Expand([]string{"generic"}))
	if err != nil {
		return nil, err
	}
	d := &Day{root: root, rng: rand.New(rand.NewPCG(seed, 0)), dirs: []string{"."}, plain: plain}
	names, inodes := 0, map[uint64][]string{}
	err = filepath.WalkDir(root, func(p string, e fs.DirEntry, err error) error {
		if err != nil || p == root {
			return err
		}
		rel := strings.TrimPrefix(p, root+"/")
		if rel == event.ExportDir {
			return fs.SkipDir
		}
		names++
		if e.IsDir() {
			d.dirs = append(d.dirs, rel)
			return nil
		}
		fi, err := e.Info()
		if err != nil {
			return err
		}
		if st, ok := fi.Sys().(*syscall.Stat_t); ok && st.Nlink > 1 {
			inodes[st.Ino] = append(inodes[st.Ino], rel)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look at %s: %w", root, err)
	}
	for _, group := range inodes {
		d.links = append(d.links, group)
	}
	slices.SortFunc(d.links, slices.Compare) // the same order on each run
	d.small = max(20, names/200)
	return d, nil
}

// A change does one thing to the tree and notes what it touched. It notes nothing if it finds nothing to do it to.
type change func(*Day, *Batch) error

// kinds are the changes and how often each is made.
var kinds = []struct {
	name   string
	weight int
	do     change
}{
	{"replace", 10, (*Day).replace}, {"add", 10, (*Day).add}, {"rewrite", 3, (*Day).rewrite}, {"downgrade", 2, (*Day).downgrade},
	{"touch", 2, (*Day).touch}, {"remove", 6, (*Day).remove}, {"remove directory", 3, (*Day).removeDir}, {"rename", 5, (*Day).rename},
	{"rename directory", 3, (*Day).renameDir}, {"chmod", 4, (*Day).chmod}, {"chmod directory", 4, (*Day).chmodDir},
	{"change type", 5, (*Day).changeType}, {"link", 4, (*Day).link}, {"break link", 2, (*Day).breakLink}, {"odd names", 5, (*Day).odd},
	{"crowd", 1, (*Day).crowd}, {"new tree", 2, (*Day).grow}, {"release", 3, (*Day).release}, {"issue", 12, (*Day).issue}, {"hide", 3, (*Day).hide},
}

// Next makes the next changes: mostly one, sometimes some together, or a flip of something that is hidden.
func (d *Day) Next() (Batch, error) {
	b := Batch{touched: map[string]depth{}}
	if len(d.hidden) > 0 && d.rng.IntN(8) == 0 {
		if err := d.flip(&b); err != nil || len(b.touched) > 0 {
			return b, err
		}
	}
	for more := true; more || len(b.touched) == 0; more = d.rng.IntN(4) == 0 {
		k := d.pickKind()
		before := len(b.touched)
		if err := kinds[k].do(d, &b); err != nil {
			return b, fmt.Errorf("%s: %w", kinds[k].name, err)
		}
		if len(b.touched) > before {
			b.Kind = strings.TrimPrefix(b.Kind+", "+kinds[k].name, ", ")
		}
	}
	return b, nil
}

func (d *Day) pickKind() int {
	sum := 0
	for _, k := range kinds {
		sum += k.weight
	}
	n := d.rng.IntN(sum)
	for i, k := range kinds {
		if n -= k.weight; n < 0 {
			return i
		}
	}
	return 0
}

// abs is where a path of the tree lies.
func (d *Day) abs(p string) string { return filepath.Join(d.root, p) }

// someDir is a directory of the tree. The root comes seldom.
func (d *Day) someDir() string { return d.dirs[d.rng.IntN(len(d.dirs))] }

// someEntry is an entry of a directory that ok accepts, "" if none is found soon.
func (d *Day) someEntry(ok func(fs.DirEntry) bool) (string, error) {
	for range 20 {
		dir := d.someDir()
		entries, err := os.ReadDir(d.abs(dir))
		if err != nil {
			return "", err
		}
		entries = slices.DeleteFunc(entries, func(e fs.DirEntry) bool { return e.Name() == event.ExportDir || !ok(e) })
		if len(entries) > 0 {
			return path.Join(dir, entries[d.rng.IntN(len(entries))].Name()), nil
		}
	}
	return "", nil
}

func (d *Day) someFile() (string, error) {
	return d.someEntry(func(e fs.DirEntry) bool { return e.Type().IsRegular() })
}

// smallDir is a directory that may be removed or moved as a whole, "" if none is found soon.
func (d *Day) smallDir() (string, error) {
	for range 20 {
		dir := d.someDir()
		if dir == "." {
			continue
		}
		n := 0
		err := filepath.WalkDir(d.abs(dir), func(_ string, _ fs.DirEntry, err error) error {
			if n++; n > d.small {
				return fs.SkipAll
			}
			return err
		})
		if err != nil || n <= d.small {
			return dir, err
		}
	}
	return "", nil
}

// fresh is a name that was never used, with some ending that a subset or the order of stages may care about.
func (d *Day) fresh(stem string) string {
	d.made++
	endings := []string{"", ".rpm", ".html", ".skip", ".db", ".xml.gz"}
	return fmt.Sprintf("%s-%d%s", stem, d.made, endings[d.rng.IntN(len(endings))])
}

// forget drops what is known of a path and of what was below it.
func (d *Day) forget(p string) {
	gone := func(q string) bool { return q == p || event.Under(p, q) }
	d.dirs = slices.DeleteFunc(d.dirs, gone)
	d.hidden = slices.DeleteFunc(d.hidden, gone)
	for i := range d.links {
		d.links[i] = slices.DeleteFunc(d.links[i], gone)
	}
	d.links = slices.DeleteFunc(d.links, func(g []string) bool { return len(g) < 2 })
}

// moved gives what is known of a path and of what is below it the new name.
func (d *Day) moved(from, to string) {
	for _, list := range append([][]string{d.dirs, d.hidden}, d.links...) {
		for i, q := range list {
			if q == from || event.Under(from, q) {
				list[i] = to + q[len(from):]
			}
		}
	}
}

// mixed tells whether some of these names are those of indexes, and others are not. Mirrors do not keep them names of one inode, see deploy/README.md.
func (d *Day) mixed(names []string) bool {
	n := 0
	for _, p := range names {
		if d.plain.Included(p, false) {
			n++
		}
	}
	return n > 0 && n < len(names)
}

// mates are all names of the inode of p, p among them.
func (d *Day) mates(p string) []string {
	for _, g := range d.links {
		if slices.Contains(g, p) {
			return g
		}
	}
	return []string{p}
}
