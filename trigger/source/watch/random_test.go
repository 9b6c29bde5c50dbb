package watch

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// A mess changes a tree at random.
type mess struct {
	*rig
	rng *rand.Rand
}

// A tree that is changed at random, while it is watched, is known in the end as it is: by events alone, whatever came between what.
func TestRandomChanges(t *testing.T) {
	onEach(t, func(t *testing.T, backend string) {
		for seed := range uint64(2) {
			r := newRig(t)
			r.fill("pool", 4, 4)
			r.watch(Options{Backend: backend, Timing: Timing{Quiet: 3 * time.Millisecond, HotAfter: 1_000_000}})
			m := mess{r, rand.New(rand.NewPCG(seed, 1))}
			_, before := r.m.times()
			for round := range 3 {
				for range 200 {
					m.change()
				}
				r.sync()
				if err := r.m.differs(everyName); err != nil {
					t.Fatalf("seed %d, round %d:\n%v", seed, round, err)
				}
			}
			if _, scans := r.m.times(); scans != before {
				t.Errorf("seed %d: %d scans", seed, scans-before)
			}
			if err := r.stop(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// some is a path that is there, or "".
func (m mess) some(dirs bool) string {
	var all []string
	m.must(filepath.WalkDir(m.root, func(full string, d fs.DirEntry, err error) error {
		if err == nil && full != m.root && d.IsDir() == dirs {
			all = append(all, full[len(m.root)+1:])
		}
		return err
	}))
	if len(all) == 0 {
		return ""
	}
	return all[m.rng.IntN(len(all))]
}

// fresh is a path in some directory, perhaps one that is there.
func (m mess) fresh() string {
	return path.Join(m.some(true), fmt.Sprintf("%c", 'a'+m.rng.IntN(6)))
}

// linked tells whether a file has several names. A change through one that goes at once is for whoever knows the others to find.
func (m mess) linked(path string) bool {
	fi, err := os.Lstat(m.path(path))
	return err == nil && !fi.IsDir() && fi.Sys().(*syscall.Stat_t).Nlink > 1
}

// change makes one change. What cannot be, since something is in its way, is left.
func (m mess) change() {
	var err error
	switch at := m.fresh(); m.rng.IntN(11) {
	case 0, 1:
		if m.linked(at) {
			return
		}
		err = os.WriteFile(m.path(at), fmt.Append(nil, m.rng.Int()), 0o644)
	case 2:
		err = os.MkdirAll(m.path(at), 0o755)
	case 3:
		if d := m.some(true); d != "" {
			err = os.Rename(m.path(d), m.path(at))
		}
	case 4:
		if f := m.some(false); f != "" {
			err = os.Rename(m.path(f), m.path(at))
		}
	case 5:
		if f := m.some(false); f != "" {
			err = os.Link(m.path(f), m.path(at))
		}
	case 6:
		if m.rng.IntN(3) == 0 {
			err = os.RemoveAll(m.path(at))
		}
	case 7:
		if f := m.some(false); f != "" {
			err = os.Remove(m.path(f))
		}
	case 8:
		if p := m.some(m.rng.IntN(2) == 0); p != "" && !m.linked(p) {
			err = os.Chmod(m.path(p), fs.FileMode(0o700|m.rng.IntN(0o100)))
		}
	case 9:
		away := filepath.Join(m.outside, fmt.Sprint(m.rng.IntN(3)))
		if d := m.some(true); d != "" && m.rng.IntN(2) == 0 {
			err = os.Rename(m.path(d), away)
		} else {
			err = os.Rename(away, m.path(at))
		}
	case 10:
		err = errors.Join(os.MkdirAll(m.path(at+"/x/y"), 0o755), os.WriteFile(m.path(at+"/x/y/z"), nil, 0o644))
	}
	_ = err // nothing can be done about what is in the way
}
