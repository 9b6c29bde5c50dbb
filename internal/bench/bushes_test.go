package bench_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// filesPerBush is how many files are in each directory of a tree of bushes: few, since it is directories that make watchers work.
const filesPerBush = 10

// makeBushes makes a tree of so many files.
func makeBushes(ctx context.Context, root string, files int) error {
	for i := range files {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		path := filepath.Join(root, bush(i/filesPerBush), fmt.Sprint(i%filesPerBush))
		if i%filesPerBush == 0 {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				return err
			}
		}
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// bush is the path of a directory of such a tree.
func bush(n int) string { return fmt.Sprintf("pool/%03d/%03d", n/1000, n%1000) }

// A bushChange is one kind of change of a tree of bushes.
type bushChange struct {
	name string
	// do makes it, and returns what tells whether a target has it, and what rsync by hand would have to be told: the topmost names that came or changed,
	// and those that went.
	do func(s *site, target, id string, round int) (done func() bool, came, went []string, err error)
}

// bushChanges are made one after the other: the last ones work on what the ones before made.
func bushChanges(b *bench) []bushChange {
	many, files := min(1000, b.big), min(10_000, b.big)
	return []bushChange{
		{"a file written", func(s *site, target, id string, round int) (func() bool, []string, []string, error) {
			path := filepath.Join(bush(round%max(b.big/filesPerBush, 1)), "0")
			err := os.WriteFile(s.at(path), []byte(id), 0o644)
			return func() bool { return alike(s.at(path), filepath.Join(target, path)) }, []string{path}, nil, err
		}},
		{fmt.Sprintf("%d new files", many), func(s *site, target, id string, _ int) (func() bool, []string, []string, error) {
			return s.fillWith(target, "k1-"+id, 1, many)
		}},
		{fmt.Sprintf("%d files in new directories", files), func(s *site, target, id string, _ int) (func() bool, []string, []string, error) {
			return s.fillWith(target, "k10-"+id, max(files/10, 1), 10)
		}},
		{"chmod of all that", func(s *site, target, id string, _ int) (func() bool, []string, []string, error) {
			return s.chmodAll(target, "k10-"+id)
		}},
		{"that directory renamed", func(s *site, target, id string, _ int) (func() bool, []string, []string, error) {
			from, to := "k10-"+id, "moved-"+id
			all := countBelow(s.at(from))
			err := os.Rename(s.at(from), s.at(to))
			old, dir := filepath.Join(target, from), filepath.Join(target, to)
			return func() bool { return missing(old) && !missing(filepath.Join(dir, "0/0")) && countBelow(dir) == all }, []string{to}, []string{from}, err
		}},
		{"and removed", func(s *site, target, id string, _ int) (func() bool, []string, []string, error) {
			dir := "moved-" + id
			return func() bool { return missing(filepath.Join(target, dir)) }, nil, []string{dir}, os.RemoveAll(s.at(dir))
		}},
	}
}

// fillWith makes files below dir.
func (s *site) fillWith(target, dir string, dirs, each int) (done func() bool, came, went []string, err error) {
	for d := range dirs {
		sub := filepath.Join(dir, fmt.Sprint(d))
		if err := os.MkdirAll(s.at(sub), 0o755); err != nil {
			return nil, nil, nil, err
		}
		for f := range each {
			if err := os.WriteFile(s.at(filepath.Join(sub, fmt.Sprint(f))), []byte("content"), 0o644); err != nil {
				return nil, nil, nil, err
			}
		}
	}
	last := filepath.Join(target, dir, fmt.Sprint(dirs-1), fmt.Sprint(each-1))
	done = func() bool { return !missing(last) && countBelow(filepath.Join(target, dir)) == dirs*(each+1) }
	return done, []string{dir}, nil, nil
}

// The modes that chmodAll gives: with the right to write for the group, which nothing else has.
const (
	newFileMode = 0o660
	newDirMode  = 0o775
)

// chmodAll changes the mode of everything below dir, and its own.
func (s *site) chmodAll(target, dir string) (done func() bool, came, went []string, err error) {
	var last string
	all := 0
	err = filepath.WalkDir(s.at(dir), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		all++
		mode := fs.FileMode(newFileMode)
		if d.IsDir() {
			mode = newDirMode
		} else {
			last = path[len(s.tree)+1:]
		}
		return os.Chmod(path, mode)
	})
	done = func() bool {
		return groupWrites(filepath.Join(target, last)) && countWhere(filepath.Join(target, dir), groupWrites) == all
	}
	return done, []string{dir}, nil, err
}

func groupWrites(path string) bool {
	fi, err := os.Lstat(path)
	return err == nil && fi.Mode().Perm()&0o022 == 0o020
}

// countBelow is how many names are below dir, except for what is being received.
func countBelow(dir string) int {
	return countWhere(dir, func(path string) bool { return path != dir && filepath.Base(path)[0] != '.' })
}

// countWhere is how many paths from dir on are as is says.
func countWhere(dir string, is func(path string) bool) (n int) {
	filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error { //nolint:errcheck // what is not there does not count
		if err == nil && is(path) {
			n++
		}
		return nil
	})
	return n
}

func missing(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist)
}

func alike(a, b string) bool {
	x, err := os.ReadFile(a)
	y, err2 := os.ReadFile(b)
	return err == nil && err2 == nil && string(x) == string(y)
}
