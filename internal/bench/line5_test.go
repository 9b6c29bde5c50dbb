package bench_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/mirrorbus/mirrorbus/trigger"
	"github.com/mirrorbus/mirrorbus/trigger/manifest"
)

// patience is when no further round of what takes minutes is begun.
const patience = 30 * time.Minute

// everything is line 5: every path of the large module gets another time and each is announced by its name; and what the manifest of that module
// costs, beside find -printf, which makes the lists that are used today.
func (b *bench) everything() error {
	s, err := b.siteOf(b.big)
	if err != nil {
		return err
	}
	names := make([]trigger.Name, b.big)
	for i := range names {
		names[i] = trigger.Name{Path: name(i)}
	}
	var took allTaken
	for start := time.Now(); len(took.applied) < b.rounds && time.Since(start) < patience; {
		if err := s.announceAll(names, &took); err != nil {
			return err
		}
	}
	what, n := fmt.Sprintf("change of all %d files, each named: ", b.big), len(took.applied)
	b.add(row{line: "5", what: what + "announced to applied", ours: median(took.applied), against: "full rsync", theirs: median(took.full), rounds: n})
	b.add(row{line: "5", what: what + "the call alone", ours: median(took.returned), rounds: n})
	b.add(row{line: "5", what: what + "peak memory of the agent", ours: median(took.agent), against: "rsync's client", theirs: median(took.rsync), unit: byteCount, rounds: n})
	b.add(row{line: "5", what: what + "peak memory of the hub", ours: median(took.hub), unit: byteCount, rounds: n})
	return b.manifest(s.tree)
}

type allTaken struct {
	returned, applied, full []time.Duration
	hub, agent, rsync       []float64
}

// touchAll gives every file a new time.
func (s *site) touchAll() error {
	now := time.Now()
	for i := range s.b.big {
		if err := os.Chtimes(s.at(name(i)), now, now); err != nil {
			return err
		}
	}
	return nil
}

func (s *site) announceAll(names []trigger.Name, took *allTaken) error {
	agent := s.mirrors[0].agent
	if err := errors.Join(s.touchAll(), resetPeak(s.hub.pid()), resetPeak(agent.pid())); err != nil {
		return err
	}
	start := time.Now()
	p, err := s.publish(false, names)
	if err != nil {
		return err
	}
	returned := time.Since(start)
	if _, err := s.applied(p); err != nil {
		return err
	}
	took.returned, took.applied = append(took.returned, returned), append(took.applied, time.Since(start))
	for pid, of := range map[int]*[]float64{s.hub.pid(): &took.hub, agent.pid(): &took.agent} {
		peak, err := status(pid, "VmHWM")
		if err != nil {
			return err
		}
		*of = append(*of, peak)
	}
	cmd := exec.CommandContext(s.b.ctx, "rsync", "-a", "--delete", "--exclude=/.mirrorbus/", s.url(), s.copy+"/")
	start = time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("full rsync: %w: %s", err, out)
	}
	took.full = append(took.full, time.Since(start))
	took.rsync = append(took.rsync, float64(cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss)*1024)
	return nil
}

// manifest builds the manifest of a tree, and looks paths up in it.
func (b *bench) manifest(tree string) (err error) {
	m, err := manifest.Open(b.ctx, filepath.Join(b.TempDir(), "manifest.db"), module, manifest.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	var build, find, lookup, scan []time.Duration
	var list []byte
	for range b.rounds {
		start := time.Now()
		if _, err := m.Build(b.ctx, tree, "0123abcd", 0, nil); err != nil {
			return err
		}
		build = append(build, time.Since(start))
		start = time.Now()
		out, err := b.output("", "find", tree, "-printf", `%m %s %T@ %P\0`)
		if err != nil {
			return err
		}
		find, list = append(find, time.Since(start)), []byte(out)
		l, s, err := b.lookups(m, list)
		if err != nil {
			return err
		}
		lookup, scan = append(lookup, l), append(scan, s)
	}
	size, err := m.Size(b.ctx)
	what := fmt.Sprintf("manifest of %d files: ", b.big)
	b.add(row{line: "5", what: what + "build", ours: median(build), against: "find -printf", theirs: median(find), rounds: len(build)})
	b.add(row{line: "5", what: what + "size", ours: float64(size), against: "find's list", theirs: float64(len(list)), unit: byteCount, rounds: 1})
	b.add(row{line: "5", what: what + "look one path up", ours: median(lookup), against: "search find's list in memory", theirs: median(scan), rounds: len(lookup)})
	return err
}

// lookups returns what one look-up takes, on the average of some.
func (b *bench) lookups(m *manifest.Manifest, list []byte) (ours, theirs time.Duration, err error) {
	const many, few = 2000, 20
	start := time.Now()
	for range many {
		path := name(rand.IntN(b.big))
		if _, ok, err := m.Get(b.ctx, path); err != nil || !ok {
			return 0, 0, fmt.Errorf("manifest has no %s: %w", path, err)
		}
	}
	ours = time.Since(start) / many
	start = time.Now()
	for range few {
		if path := name(rand.IntN(b.big)); !bytes.Contains(list, []byte(" "+path+"\x00")) {
			return 0, 0, fmt.Errorf("find lists no %s", path)
		}
	}
	return ours, time.Since(start) / few, nil
}
