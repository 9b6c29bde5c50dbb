package bench_test

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const filesWhenIdle = 2000

// nothing is line 3: many agents, each a process of its own, are subscribed and nothing changes. Starts of rsync are opens of its program file, of
// which only the bench has this copy. The hub's calls that name the module's tree are counted by strace, those on .mirrorbus/ left out, which
// the hub writes.
func (b *bench) nothing() error {
	s, err := b.newSite("idle", func(tree string) error { return makeTree(b.ctx, tree, filesWhenIdle) })
	if err != nil {
		return err
	}
	for i := range b.agents {
		if _, err := s.enrol(fmt.Sprint("mirror-", i)); err != nil {
			return err
		}
	}
	if err = s.full(s.copy); err == nil {
		err = s.startAgents()
	}
	if err != nil {
		return err
	}
	binary, err := exec.LookPath("rsync")
	if err != nil {
		return err
	}
	door, err := watch(binary)
	if err != nil {
		return err
	}
	defer door.close() //nolint:errcheck // nothing was written
	if err := s.quiet(door); err != nil {
		return err
	}
	return s.countIdle(door)
}

// quiet waits until the agents have looked at all that they look at when they have just come.
func (s *site) quiet(door *doorman) error {
	const still, bound = 5 * time.Second, 3 * time.Minute
	for start := time.Now(); time.Since(start) < bound; {
		if err := s.b.sleep(min(still, s.b.idle)); err != nil {
			return err
		}
		if n, err := door.opened(); n == 0 || err != nil {
			return err
		}
	}
	return fmt.Errorf("the agents still started rsync after %s without news", bound)
}

func (s *site) countIdle(door *doorman) error {
	b := s.b
	cpuBefore, err := s.agentsCPU()
	if err != nil {
		return err
	}
	idle, err := b.traced(s.hub.pid(), func() error { return b.sleep(b.idle) }, "-y", "-e", "trace=%file,%desc")
	if err != nil {
		return err
	}
	cpuAfter, err := s.agentsCPU()
	if err != nil {
		return err
	}
	starts, err := door.opened()
	if err != nil {
		return err
	}
	null, err := b.traced(s.rsyncd.PID(), func() error { return s.full(s.copy) }, "-e", "trace=%file,getdents64")
	if err != nil {
		return err
	}
	nullStarts, err := door.opened()
	if err != nil {
		return err
	}
	what := fmt.Sprintf("%d agents, %s without changes: ", b.agents, b.idle)
	b.add(row{line: "3", what: what + "starts of rsync", ours: float64(starts), against: "one null rsync", theirs: float64(nullStarts), unit: count, rounds: 1})
	b.add(row{line: "3", what: what + "file calls of the hub on the module", ours: float64(touching(idle, s.tree)), against: "one null rsync, of " + fmt.Sprint(filesWhenIdle) + " files",
		theirs: float64(len(null)), unit: count, rounds: 1})
	memory, err := s.agentsMemory()
	b.add(row{line: "3", what: what + "CPU of each agent", ours: (cpuAfter - cpuBefore) / float64(b.agents) * 60 / b.idle.Seconds(), unit: cpu, rounds: 1})
	b.add(row{line: "3", what: what + "memory of each agent", ours: memory, unit: byteCount, rounds: 1})
	return err
}

// touching counts the calls that name the tree, or a file in it that is open, outside of the export.
func touching(lines []string, tree string) (n int) {
	export := filepath.Join(tree, ".mirrorbus")
	for _, l := range lines {
		if strings.Contains(strings.ReplaceAll(l, export, ""), tree) {
			n++
		}
	}
	return n
}

func (s *site) agentsCPU() (sum float64, err error) {
	for _, m := range s.mirrors {
		used, err := cpuOf(m.agent.pid())
		if err != nil {
			return 0, err
		}
		sum += used
	}
	return sum, nil
}

// agentsMemory is the median of what the agents hold.
func (s *site) agentsMemory() (float64, error) {
	var all []float64
	for _, m := range s.mirrors {
		held, err := status(m.agent.pid(), "VmRSS")
		if err != nil {
			return 0, err
		}
		all = append(all, held)
	}
	return median(all), nil
}
