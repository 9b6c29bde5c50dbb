package trigger

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"github.com/mirrorbus/mirrorbus/event"
)

// A Name is one path of a change as its author gave it, with what the author says of it.
type Name struct {
	Op   event.Op // 0: as it is now; a directory then stands for everything below it
	Path string
	From string // Renamed only

	As *Version // what it was when who names it looked; nil: no matter what. Only of names that are taken as found
}

// ParseName reads `path`, `+path`, `=path`, `-path`, `d:path` (one directory level) or `r:path` (everything below). A path that really begins
// like that is written `./path`. A trailing slash is dropped.
func ParseName(s string) Name {
	var n Name
	switch {
	case strings.HasPrefix(s, "d:"), strings.HasPrefix(s, "r:"):
		n.Op, s = event.Op(s[0]), s[2:]
	case s != "" && strings.IndexByte("+=-", s[0]) >= 0:
		n.Op, s = event.Op(s[0]), s[1:]
	}
	s = strings.TrimPrefix(s, "./")
	if s != "/" {
		s = strings.TrimSuffix(s, "/")
	}
	n.Path = s
	return n
}

// MaxList is the largest list of names that is read, in bytes.
const MaxList = event.MaxSetBytes

// maxName is the longest name that is read, in bytes: far longer than any path, so that an error can name it by how it begins.
const maxName = 64 << 10

// ReadNames reads names as ParseName takes them, one a line, or each ended by NUL. A NUL list that ends in the middle of a name was cut short and
// is refused as a whole: acting on half a name could delete the wrong thing. Of lines the last may lack its end, as editors and echo -n write them.
// Empty lines are skipped.
func ReadNames(r io.Reader, nul bool) ([]Name, error) { return readNames(r, nul, MaxList) }

func readNames(r io.Reader, nul bool, most int) ([]Name, error) {
	end := byte('\n')
	if nul {
		end = 0
	}
	br := bufio.NewReaderSize(io.LimitReader(r, int64(most)+1), maxName)
	var names []Name
	for read := 0; ; {
		b, err := br.ReadSlice(end)
		if errors.Is(err, bufio.ErrBufferFull) {
			return nil, fmt.Errorf("name %d (%.60q…) is longer than %d bytes", len(names)+1, b, maxName)
		}
		if read += len(b); read > most {
			return nil, fmt.Errorf("list of names is over %d bytes; announce directories instead (d:dir or r:dir)", most)
		}
		switch {
		case errors.Is(err, io.EOF) && len(b) == 0:
			return names, nil
		case errors.Is(err, io.EOF) && nul:
			return nil, fmt.Errorf("name %d (%.60q) has no NUL after it: the list was cut short, or is not NUL-separated (then leave out -0)", len(names)+1, b)
		case err != nil && !errors.Is(err, io.EOF):
			return nil, fmt.Errorf("name %d: %w", len(names)+1, err)
		}
		if b = bytes.TrimSuffix(b, []byte{end}); len(b) > 0 {
			names = append(names, ParseName(string(b)))
		}
	}
}

// A PathError names the path that cannot be announced, why, and what to do.
type PathError struct {
	Path string
	Err  error
	Hint string
}

func (e *PathError) Error() string { return fmt.Sprintf("path %.200q: %v", e.Path, e.Err) }
func (e *PathError) Unwrap() error { return e.Err }

// Resolve turns names into the path set that says what is true of them now, by one lstat each and one of each directory above. It looks at
// nothing else of the module. Names are checked against what rsync and the mirrors can act on; the first that fails is the error. Of a name
// that is gone together with directories above it the topmost of those is announced, since rsync removes no parent that is left empty.
//
// A written file for which sums returns true, if it is not larger than MaxSummed and holds still, is read, and its record says what is in it. sums may be
// nil.
func Resolve(root *os.Root, names []Name, sums func(path string) bool) (event.PathSet, error) {
	r := newResolver(root, sums, len(names))
	records, err := r.records(names)
	if err != nil {
		return nil, err
	}
	return r.set(records)
}

// records look at each name.
func (r *resolver) records(names []Name) ([]event.Record, error) {
	records := make([]event.Record, 0, len(names))
	gone := map[string]bool{}
	for _, n := range names {
		rec, err := r.record(n)
		if err != nil {
			return nil, err
		}
		if rec.Op == event.Gone {
			rec.Path = r.topmost(rec.Path)
			if gone[rec.Path] {
				continue
			}
			gone[rec.Path] = true
		}
		records = append(records, rec)
	}
	return records, nil
}

// set makes a path set of records.
func (r *resolver) set(records []event.Record) (event.PathSet, error) {
	set, err := event.NewPathSet(records)
	r.link(set)
	return set, err
}

type inode struct{ dev, ino uint64 }

type resolver struct {
	root    *os.Root
	sums    func(path string) bool
	seen    map[string]bool  // paths that were named
	parents map[string]bool  // directories known to be directories, not links
	inodes  map[string]inode // of paths whose inode has other names too
	links   map[inode]int    // how many names such an inode has
	ahead   bool             // an index is no more the version that is announced
}

func newResolver(root *os.Root, sums func(path string) bool, names int) *resolver {
	return &resolver{root: root, sums: sums, seen: make(map[string]bool, names), parents: map[string]bool{}, inodes: map[string]inode{}, links: map[inode]int{}}
}

