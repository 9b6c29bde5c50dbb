package bench_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/mirrorbus/mirrorbus/listener/rsync"
)

// changes is line 1: 1, 100 and 10,000 paths are written in a small module and in a large one. Announced is when the call that announces them is
// made, which is when by hand rsync would be started; applied is when the hub has the mirror's signed report; visible is when the last path is
// on the mirror.
func (b *bench) changes() error {
	for _, files := range []int{b.small, b.big} {
		s, err := b.siteOf(files)
		if err != nil {
			return err
		}
		if err := s.changes(files, ""); err != nil {
			return err
		}
	}
	s := b.sites[b.small]
	if err := s.receiveInTree(); err != nil {
		return err
	}
	return s.changes(b.small, ", temp_dir in the tree")
}

// changes measures changes of each number of paths.
func (s *site) changes(files int, how string) error {
	for _, n := range s.b.changed {
		if n > files {
			continue
		}
		if err := s.change(n, files, how); err != nil {
			return fmt.Errorf("%d of %d files: %w", n, files, err)
		}
	}
	return nil
}

// receiveInTree starts the mirror's agent anew with its temporary folder in the tree, which is the shorter way for rsync.
func (s *site) receiveInTree() error {
	m := s.mirrors[0]
	conf, err := os.ReadFile(m.config())
	if err != nil {
		return err
	}
	conf = bytes.Replace(conf, []byte("[[module]]\n"), fmt.Appendf(nil, "[[module]]\ntemp_dir = %q\n", filepath.Join(m.tree, rsync.TempPrefix)), 1)
	m.agent.end(syscall.SIGTERM)
	if err := os.WriteFile(m.config(), conf, 0o600); err != nil {
		return err
	}
	return s.startAgents()
}

// A taken is what each side took, round by round.
type taken struct{ applied, visible, returned, floor, full []time.Duration }

// rounds of a full rsync: fewer where each takes long.
func (b *bench) fullRounds(files int) int {
	if files > 100_000 {
		return min(b.rounds, 3)
	}
	return b.rounds
}

func (s *site) change(n, files int, how string) error {
	b, names := s.b, some(n, files)
	var took taken
	for round := range b.rounds + 1 {
		if round == 1 {
			took = taken{} // the first fills caches
		}
		if err := s.byBus(names, &took); err != nil {
			return err
		}
		err := s.timed(names, &took.floor, func() error { return s.floor(names, "-a") })
		if err == nil && round <= b.fullRounds(files) {
			err = s.timed(names, &took.full, func() error { return s.full(s.copy) })
		}
		if err != nil {
			return err
		}
	}
	what, floor := fmt.Sprintf("%d of %d files%s", n, files, how), median(took.floor)
	aim := 1.3*floor + 0.030
	b.add(row{line: "1", what: what + ", announced to applied", ours: median(took.applied), against: "rsync of these names by hand", theirs: floor, aim: aim, rounds: len(took.floor)})
	b.add(row{line: "1", what: what + ", announced to visible", ours: median(took.visible), against: "the same", theirs: floor, rounds: len(took.floor)})
	b.add(row{line: "1", what: what + ", announced to applied", ours: median(took.applied), against: "full rsync", theirs: median(took.full), rounds: len(took.full)})
	say("  publish returned after %.3g ms", 1e3*median(took.returned))
	return nil
}

// byBus changes the files and announces them.
func (s *site) byBus(names []string, took *taken) error {
	if err := s.rewrite(names); err != nil {
		return err
	}
	type seen struct {
		at  time.Time
		err error
	}
	visible := make(chan seen, 1)
	start := time.Now()
	go func() {
		at, err := s.same(s.b.ctx, s.mirrors[0], names[len(names)-1])
		visible <- seen{at, err}
	}()
	p, err := s.publish(false, written(names))
	returned := time.Now()
	if err != nil {
		return err
	}
	if _, err := s.applied(p); err != nil {
		return err
	}
	applied := time.Now()
	v := <-visible
	took.returned, took.applied = append(took.returned, returned.Sub(start)), append(took.applied, applied.Sub(start))
	took.visible = append(took.visible, v.at.Sub(start))
	return v.err
}

// timed changes the files and times f.
func (s *site) timed(names []string, took *[]time.Duration, f func() error) error {
	if err := s.rewrite(names); err != nil {
		return err
	}
	start := time.Now()
	err := f()
	*took = append(*took, time.Since(start))
	if err != nil {
		return err
	}
	last := names[len(names)-1]
	got, err := os.Lstat(filepath.Join(s.copy, last))
	if err == nil && !got.ModTime().Equal(s.second) {
		err = errors.New("the run by hand did not bring it")
	}
	if err != nil {
		return fmt.Errorf("%s: %w", last, err)
	}
	return nil
}
