package bench_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/mirrorbus/mirrorbus/trigger"
)

// A syncer brings what changes in the master's tree to a target: a program that watches the tree or, without one, rsync started by hand.
type syncer struct {
	name   string
	target string
	argv   []string

	started   float64 // seconds until a change that was made at once was there
	memory    float64 // bytes
	took      map[string][]float64
	announced map[string][]float64 // of ours
	never     map[string]bool      // what it has not done in that time
	d         *daemon
}

// seenEvery is how often a change is looked for.
const seenEvery = 2 * time.Millisecond

// live is line 15: trees that are watched. Each program in turn is started on the same tree and sees the same changes. Mirrored is when every path is on the
// target as it is on the master: of mirrorbus, on a mirror behind the rsync daemon; of the others, in a local folder. By hand is rsync from that daemon,
// started when the change is made, of just the names of the directories that came, changed or went.
func (b *bench) live() error {
	s, err := b.newSite("live", func(tree string) error { return makeBushes(b.ctx, tree, b.big) })
	if err == nil {
		_, err = s.enrol("mirror")
	}
	if err == nil {
		err = errors.Join(s.mirrors[0].deletes(), s.hurry(), s.full(s.copy))
	}
	if err == nil {
		err = s.startAgents()
	}
	if err != nil {
		return err
	}
	ours := &syncer{name: "mirrorbus watch", target: s.mirrors[0].tree, argv: []string{b.program, "watch", "-c", s.config(), "-v"}}
	if err := s.measure(ours); err != nil {
		return err
	}
	b.add(row{line: "15", what: fmt.Sprintf("watching %d files starts, to its first change mirrored", b.big), ours: ours.started, rounds: 1})
	for _, c := range bushChanges(b) {
		b.add(row{line: "15", what: c.name + ", changed to announced", ours: median(ours.announced[c.name]), rounds: len(ours.announced[c.name])})
	}
	others, err := s.others()
	if err != nil {
		return err
	}
	for _, o := range others {
		if err := s.measure(o); err != nil {
			return err
		}
		s.compare(ours, o)
	}
	return nil
}

// deletes lets a mirror remove as much as it is told to, without asking.
func (m *mirror) deletes() error {
	conf, err := os.ReadFile(m.config())
	if err != nil {
		return err
	}
	return os.WriteFile(m.config(), bytes.Replace(conf, []byte("[[module]]\n"), []byte("[[module]]\nmax_delete = 10000000\nmax_delete_ratio = 1.0\n"), 1), 0o600)
}

// hurry lets the watcher gather changes for as short a time as makes sense, as the others do.
func (s *site) hurry() error {
	conf, err := os.ReadFile(s.config())
	if err != nil {
		return err
	}
	return os.WriteFile(s.config(), append(conf, "\n[module.watch]\nquiet = \"5ms\"\n"...), 0o600)
}

// others are rsync by hand, and the programs that are installed, at their shortest delays. Each has a copy of the tree.
func (s *site) others() ([]*syncer, error) {
	all := []*syncer{{name: "rsync by hand", target: s.copy}}
	for _, name := range []string{"lsyncd", "clsync"} {
		program, err := exec.LookPath(name)
		if err != nil {
			say("  left out: %s is not installed", name)
			continue
		}
		o := &syncer{name: name, target: s.dir + "." + name}
		if err := errors.Join(os.MkdirAll(o.target, 0o755), s.full(o.target)); err != nil {
			return nil, err
		}
		switch name {
		case "lsyncd":
			conf := filepath.Join(s.dir, "lsyncd.lua")
			text := fmt.Sprintf("settings{nodaemon=true}\nsync{default.rsync, source=%q, target=%q, delay=0, exclude={'/.mirrorbus'}, rsync={archive=true}}\n", s.tree, o.target)
			if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
				return nil, err
			}
			o.argv = []string{program, "-nodaemon", conf}
		case "clsync":
			rules := filepath.Join(s.dir, "clsync.rules")
			if err := os.WriteFile(rules, []byte("-*^\\.mirrorbus\n"), 0o644); err != nil {
				return nil, err
			}
			o.argv = []string{program, "-w0", "-t0", "-T0", "-Mrsyncdirect", "-S", "/usr/bin/rsync", "-R", rules, "-W", s.tree, "-D", o.target,
				"--uid", fmt.Sprint(os.Geteuid()), "--gid", fmt.Sprint(os.Getegid())} // else it becomes nobody, who may not write here
		}
		all = append(all, o)
	}
	return all, nil
}