// link numbers the inodes that have several names in set from 1, in the order of the set. A single name says nothing of the others.
func (r *resolver) link(set event.PathSet) {
	names, number := map[inode]int{}, map[inode]uint64{}
	for _, i := range r.inodes {
		names[i]++
	}
	for n := range set {
		i, ok := r.inodes[set[n].Path]
		if !ok || names[i] < 2 {
			continue
		}
		if number[i] == 0 {
			number[i] = uint64(len(number)) + 1
		}
		set[n].Link = number[i]
	}
}

func (r *resolver) record(n Name) (event.Record, error) {
	if err := r.check(n.Path); err != nil {
		return event.Record{}, err
	}
	if err := r.checkParents(n.Path); err != nil {
		return event.Record{}, err
	}
	fi, err := r.root.Lstat(n.Path)
	switch {
	case n.Op == event.Gone && err == nil:
		return event.Record{}, &PathError{n.Path, errors.New("is said to be gone but is there"), "leave out the minus sign to announce it as it is"}
	case n.Op == event.Gone && missing(err):
		return event.Record{Op: event.Gone, Path: n.Path}, nil
	case missing(err):
		return event.Record{}, &PathError{n.Path, errors.New("does not exist in the module"), fmt.Sprintf("announce -%s if it was removed", printable(n.Path))}
	case err != nil:
		return event.Record{}, &PathError{n.Path, err, "run the command as a user who may read the module"}
	}
	return r.summed(n, fi)
}

// check refuses what is no path of a module, and a path named before.
func (r *resolver) check(p string) error {
	hint := "give the path relative to the module, as rsync would list it"
	err := event.CheckPath(p)
	switch {
	case strings.IndexByte(p, 0) >= 0:
		hint = "if the list is NUL-separated, read it with -0"
	case err == nil && r.seen[p]:
		err, hint = errors.New("stands twice"), "name it once"
	}
	if err != nil {
		return &PathError{p, bare(p, err), hint}
	}
	r.seen[p] = true
	return nil
}

func missing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// describe fills a record from what lstat said.
func (r *resolver) describe(n Name, fi fs.FileInfo) (event.Record, error) {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return event.Record{}, &PathError{n.Path, errors.New("no stat data"), "use a file system with POSIX metadata"}
	}
	rec := event.Record{Op: n.Op, Mode: st.Mode, MTime: event.Stamp{Sec: st.Mtim.Sec, Nsec: int32(st.Mtim.Nsec)}, Path: n.Path, From: n.From}
	if rec.Op == 0 {
		rec.Op = event.Write
		if fi.IsDir() {
			rec.Op = event.Tree
		}
	}
	switch kind := fi.Mode().Type(); {
	case (rec.Op == event.Level || rec.Op == event.Tree) && kind != fs.ModeDir:
		return event.Record{}, &PathError{n.Path, errors.New("is not a directory"), "announce it without the " + string(rune(rec.Op)) + ": prefix"}
	case rec.Op == event.Renamed && kind != fs.ModeDir:
		return event.Record{}, &PathError{n.Path, errors.New("is not a directory, and only those are renamed"), "announce the new name, and the old one with a minus sign"}
	case kind == 0 || kind == fs.ModeSymlink:
		rec.Size = st.Size
	case kind != fs.ModeDir:
		return event.Record{}, &PathError{n.Path, errors.New("is a device, pipe or socket, which mirrors do not take"), "leave it out"}
	}
	if st.Nlink > 1 && !fi.IsDir() {
		r.inodes[n.Path] = inodeOf(fi)
		r.links[inodeOf(fi)] = int(st.Nlink)
	}
	return rec, nil
}

// inodeOf is zero where the file system gives no stat data.
func inodeOf(fi fs.FileInfo) inode {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return inode{}
	}
	return inode{uint64(st.Dev), st.Ino}
}

// topmost is the highest missing directory on the way to a path that is missing, or the path itself.
func (r *resolver) topmost(p string) string {
	for i := range len(p) {
		if p[i] != '/' || r.parents[p[:i]] {
			continue
		}
		if _, err := r.root.Lstat(p[:i]); errors.Is(err, fs.ErrNotExist) {
			return p[:i]
		}
	}
	return p
}

var errLink = errors.New("a symbolic link")

// checkParents refuses a path that goes through a symbolic link: rsync would replace the mirror's link by a directory, or leave the module.
func (r *resolver) checkParents(p string) error {
	for i := range len(p) {
		if p[i] != '/' || r.parents[p[:i]] {
			continue
		}
		fi, err := r.root.Lstat(p[:i])
		switch {
		case missing(err):
			return nil // as is the path itself
		case err != nil:
			return &PathError{p, err, "run the command as a user who may read the module"}
		case fi.Mode()&fs.ModeSymlink != 0:
			return &PathError{p, fmt.Errorf("its parent %q is %w", p[:i], errLink), "announce the path under its real directory"}
		}
		r.parents[p[:i]] = true
	}
	return nil
}

// bare cuts the path p from the front of a CheckPath error, since a PathError names it.
func bare(p string, err error) error {
	for _, front := range []string{fmt.Sprintf("path %.200q: ", p), fmt.Sprintf("path %.200q...: ", p), fmt.Sprintf("path %.40q...: ", p), "path "} {
		if after, ok := strings.CutPrefix(err.Error(), front); ok {
			return errors.New(after)
		}
	}
	return err
}

func asPathError(err error) (*PathError, bool) {
	var p *PathError
	ok := errors.As(err, &p)
	return p, ok
}
