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

// deleteHere does a Delete without rsync's --delete-missing-args, which some versions of rsync have broken: it asks the upstream which of the
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

// remove removes name and what is below, or nothing if that would be more than the job may delete.
func (r *Runner) remove(dir *os.Root, root root, name string, j Job, res *Result) *Error {
	var found []Item
	err := fs.WalkDir(dir.FS(), name, func(path string, d fs.DirEntry, err error) error {
		if err == nil {
			found = append(found, Item{Op: Deleted, Path: join(root.link, path), Dir: d.IsDir(), Change: "*deleting"})
		}
		if err == nil && j.MaxDelete != Unlimited && res.Deleted+int64(len(found)) > int64(j.MaxDelete) {
			err = errTooMany
		}
		return err
	})
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
		a.item(it)
	}
	return nil
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