// compare puts two side by side. The aim is to be before every other watcher; rsync by hand shows what of it is rsync.
func (s *site) compare(ours, other *syncer) {
	add := func(what string, a, b float64, u unit, n int) {
		r := row{line: "15", what: what, ours: a, against: other.name, theirs: b, unit: u, rounds: n}
		if other.argv != nil {
			r.aim = b
		}
		s.b.add(r)
	}
	if other.argv != nil {
		add("started, to its first change mirrored", ours.started, other.started, seconds, 1)
		add("memory of the watcher", ours.memory, other.memory, byteCount, 1)
	}
	for _, c := range bushChanges(s.b) {
		what := c.name + ", changed to mirrored"
		if other.never[c.name] {
			what += " (not in this time)"
		}
		add(what, median(ours.took[c.name]), median(other.took[c.name]), seconds, len(other.took[c.name]))
	}
}

// measure starts a program, if it is one, makes the changes, and ends it.
func (s *site) measure(w *syncer) error {
	w.took, w.announced, w.never = map[string][]float64{}, map[string][]float64{}, map[string]bool{}
	id := "hand"
	if w.argv != nil {
		id = filepath.Base(w.argv[0])
		if err := s.begin(w, "probe-"+id); err != nil {
			return err
		}
		defer w.d.end(syscall.SIGTERM)
	}
	for round := range s.b.rounds {
		for _, c := range bushChanges(s.b) {
			if err := s.one(w, c, fmt.Sprintf("%s-%d", id, round), round); err != nil {
				return fmt.Errorf("%s: %s: %w", w.name, c.name, err)
			}
		}
	}
	if w.d == nil {
		return nil
	}
	most, err := status(w.d.pid(), "VmHWM")
	w.memory = most
	return err
}

// begin starts a program, and waits until a change that is made at once is on its target.
func (s *site) begin(w *syncer, probe string) (err error) {
	start := time.Now()
	if w.d, err = s.b.start(w.name, w.argv...); err != nil {
		return err
	}
	if err := os.WriteFile(s.at(probe), []byte(w.name), 0o644); err != nil {
		return err
	}
	err = w.d.awaitEvery(s.b.ctx, seenEvery, 20*time.Minute, "its first change", func() bool { return alike(s.at(probe), filepath.Join(w.target, probe)) })
	w.started = time.Since(start).Seconds()
	return err
}

// one makes one change and waits until it is on the target.
func (s *site) one(w *syncer, c bushChange, id string, round int) error {
	done, came, went, err := c.do(s, w.target, id, round)
	if err != nil {
		return err
	}
	start := time.Now()
	if w.d == nil {
		err = s.bringByHand(came, went)
		w.took[c.name] = append(w.took[c.name], time.Since(start).Seconds())
		if err == nil && !done() {
			err = errors.New("rsync by hand did not bring it")
		}
		return err
	}
	err = w.d.awaitEvery(s.b.ctx, seenEvery, s.b.never, c.name, done)
	took := time.Since(start).Seconds()
	if err != nil && s.b.ctx.Err() == nil && took >= s.b.never.Seconds() {
		w.never[c.name], err = true, nil
	}
	w.took[c.name] = append(w.took[c.name], took)
	if w.target == s.mirrors[0].tree && err == nil {
		w.announced[c.name] = append(w.announced[c.name], s.announced(start))
	}
	return err
}

// bringByHand brings names with what is below them, and removes others: two runs at most, since in one rsync removes nothing that is not empty.
func (s *site) bringByHand(came, went []string) error {
	err := s.floor(came, "-a", "-r")
	if err == nil {
		err = s.floor(went, "-lpt", "--delete-missing-args", "--force", "--existing", "--ignore-existing")
	}
	return err
}

// announced is how long after a time the newest announcement was made, in seconds: not at all if it was made while the change was.
func (s *site) announced(after time.Time) float64 {
	var entries []trigger.LogEntry
	q := url.Values{"module": {module}, "n": {"1"}}
	if err := s.control().Do(s.b.ctx, "GET", "/v1/log?"+q.Encode(), nil, &entries); err != nil || len(entries) == 0 {
		return 0
	}
	return max(0, entries[0].At.Sub(after).Seconds())
}
