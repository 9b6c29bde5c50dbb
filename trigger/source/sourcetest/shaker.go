package sourcetest

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// A Shaker changes a tree at random. No two versions of a file have the same size and time, since nobody could tell them apart.
type Shaker struct {
	t    testing.TB
	root string
	rnd  *rand.Rand
	n    int // makes each version another one

	// Touched are the paths that were worked on, those that are as they were among them.
	Touched []string
}

// NewShaker makes a Shaker of the tree at root.
func NewShaker(t testing.TB, root string, rnd *rand.Rand) *Shaker {
	return &Shaker{t: t, root: root, rnd: rnd}
}

var names = []string{"a", "a-b", "a.b", "b", "c d", "e\nf", "caf\xe9", "-r", "#x"}

func (s *Shaker) at(path string) string { return filepath.Join(s.root, path) }

func (s *Shaker) check(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *Shaker) touch(paths ...string) { s.Touched = append(s.Touched, paths...) }

// fresh is a path of one to three names.
func (s *Shaker) fresh() string {
	var parts []string
	for range 1 + s.rnd.IntN(3) {
		parts = append(parts, names[s.rnd.IntN(len(names))])
	}
	return strings.Join(parts, "/")
}

// some is a path that is there and that is accepts, or "".
func (s *Shaker) some(is func(fs.FileMode) bool) string {
	var all []string
	err := filepath.WalkDir(s.root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == s.root {
			return err
		}
		if rel := path[len(s.root)+1:]; rel == ".mirrorbus" {
			return fs.SkipDir
		} else if is(d.Type()) {
			all = append(all, rel)
		}
		return nil
	})
	s.check(err)
	if len(all) == 0 {
		return ""
	}
	return all[s.rnd.IntN(len(all))]
}

func regular(m fs.FileMode) bool { return m.IsRegular() }
func folder(m fs.FileMode) bool  { return m.IsDir() }
func every(fs.FileMode) bool     { return true }

// clear makes room at a path: its parents are there and are directories, it is not there.
func (s *Shaker) clear(path string) {
	for i, c := range path {
		if c != '/' {
			continue
		}
		dir := path[:i]
		info, err := os.Lstat(s.at(dir))
		if err == nil && !info.IsDir() {
			s.check(os.Remove(s.at(dir)))
		}
		if err != nil || !info.IsDir() {
			s.check(os.Mkdir(s.at(dir), 0o755))
			s.touch(dir)
		}
	}
	s.check(os.RemoveAll(s.at(path)))
	s.touch(path)
}

// write writes another version of a file.
func (s *Shaker) write(path string) {
	s.n++
	s.check(os.WriteFile(s.at(path), []byte(strings.Repeat("x", s.n)), 0o644))
	s.touch(path)
}

// Step makes one change.
func (s *Shaker) Step() {
	steps := []func(){s.add, s.add, s.rewrite, s.replace, s.chmod, s.move, s.move, s.remove, s.link, s.symlink, s.mkdir, s.passing, s.date, s.fill, s.fill}
	steps[s.rnd.IntN(len(steps))]()
}

func (s *Shaker) add() {
	path := s.fresh()
	s.clear(path)
	s.write(path)
}

func (s *Shaker) rewrite() {
	if path := s.some(regular); path != "" {
		s.write(path)
	}
}

// replace writes a file under another name and renames it, as rsync and most programs do.
func (s *Shaker) replace() {
	path := s.some(regular)
	if path == "" {
		return
	}
	temp := filepath.Join(filepath.Dir(path), fmt.Sprintf(".new.%d", s.n))
	s.write(temp)
	s.check(os.Rename(s.at(temp), s.at(path)))
	s.touch(path)
}

func (s *Shaker) chmod() {
	path := s.some(func(m fs.FileMode) bool { return m.IsRegular() || m.IsDir() })
	if path == "" {
		return
	}
	info, err := os.Lstat(s.at(path))
	s.check(err)
	modes := []fs.FileMode{0o644, 0o600, 0o640}
	if info.IsDir() {
		modes = []fs.FileMode{0o755, 0o700, 0o750}
	}
	s.check(os.Chmod(s.at(path), modes[s.rnd.IntN(len(modes))]))
	s.touch(path)
}

func (s *Shaker) move() {
	from, to := s.some(every), s.fresh()
	if s.rnd.IntN(2) == 0 {
		if dir := s.some(folder); dir != "" {
			from = dir
		}
	}
	if from == "" || strings.HasPrefix(to+"/", from+"/") || strings.HasPrefix(from+"/", to+"/") {
		return
	}
	s.clear(to)
	if _, err := os.Lstat(s.at(from)); err != nil { // it was in the way
		return
	}
	s.check(os.Rename(s.at(from), s.at(to)))
	s.touch(from)
	s.touchAll(to)
}

// touchAll touches a path and all below it. Where a directory takes another's place, what is below may be as it was.
func (s *Shaker) touchAll(path string) {
	s.check(filepath.WalkDir(s.at(path), func(full string, _ fs.DirEntry, err error) error {
		s.touch(full[len(s.root)+1:])
		return err
	}))
}

func (s *Shaker) remove() {
	if path := s.some(every); path != "" && s.rnd.IntN(2) == 0 {
		s.check(os.RemoveAll(s.at(path)))
		s.touch(path)
	}
}

func (s *Shaker) link() {
	from, to := s.some(regular), s.fresh()
	if from == "" || strings.HasPrefix(from+"/", to+"/") {
		return
	}
	s.clear(to)
	if info, err := os.Lstat(s.at(from)); err == nil && info.Mode().IsRegular() { // it was not in the way
		s.check(os.Link(s.at(from), s.at(to)))
		s.touch(from)
	}
}

func (s *Shaker) symlink() {
	s.n++
	path := s.fresh()
	s.clear(path)
	s.check(os.Symlink(strings.Repeat("t", 1+s.n%200), s.at(path)))
}

func (s *Shaker) mkdir() {
	path := s.fresh()
	s.clear(path)
	s.check(os.Mkdir(s.at(path), 0o755))
}

// passing is a file that comes and goes.
func (s *Shaker) passing() {
	path := filepath.Join(filepath.Dir(s.fresh()), fmt.Sprintf(".tmp.%d", s.n))
	if info, err := os.Lstat(filepath.Dir(s.at(path))); err != nil || !info.IsDir() {
		return
	}
	s.write(path)
	s.check(os.Remove(s.at(path)))
}

func (s *Shaker) date() {
	if path := s.some(regular); path != "" {
		s.n++
		at := time.Unix(1_500_000_000+int64(s.n), 0)
		s.check(os.Chtimes(s.at(path), at, at))
		s.touch(path)
	}
}

// fill makes a directory that holds enough to be known again.
func (s *Shaker) fill() {
	dir := s.fresh()
	s.clear(dir)
	s.check(os.Mkdir(s.at(dir), 0o755))
	for _, name := range slices.Concat(names[:3], []string{"s/x", "s/y"}) {
		path := dir + "/" + name
		s.check(os.MkdirAll(filepath.Dir(s.at(path)), 0o755))
		s.write(path)
	}
	s.touch(dir + "/s")
}
