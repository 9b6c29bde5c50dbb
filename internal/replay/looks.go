package replay

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"syscall"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
)

// indexes reads each index of the mirror and looks for what it names (I3). A reader who finds a file missing reads the index again: if it is
// another one by now, it begins anew; if it is the same, the mirror has shown what it does not have.
func (x *watcher) indexes(m *watched) error {
	tops, err := filepath.Glob(filepath.Join(m.Tree, Repos, "*", "repodata", "repomd.xml"))
	if err != nil {
		return err
	}
	for _, top := range tops {
		for range 20 {
			text, err := os.ReadFile(top)
			if errors.Is(err, fs.ErrNotExist) {
				break
			}
			if err != nil {
				return err
			}
			x.Indexes++
			wrong, err := x.complete(filepath.Dir(filepath.Dir(top)), text, 2)
			if err != nil {
				return err
			}
			if wrong == "" {
				break
			}
			if again, err := os.ReadFile(top); err == nil && bytes.Equal(again, text) {
				x.violation("I3", m, "%s: %s", top, wrong)
				break
			}
		}
	}
	return nil
}

// complete looks for what an index names, and for what that names in turn, and says what is not as named.
func (x *watcher) complete(repo string, index []byte, depth int) (string, error) {
	named, err := ParseIndex(index)
	if err != nil {
		return err.Error(), nil
	}
	read := x.rng.IntN(max(len(named), 1)) // of many one is read
	for i, n := range named {
		x.Named++
		file := filepath.Join(repo, n.Path)
		info, err := os.Lstat(file)
		switch {
		case gone(err):
			return n.Path + " is missing", nil
		case err != nil:
			return "", err
		case info.Size() != n.Size:
			return fmt.Sprintf("%s has %d bytes, not %d", n.Path, info.Size(), n.Size), nil
		case i != read:
			continue
		}
		text, err := os.ReadFile(file)
		if gone(err) {
			return n.Path + " is missing", nil
		}
		if err != nil {
			return "", err
		}
		x.Sums++
		if fmt.Sprintf("%x", sha256.Sum256(text)) != n.Sum {
			return n.Path + " has another digest", nil
		}
		if depth > 1 {
			if wrong, err := x.complete(repo, text, depth-1); wrong != "" || err != nil {
				return wrong, err
			}
		}
	}
	return "", nil
}

func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) }

// An entry is what was at a path when it was looked at.
type entry struct {
	fact  Fact
	since int // claims that the mirror had dealt with then: later ones may change it
}

// perRound is about how many names are compared in a round and mirror.
const perRound = 3000

// drift compares a part of the tree with what was there at the last turn: what differs must have been announced since (I2).
func (x *watcher) drift(ctx context.Context, m *watched) error {
	since := x.claims.dealt(m.applied)
	if len(m.todo) == 0 {
		m.todo = []string{"."}
	}
	for left := perRound; left > 0 && len(m.todo) > 0; {
		dir := m.todo[len(m.todo)-1]
		m.todo = m.todo[:len(m.todo)-1]
		n, err := x.driftIn(ctx, m, dir, since)
		if err != nil {
			return err
		}
		left -= n + 1
	}
	if len(m.todo) == 0 {
		m.turns++
	}
	return nil
}

func (x *watcher) driftIn(ctx context.Context, m *watched, dir string, since int) (int, error) {
	entries, err := os.ReadDir(filepath.Join(m.Tree, dir))
	if gone(err) {
		return 0, nil // its parent tells
	}
	if err != nil {
		return 0, err
	}
	before, known := m.dirs[dir]
	now := make(map[string]entry, len(entries))
	for _, e := range entries {
		p := path.Join(dir, e.Name())
		if p == event.ExportDir || e.Name() == ".~tmp~" {
			continue
		}
		f, err := FactOf(filepath.Join(m.Tree, p))
		if err != nil {
			return 0, err
		}
		if f == (Fact{}) {
			continue
		}
		x.Paths++
		now[e.Name()] = entry{f, since}
		if was := before[e.Name()]; was.fact != f && (known || m.turns > 0) {
			if err := x.explained(ctx, m, p, was, f); err != nil {
				return 0, err
			}
		}
		if f.kind() == event.ModeDir {
			m.todo = append(m.todo, p)
		}
	}
	for name, was := range before {
		if _, there := now[name]; there {
			continue
		}
		p := path.Join(dir, name)
		if err := x.explained(ctx, m, p, was, Fact{}); err != nil {
			return 0, err
		}
		m.forget(p)
	}
	m.dirs[dir] = now
	return len(entries), nil
}

// explained makes sure that a change was announced. The claims are read after the change was seen: it cannot come before what announces it. Only the export
// of that may come later.
func (x *watcher) explained(ctx context.Context, m *watched, p string, was entry, is Fact) error {
	x.Changes++
	for late := time.Now().Add(exportTime); ; {
		if err := x.claims.read(); err != nil {
			return err
		}
		if x.claims.covers(p, was.since, len(m.Filter) > 0) {
			return nil
		}
		if x.claims.exported == "" || time.Now().After(late) || ctx.Err() != nil {
			x.violation("I2", m, "%q was %+v and is %+v, and nothing since claim %d of %d says so", p, was.fact, is, was.since, len(x.claims.list))
			return nil
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// forget drops what is known of a directory and of those below.
func (m *watched) forget(dir string) {
	for name, e := range m.dirs[dir] {
		if e.fact.kind() == event.ModeDir {
			m.forget(path.Join(dir, name))
		}
	}
	delete(m.dirs, dir)
}

// perProof is how many names are looked for in a round and mirror.
const perProof = 30

// proofs looks whether what a mirror says it has applied is on its disk (I5): names of announcements up to that serial, unless a later one speaks of
// them or the master has changed them since without a word.
func (x *watcher) proofs(m *watched) error {
	if len(x.claims.paths) == 0 {
		return nil
	}
	dealt := x.claims.dealt(max(m.applied, m.reported))
	for range perProof {
		p := x.claims.paths[x.rng.IntN(len(x.claims.paths))]
		if x.claims.last[p].at >= dealt {
			continue
		}
		if ok, err := x.proof(m, p); err != nil || ok {
			if err != nil {
				return err
			}
			continue
		}
		if err := x.claims.read(); err != nil { // it may have been spoken of while we looked
			return err
		}
		if ok, err := x.proof(m, p); err != nil {
			return err
		} else if !ok {
			is, _ := FactOf(filepath.Join(m.Tree, p)) //nolint:errcheck // for the words
			x.violation("I5", m, "says it has serial %d, and %q is %+v, not %+v", max(m.applied, m.reported), p, is, x.claims.last[p].fact)
		}
	}
	return nil
}

// proof tells whether a path is on the mirror as was said last, as far as that can be told.
func (x *watcher) proof(m *watched, p string) (bool, error) {
	said := x.claims.last[p]
	want := said.fact
	isDir := want.kind() == event.ModeDir
	if want.kind() == event.ModeLink || len(m.Filter) > 0 && (want == Fact{} || !m.rules.Included(p, isDir)) || x.claims.within(p, said.at+1) {
		return true, nil
	}
	master, err := FactOf(filepath.Join(x.master, p))
	if err != nil || isDir && master.kind() != want.kind() || !isDir && !same(master, want) {
		return true, err
	}
	x.Proofs++
	is, err := FactOf(filepath.Join(m.Tree, p))
	return is.kind() == want.kind() && (isDir || same(is, want)), err
}

// same compares what does not depend on permissions.
func same(a, b Fact) bool { return a.kind() == b.kind() && a.Size == b.Size && a.MTime == b.MTime }
