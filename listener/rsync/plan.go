package rsync

import (
	"errors"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A part is one run of rsync: names below one root.
type part struct {
	root  root
	names []string // relative to the root; "" is the root itself
	trust bool     // rsync's own check of names is off because it takes some of these for patterns
	alone bool     // only the root's own attributes
	fresh bool     // set aside without what the destination has
}

// A planned job is the parts to run in order, and the paths that lead where rsync must not go.
type planned struct {
	parts   []part
	refused []PathError
}

// roots are the roots of the parts, each once.
func (p planned) roots() iter.Seq[root] {
	return func(yield func(root) bool) {
		for i, part := range p.parts {
			if (i == 0 || part.root.real != p.parts[i-1].root.real) && !yield(part.root) {
				return
			}
		}
	}
}

// plan cuts a job into parts.
func (r *Runner) plan(j Job) (planned, *Error) {
	var p planned
	j.together = (j.Way == Aside || j.Way == Peek || j.Way == Place) && r.cfg.Features.TrustSender
	if j.Mode == Fetch {
		p.parts = cut(root{real: j.Into, temp: filepath.Join(j.Into, TempPrefix)}, j)
		return p, nil
	}
	roots, err := r.roots()
	if err != nil {
		return p, bad(Permanent, err)
	}
	if len(roots) > 1 && anchored(j.Filters) {
		return p, bad(BadJob, errors.New("filters that begin with a slash cannot be used where links are configured"))
	}
	if j.Mode == Full {
		for _, root := range roots {
			p.parts = append(p.parts, part{root: root})
		}
		return p, nil
	}
	byRoot, refused, err := sortOut(roots, j)
	if err != nil {
		return p, bad(Permanent, err)
	}
	for i, root := range roots {
		j.Paths = byRoot[i]
		p.parts = append(p.parts, cut(root, j)...)
	}
	if j.Way == Aside || j.Way == Peek {
		p.parts = append(p.parts, behindLinks(roots, refused, j)...)
	} else {
		p.refused = refused
	}
	return p, nil
}

// anchored tells whether a filter speaks of the top of the transfer, which is another one behind a link.
func anchored(filters []string) bool {
	for _, f := range filters {
		if _, pattern, _ := strings.Cut(f, " "); strings.HasPrefix(pattern, "/") {
			return true
		}
	}
	return false
}

// sortOut finds for each path of the job the root it lies in.
func sortOut(roots []root, j Job) (byRoot [][]string, refused []PathError, err error) {
	byRoot = make([][]string, len(roots))
	for i, root := range roots {
		var found []string
		for _, path := range j.Paths {
			if deepest(roots, path) == i {
				found = append(found, strings.TrimPrefix(strings.TrimPrefix(path, root.link), "/"))
			}
			if j.Mode == Recursive && root.link != "" && path != root.link && below(root.link, path) {
				found = append(found, "") // the walk of path stops at the link
			}
		}
		ok, bad, err := root.check(found)
		if err != nil {
			return nil, nil, err
		}
		refused = append(refused, bad...)
		for _, name := range ok {
			if name == "" && j.Mode == Delete {
				refused = append(refused, PathError{Path: root.link, Kind: Loop, Local: true, Text: "is a configured link: remove it from the configuration first"})
				continue
			}
			byRoot[i] = append(byRoot[i], name)
		}
	}
	return byRoot, refused, nil
}

// deepest returns the root whose link is the longest one that path lies below.
func deepest(roots []root, path string) int {
	best := 0
	for i, root := range roots {
		if below(path, root.link) && len(root.link) > len(roots[best].link) {
			best = i
		}
	}
	return best
}

// cut makes the parts of one root: the root itself apart in modes that would read it, and names that confuse rsync beside the others, lest hard links
// between them are lost. rsync's own check of names is off in such a part, and ours checks each. What is set aside is one part, so that all names
// of an inode are in it.
func cut(root root, j Job) (parts []part) {
	names := make([]string, 0, len(j.Paths))
	for _, name := range j.Paths {
		switch {
		case name != "" || j.Mode.walks():
			names = append(names, name)
		case len(parts) == 0:
			parts = append(parts, part{root: root, names: []string{""}, alone: true})
		}
	}
	if j.Mode == Delete || j.Mode == Recursive {
		names = topmost(names)
	}
	size := MaxNames
	if j.together {
		size = max(len(names), 1)
	}
	for _, names := range Chunks(names, size) {
		parts = append(parts, part{root: root, names: names, trust: j.together || slices.ContainsFunc(names, confuses)})
	}
	return parts
}

// argv is the command line of a part. left is how many things may still be deleted.
func (r *Runner) argv(j Job, p part, mark string, left int) []string {
	info := "--info=stats2,name1"
	if j.MaxSize > 0 {
		info += ",skip1" // names what is too large
	}
	argv := []string{r.cfg.Features.Binary, "--no-motd", "--no-h", "--numeric-ids", "--outbuf=L", info, format(mark)}
	argv = append(argv, r.args(j, left)...)
	from, to := r.src.url, p.root.real+"/"
	switch j.Way {
	case Place:
		from = p.root.asideFor() + "/"
	case Aside, Peek:
		to = p.root.aside() + "/"
		if !p.fresh {
			argv = append(argv, "--copy-dest="+p.root.real)
		}
	}
	if j.Way != Place {
		argv = append(argv, r.cfg.Upstream.args(r.src, r.cfg.Stall)...)
	}
	if !j.dry() && j.Mode != Full {
		argv = append(argv, "--temp-dir="+p.root.tempArg(j))
	}
	if j.resumes() && r.cfg.Features.Resumes {
		argv = append(argv, "--partial-dir="+p.root.unfinished())
	}
	if p.trust && r.cfg.Features.TrustSender {
		argv = append(argv, "--trust-sender")
	}
	if p.alone {
		argv = append(argv, "--exclude=/*")
	}
	if j.Mode.walks() {
		for _, path := range p.root.keep {
			argv = append(argv, "--exclude=/"+path)
		}
	}
	for _, f := range j.Filters {
		argv = append(argv, "--filter="+f)
	}
	if j.Mode == Full {
		return append(argv, r.src.url+slash(join(r.src.folder, p.root.link)), p.root.real+"/")
	}
	return append(argv, "--from0", "--files-from=-", from, to)
}

func slash(folder string) string {
	if folder == "" {
		return ""
	}
	return folder + "/"
}

// entries is the list of a part as rsync reads it. What stands before "/./" is not made on the mirror; a second dot makes rsync set the
// attributes of the root too, as it does for every other directory above a listed name.
func (r *Runner) entries(j Job, p part) []string {
	if j.Mode == Full {
		return nil
	}
	prefix := join(r.src.folder, p.root.link)
	switch {
	case j.Way == Place: // also keeps rsync, which reads local lists so, from taking a name that begins with # for a comment
		prefix = asideTree + "/./"
	case prefix != "" && p.root.link != "" && p.setsRoot(j.Mode) && j.Way == "":
		prefix += "/././"
	case prefix != "":
		prefix += "/./"
	}
	list := make([]string, len(p.names))
	for i, name := range p.names {
		list[i] = prefix + name
		if j.Mode == Level && name != "" {
			list[i] += "/"
		}
	}
	return list
}

// setsRoot tells whether a part of this mode sets the attributes of its root.
func (p part) setsRoot(m Mode) bool {
	return p.root.link != "" && (m == Content || m == Index || m == Flip || m.walks())
}

// A root is a directory that rsync can have as its destination without passing a link.
type root struct {
	link string   // path of the link that leads to it, relative to the destination; "" for the destination itself
	real string   // absolute path without links
	temp string   // folder for temporary files, on the same file system
	keep []string // what recursive runs must leave alone: links to other roots, the temporary folder; relative to real
}

// tempFor keeps a flip's temporary files apart: it may run beside another job, which sweeps its own.
func (r root) tempFor(m Mode) string {
	switch m {
	case Flip:
		return filepath.Join(r.temp, "flip")
	case Fetch:
		return r.temp
	}
	return filepath.Join(r.temp, "run")
}

// tempArg is the temporary folder as rsync is told it: relative to the destination if it lies in there. rsync 3.5.0 opens every folder on the way to
// it, four times for each file, lest it follow another user's link, so that an absolute path makes small files take twice the time. --insecure-links
// would spare that; it also makes rsync follow links in the destination, if --no-implied-dirs is given with it, so it is never used.
func (r root) tempArg(j Job) string {
	temp := r.tempFor(j.Mode)
	if rel, ok := strings.CutPrefix(temp, r.real+"/"); ok && j.Way == "" {
		return rel
	}
	return temp
}

// aside is the folder for files that are set aside; it has a name of its own in asideFor.
func (r root) aside() string    { return filepath.Join(r.asideFor(), asideTree) }
func (r root) asideFor() string { return filepath.Join(r.temp, "aside") }

const asideTree = "tree"

// check refuses the names that lead through a link below the root.
func (r root) check(names []string) (ok []string, refused []PathError, err error) {
	if len(names) == 0 {
		return nil, nil, nil
	}
	dir, err := os.OpenRoot(r.real)
	if err != nil {
		return nil, nil, err
	}
	defer dir.Close()                 //nolint:errcheck // only read from
	seen := map[string]string{"": ""} // directory to the link it is or lies behind, "" for none
	for _, name := range names {
		link, err := linkIn(dir, parent(name), seen)
		switch {
		case err != nil:
			return nil, nil, err
		case link != "":
			text := "leads through the symbolic link " + join(r.link, link) + ": add it to the configured links, or put a directory in its place"
			refused = append(refused, PathError{Path: join(r.link, name), Kind: Loop, Local: true, Text: text})
		default:
			ok = append(ok, name)
		}
	}
	return ok, refused, nil
}

// linkIn returns the first component of the path that is a symbolic link, "" if none is.
func linkIn(dir *os.Root, path string, seen map[string]string) (string, error) {
	if link, known := seen[path]; known {
		return link, nil
	}
	link, err := linkIn(dir, parent(path), seen)
	if err != nil || link != "" {
		seen[path] = link
		return link, err
	}
	info, err := dir.Lstat(path)
	switch {
	case err == nil && info.Mode()&fs.ModeSymlink != 0:
		seen[path] = path
		return path, nil
	case err == nil || errors.Is(err, fs.ErrNotExist) || isNotDir(err):
		seen[path] = ""
		return "", nil
	}
	return "", err
}
