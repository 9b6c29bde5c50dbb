package rsync

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/mirrorbus/mirrorbus/event"
)

// A Captured is a path that was set aside.
type Captured struct {
	Path string
	Info fs.FileInfo  // by lstat
	Sum  event.Digest // SHA-256 of the content, if the job asked for it
}

// captured tells what is set aside of the named paths. What the upstream does not have any more is removed there.
func (r *Runner) captured(j Job, p planned, failed *Error, res *Result) *Error {
	gone := map[string]bool{}
	if failed != nil {
		for _, path := range failed.Paths {
			gone[path.Path] = !path.Local
		}
	}
	for _, part := range p.parts {
		dir, err := os.OpenRoot(part.root.aside())
		if err != nil {
			return bad(Permanent, err)
		}
		for _, name := range part.names {
			c, err := capturedOne(dir, name, join(part.root.link, name), gone, j.Sums)
			if err != nil {
				return bad(Permanent, errors.Join(fmt.Errorf("what was set aside: %w", err), dir.Close()))
			}
			if c.Info != nil {
				res.Captured = append(res.Captured, c)
			}
		}
		if err := dir.Close(); err != nil {
			return bad(Permanent, err)
		}
	}
	return nil
}

func capturedOne(dir *os.Root, name, path string, gone map[string]bool, sums func(string) bool) (c Captured, err error) {
	if gone[path] {
		if err := dir.RemoveAll(name); !isNotDir(err) { // what is above it may be a file now
			return c, err
		}
		return c, nil
	}
	c.Path = path
	c.Info, err = dir.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) || isNotDir(err) {
		return c, nil
	}
	if err == nil && sums != nil && c.Info.Mode().IsRegular() && sums(path) {
		c.Sum, err = digest(dir, name)
	}
	return c, err
}

func digest(dir *os.Root, name string) (event.Digest, error) {
	f, err := dir.Open(name)
	if err != nil {
		return event.Digest{}, err
	}
	h := sha256.New()
	_, err = io.Copy(h, f)
	return event.Digest(h.Sum(nil)), errors.Join(err, f.Close())
}

// discard empties the folders of what was set aside.
func (r *Runner) discard() *Error {
	roots, err := r.roots()
	for _, root := range roots {
		err = errors.Join(err, emptyDir(root.aside()))
	}
	if err != nil {
		return bad(Permanent, fmt.Errorf("discard what was set aside: %w", err))
	}
	return nil
}

// removeNamed does a Remove. All is counted before anything goes.
func (r *Runner) removeNamed(ctx context.Context, j Job, p planned, lock *os.File, res *Result) *Error {
	if j.MaxDelete != Unlimited && len(j.Paths) > j.MaxDelete {
		return bad(MaxDelete, fmt.Errorf("%d names would be removed, at most %d may be", len(j.Paths), j.MaxDelete))
	}
	var failed *Error
	if len(p.refused) > 0 {
		failed = &Error{Class: Partial, Code: -1, Paths: p.refused}
	}
	var parents [][]string
	for _, part := range slices.Backward(p.parts) { // what is in a directory before the directory
		dir, err := os.OpenRoot(part.root.real)
		if err != nil {
			return bad(Permanent, err)
		}
		above := []string{}
		for _, name := range slices.Backward(part.names) {
			e := r.removeOne(dir, part, name, j, res)
			if failed = failed.merge(e); e == nil {
				above = append(above, parent(name))
			}
		}
		if err := dir.Close(); err != nil {
			return bad(Permanent, err)
		}
		parents = append(parents, slices.Compact(slices.Sorted(slices.Values(above))))
	}
	for i, part := range slices.Backward(p.parts) {
		failed = failed.merge(r.settleParents(ctx, part.root, parents[len(parents)-1-i], lock, res))
	}
	return failed
}

func (r *Runner) removeOne(dir *os.Root, p part, name string, j Job, res *Result) *Error {
	path := join(p.root.link, name)
	info, err := dir.Lstat(name)
	if err == nil {
		err = dir.Remove(name)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist) || isNotDir(err):
		return nil
	case errors.Is(err, syscall.ENOTEMPTY):
		res.Notices = append(res.Notices, "not empty, so it stays: "+path)
		return nil
	case err != nil:
		kind := Other
		if errors.Is(err, fs.ErrPermission) {
			kind = Permission
		}
		return &Error{Class: Partial, Code: -1, Paths: []PathError{{Path: path, Kind: kind, Local: true, Text: err.Error()}}}
	}
	a := attempt{job: j, part: p, res: res}
	a.item(Item{Op: Deleted, Path: strings.TrimSuffix(path, "/"), Dir: info.IsDir(), Change: "*deleting"})
	return nil
}
