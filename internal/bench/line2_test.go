package bench_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/mirrorbus/mirrorbus/trigger"
)

const flipped = "release"

// flips is line 2: a directory with many entries is shown by changing its mode. Visible is when the mirror's directory has the mode; by hand it is
// rsync of that one entry.
func (b *bench) flips() error {
	s, err := b.newSite("flip", func(tree string) error { return b.makeCrowd(filepath.Join(tree, flipped)) })
	if err != nil {
		return err
	}
	if _, err = s.enrol("mirror"); err == nil {
		err = s.full(s.copy)
	}
	if err == nil {
		err = s.startAgents()
	}
	if err == nil {
		err = s.timeFlips()
	}
	if err == nil {
		err = s.countFlips()
	}
	return err
}

func (b *bench) makeCrowd(dir string) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	for i := range b.crowd {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("package-%06d.rpm", i)), nil, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// turn changes the mode on the master.
func (s *site) turn(round int) error {
	return os.Chmod(s.at(flipped), os.FileMode([]int{0o755, 0o750}[round%2]))
}

// flip announces it, and returns how long until it was visible and until the hub knew so.
func (s *site) flip() (visible, applied time.Duration, err error) {
	start := time.Now()
	p, err := s.publish(true, []trigger.Name{{Path: flipped}})
	if err != nil {
		return 0, 0, err
	}
	at, err := s.same(s.b.ctx, s.mirrors[0], flipped)
	if err == nil {
		_, err = s.applied(p)
	}
	return at.Sub(start), time.Since(start), err
}

func (s *site) byHand() error { return s.floor([]string{flipped}, "-p", "--existing") }

func (s *site) timeFlips() error {
	var visible, applied, floor, full []time.Duration
	for round := range s.b.rounds {
		if err := s.turn(2 * round); err != nil {
			return err
		}
		v, a, err := s.flip()
		if err != nil {
			return err
		}
		start := time.Now()
		err = s.byHand()
		floor = append(floor, time.Since(start))
		if err = errors.Join(err, s.turn(2*round+1)); err != nil {
			return err
		}
		start = time.Now()
		err = s.full(s.copy)
		full = append(full, time.Since(start))
		visible, applied = append(visible, v), append(applied, a)
		if err != nil {
			return err
		}
		if _, _, err := s.flip(); err != nil { // back, as the master is now
			return err
		}
	}
	what, n := fmt.Sprintf("flip of a directory of %d, ", s.b.crowd), len(floor)
	s.b.add(row{line: "2", what: what + "announced to visible", ours: median(visible), against: "rsync of that entry by hand", theirs: median(floor), rounds: n})
	s.b.add(row{line: "2", what: what + "announced to applied", ours: median(applied), against: "the same", theirs: median(floor), aim: 1.3*median(floor) + 0.030, rounds: n})
	s.b.add(row{line: "2", what: what + "announced to visible", ours: median(visible), against: "full rsync", theirs: median(full), rounds: n})
	return nil
}

// countFlips counts the system calls of the rsync daemon during a flip, and during the one second after it in which an agent might ask for more.
func (s *site) countFlips() error {
	trace := func(f func() error) (float64, error) {
		lines, err := s.b.traced(s.rsyncd.PID(), f)
		return float64(len(lines)), err
	}
	if err := s.turn(0); err != nil {
		return err
	}
	visible, err := trace(func() error { _, _, err := s.flip(); return err })
	if err != nil {
		return err
	}
	if err := s.turn(1); err != nil {
		return err
	}
	later, err := trace(func() error {
		_, _, err := s.flip()
		return errors.Join(err, s.b.sleep(time.Second))
	})
	if err != nil {
		return err
	}
	hand, err := trace(s.byHand)
	if err != nil {
		return err
	}
	full, err := trace(func() error { return s.full(s.copy) })
	what := "flip: system calls of the rsync daemon"
	s.b.add(row{line: "2", what: what, ours: visible, against: "rsync of that entry by hand", theirs: hand, unit: count, rounds: 1})
	s.b.add(row{line: "2", what: what + ", and one second on", ours: later, against: "full rsync", theirs: full, unit: count, rounds: 1})
	return err
}
