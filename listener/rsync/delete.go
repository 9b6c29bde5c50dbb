package rsync

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// ask is a dry run that tells which of the listed names the upstream has. Only deleteHere uses it.
const ask Mode = "ask"

// deleteHere does a Delete without rsync's --delete-missing-args, which some versions of rsync have broken and some upstreams forbid: it asks the upstream which of the
// names are missing, removes those here, and lets rsync set the attributes of the directories that held them.
func (r *Runner) deleteHere(ctx context.Context, j Job, p part, lock *os.File, res *Result) *Error {
	var asked Result
	e := r.attempt(ctx, Job{Mode: ask}, p, lock, &asked)
	res.Runs, res.Received = res.Runs+asked.Runs, res.Received+asked.Received
	if e != nil && (gravity[e.Class] == 0 || e.Omitted > 0) {
		return e
	}
	if e == nil {
		return nil
	}
	dir, err := os.OpenRoot(p.root.real)
	if err != nil {
		return bad(Permanent, err)
	}
	defer dir.Close() //nolint:errcheck // nothing is written through it
	var failed *Error
	var parents []string
	for _, path := range e.Paths {
		name := strings.TrimPrefix(strings.TrimPrefix(path.Path, p.root.link), "/")
		switch _, err := dir.Lstat(name); {
		case err != nil: // gone on both sides
		case path.Local || path.Kind != NotFound || !slices.Contains(p.names, name):
			failed = failed.merge(&Error{Class: Partial, Code: e.Code, Paths: []PathError{path}})
		default:
			failed = failed.merge(r.remove(dir, p.root, name, j, res))
			parents = append(parents, parent(name))
		}
	}
	return failed.merge(r.settleParents(ctx, p.root, parents, lock, res))
}

// forbidsDeletion tells whether the upstream's way in, rrsync -ro for example, refused rsync's own deletion.
func (e *Error) forbidsDeletion() bool {
	return e.Class == Permanent && slices.ContainsFunc(e.Stderr, func(line string) bool { return strings.Contains(line, "--delete-missing-args has been disabled") })
}

// remove removes name and what is below, or nothing if that would be more than the job may delete.
func (r *Runner) remove(dir *os.Root, root root, name string, j Job, res *Result) *Error {
	left := int64(-1)
	if j.MaxDelete != Unlimited {
		left = max(int64(j.MaxDelete)-res.Deleted, 0)
	}
	found, err := tree(dir, name, left, nil)
	if errors.Is(err, errTooMany) {
		return bad(MaxDelete, fmt.Errorf("%.300q was not deleted: %w (%d)", join(root.link, name), err, j.MaxDelete))
	}
	if err == nil {
		err = dir.RemoveAll(name)
	}
	if err != nil {
		kind := Other
		if errors.Is(err, fs.ErrPermission) {
			kind = Permission
		}
		return &Error{Class: Partial, Code: -1, Paths: []PathError{{Path: join(root.link, name), Kind: kind, Local: true, Text: err.Error()}}}
	}
	a := attempt{job: j, part: part{root: root}, res: res}
	for _, it := range slices.Backward(found) {
		it.Path = join(root.link, it.Path)
		a.item(it)
	}
	return nil
}

// tree appends an item for name and each thing below, at most limit; -1 means no limit. (io/fs walks no names that are not UTF-8.)
func tree(dir *os.Root, name string, limit int64, found []Item) ([]Item, error) {
	info, err := dir.Lstat(name)
	if err != nil {
		return found, err
	}
	if limit >= 0 && int64(len(found)) >= limit {
		return found, errTooMany
	}
	found = append(found, Item{Op: Deleted, Path: name, Dir: info.IsDir(), Change: "*deleting"})
	if !info.IsDir() {
		return found, nil
	}
	d, err := dir.Open(name)
	if err != nil {
		return found, err
	}
	names, err := d.Readdirnames(-1)
	if err = errors.Join(err, d.Close()); err != nil {
		return found, err
	}
	for _, n := range names {
		if found, err = tree(dir, join(name, n), limit, found); err != nil {
			return found, err
		}
	}
	return found, nil
}

var errTooMany = errors.New("more than may be deleted")

// settleParents gives the directories that lost something the upstream's times and permissions again.
func (r *Runner) settleParents(ctx context.Context, root root, parents []string, lock *os.File, res *Result) *Error {
	parents = slices.DeleteFunc(parents, func(p string) bool { return p == "" })
	if len(parents) == 0 {
		return nil
	}
	var failed *Error
	for _, part := range cut(root, Job{Mode: Content, Paths: parents}) {
		e := r.attempt(ctx, Job{Mode: Content}, part, lock, res)
		if e != nil && gravity[e.Class] > 0 {
			e = e.without(NotFound) // a parent that is missing upstream is somebody else's deletion
		}
		failed = failed.merge(e)
	}
	return failed
}

// without returns the error without the paths of one kind, nil if none is left.
func (e *Error) without(k Kind) *Error {
	e.Paths = slices.DeleteFunc(e.Paths, func(p PathError) bool { return p.Kind == k })
	if len(e.Paths) == 0 {
		return nil
	}
	return e
}
