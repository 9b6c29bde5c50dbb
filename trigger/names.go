package trigger

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"

	"github.com/mirrorbus/mirrorbus/event"
)

// A Name is one path of a change as its author gave it, with what the author says of it.
type Name struct {
	Op   event.Op // 0: as it is now; a directory then stands for everything below it
	Path string
	From string // Renamed only
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

// ReadNames reads names as ParseName takes them, one a line, or each ended by NUL. A list that ends in the middle of a name was cut short and is
// refused as a whole: acting on half a name could delete the wrong thing.
func ReadNames(r io.Reader, nul bool) ([]Name, error) {
	end := byte('\n')
	if nul {
		end = 0
	}
	br := bufio.NewReader(io.LimitReader(r, MaxList+1))
	var names []Name
	for read := 0; ; {
		b, err := br.ReadBytes(end)
		if read += len(b); read > MaxList {
			return nil, fmt.Errorf("list of names is over %d bytes; announce directories instead (d:dir or r:dir)", MaxList)
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

func (e *PathError) Error() string { return fmt.Sprintf("path %q: %v", e.Path, e.Err) }
func (e *PathError) Unwrap() error { return e.Err }

// Resolve turns names into the path set that says what is true of them now, by one lstat each. It looks at nothing else of the module. Names are
// checked against what rsync and the mirrors can act on; the first that fails is the error.
func Resolve(root *os.Root, names []Name) (event.PathSet, error) {
	r := resolver{root: root, parents: map[string]bool{}, links: map[inode]uint64{}}
	records := make([]event.Record, 0, len(names))
	for _, n := range names {
		rec, err := r.record(n)
		if err != nil {
			return nil, err
		}
		records = append(records, rec)
	}
	return event.NewPathSet(records)
}

type inode struct{ dev, ino uint64 }

type resolver struct {
	root    *os.Root
	parents map[string]bool // directories known to be directories, not links
	links   map[inode]uint64
}

func (r *resolver) record(n Name) (event.Record, error) {
	if err := event.CheckPath(n.Path); err != nil {
		return event.Record{}, &PathError{n.Path, bare(err), "give the path relative to the module, as rsync would list it"}
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
		return event.Record{}, &PathError{n.Path, errors.New("does not exist in the module"), fmt.Sprintf("announce -%s if it was removed", n.Path)}
	case err != nil:
		return event.Record{}, &PathError{n.Path, err, "run the command as a user who may read the module"}
	}
	return r.describe(n, fi)
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
	if (rec.Op == event.Level || rec.Op == event.Tree) && !fi.IsDir() {
		return event.Record{}, &PathError{n.Path, errors.New("is not a directory"), "announce it without the " + string(rune(rec.Op)) + ": prefix"}
	}
	if fi.Mode().IsRegular() || fi.Mode()&fs.ModeSymlink != 0 {
		rec.Size = st.Size
	}
	if st.Nlink > 1 && !fi.IsDir() {
		rec.Link = r.group(inode{uint64(st.Dev), st.Ino})
	}
	return rec, nil
}

// group numbers the inodes with several names from 1, in the order in which they are met.
func (r *resolver) group(i inode) uint64 {
	if _, ok := r.links[i]; !ok {
		r.links[i] = uint64(len(r.links) + 1)
	}
	return r.links[i]
}

// checkParents refuses a path that goes through a symbolic link: rsync would replace the mirror's link by a directory, or leave the module.
func (r *resolver) checkParents(p string) error {
	for dir := path.Dir(p); dir != "."; dir = path.Dir(dir) {
		if r.parents[dir] {
			return nil
		}
		fi, err := r.root.Lstat(dir)
		switch {
		case missing(err):
			continue
		case err != nil:
			return &PathError{p, err, "run the command as a user who may read the module; a path must not lead outside it"}
		case fi.Mode()&fs.ModeSymlink != 0:
			return &PathError{p, fmt.Errorf("its parent %q is a symbolic link", dir), "announce the path under its real directory"}
		}
		r.parents[dir] = true
	}
	return nil
}

// bare cuts the path from the front of a CheckPath error, since a PathError names it.
func bare(err error) error {
	if _, after, ok := strings.Cut(err.Error(), ": "); ok {
		return errors.New(after)
	}
	return err
}

func asPathError(err error) (*PathError, bool) {
	var p *PathError
	ok := errors.As(err, &p)
	return p, ok
}
