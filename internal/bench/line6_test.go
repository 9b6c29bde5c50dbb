package bench_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/trigger"
)

// A party is a server with its many clients: the hub, or the bare SSH server.
type party struct {
	server   *daemon
	clients  *peers
	empty    float64 // memory of the server before anybody came
	start    func() error
	announce func(round int) (time.Time, error) // returns when all had it
}

// subscriptions is line 6: a hub with many subscribers, in one process that runs the hub's real clients, beside an x/crypto/ssh server with as many
// sessions, which knows no keys, queues, positions or pace. Both idle at the same time.
func (b *bench) subscriptions() error {
	ours, err := b.hubParty()
	if err != nil {
		return err
	}
	theirs, err := b.bareParty()
	if err != nil {
		return err
	}
	both := []*party{ours, theirs}
	var storm, cpus, reached, back [2][]float64
	var memory [2]float64
	for i, p := range both {
		at, err := p.clients.next(b.ctx, "all")
		if err != nil {
			return err
		}
		storm[i] = append(storm[i], at.Sub(p.clients.since).Seconds())
	}
	if err := b.idleTogether(both, &cpus, &memory); err != nil {
		return err
	}
	for round := range b.rounds {
		for i, p := range both {
			start := time.Now()
			at, err := p.announce(round)
			if err != nil {
				return err
			}
			reached[i] = append(reached[i], at.Sub(start).Seconds())
		}
	}
	for range b.rounds {
		for i, p := range both {
			took, err := b.restart(p)
			if err != nil {
				return err
			}
			back[i] = append(back[i], took)
		}
	}
	what, n := fmt.Sprintf("%d subscribers: ", b.subscribers), b.rounds
	bare := "bare x/crypto/ssh"
	b.add(row{line: "6", what: what + "memory of the server for each", ours: memory[0], against: bare, theirs: memory[1], unit: byteCount, rounds: 1})
	b.add(row{line: "6", what: what + "CPU of the idle server", ours: median(cpus[0]), against: bare, theirs: median(cpus[1]), unit: cpu, rounds: len(cpus[0])})
	b.add(row{line: "6", what: what + "an announcement has reached all", ours: median(reached[0]), against: bare + ", 500 bytes", theirs: median(reached[1]), rounds: n})
	b.add(row{line: "6", what: what + "all connected for the first time", ours: storm[0][0], against: bare, theirs: storm[1][0], rounds: 1})
	b.add(row{line: "6", what: what + "all back after a restart", ours: median(back[0]), against: bare, theirs: median(back[1]), rounds: n})
	return nil
}

// hubParty is a hub that is told the keys of all its subscribers.
func (b *bench) hubParty() (*party, error) {
	s, err := b.newSite("crowd", func(tree string) error {
		return errors.Join(os.MkdirAll(tree, 0o755), os.WriteFile(filepath.Join(tree, "file"), nil, 0o644))
	})
	if err != nil {
		return nil, err
	}
	lines, err := trusted(b.subscribers)
	if err != nil {
		return nil, err
	}
	trust := filepath.Join(s.dir, "etc", "allowed_signers")
	old, err := os.ReadFile(trust)
	if err = errors.Join(err, os.WriteFile(trust, append(old, lines...), 0o644)); err != nil {
		return nil, err
	}
	p := &party{}
	p.start = func() error {
		err := s.startHub()
		p.server = s.hub
		return err
	}
	s.hub.end(syscall.SIGTERM)
	if err := p.start(); err != nil {
		return nil, err
	}
	p.announce = func(int) (time.Time, error) {
		done, err := s.publish(false, []trigger.Name{{Path: "file"}})
		if err != nil {
			return time.Time{}, err
		}
		return p.clients.next(b.ctx, fmt.Sprint("arrived ", done.Serial))
	}
	if p.empty, err = status(p.server.pid(), "VmRSS"); err == nil {
		p.clients, err = b.peers("subscribers", s.address, s.join.HubKey)
	}
	return p, err
}

func (b *bench) bareParty() (*party, error) {
	address := fmt.Sprint("127.0.0.1:", testenv.FreePort(b.T))
	p := &party{}
	var server *peers
	p.start = func() (err error) {
		if server, err = b.peers("bare server", address, ""); err == nil {
			p.server = server.daemon
		}
		return err
	}
	if err := p.start(); err != nil {
		return nil, err
	}
	sent := 0
	p.announce = func(int) (time.Time, error) {
		sent++
		if _, err := fmt.Fprintln(server.in, "send"); err != nil {
			return time.Time{}, err
		}
		return p.clients.next(b.ctx, fmt.Sprint("arrived ", sent))
	}
	if err := b.sleep(time.Second); err != nil { // until it has started
		return nil, err
	}
	var err error
	if p.empty, err = status(p.server.pid(), "VmRSS"); err == nil {
		p.clients, err = b.peers("bare clients", address, "")
	}
	return p, err
}

// idleTogether measures five windows of the idle time.
func (b *bench) idleTogether(both []*party, cpus *[2][]float64, memory *[2]float64) error {
	const windows = 5
	for range windows {
		var before [2]float64
		for i, p := range both {
			used, err := cpuOf(p.server.pid())
			if err != nil {
				return err
			}
			before[i] = used
		}
		if err := b.sleep(b.idle / windows); err != nil {
			return err
		}
		for i, p := range both {
			used, err := cpuOf(p.server.pid())
			if err != nil {
				return err
			}
			cpus[i] = append(cpus[i], (used-before[i])*60/(b.idle/windows).Seconds())
		}
	}
	for i, p := range both {
		held, err := status(p.server.pid(), "VmRSS")
		if err != nil {
			return err
		}
		memory[i] = (held - p.empty) / float64(b.subscribers)
	}
	return nil
}

// restart kills the server, starts it again and returns how many seconds after the kill all clients were back.
func (b *bench) restart(p *party) (float64, error) {
	killed := time.Now()
	p.server.end(syscall.SIGKILL)
	if err := p.start(); err != nil {
		return 0, err
	}
	for {
		at, err := p.clients.next(b.ctx, "all")
		if err != nil || at.After(killed) { // a time before is of clients that came and went
			return at.Sub(killed).Seconds(), err
		}
	}
}
