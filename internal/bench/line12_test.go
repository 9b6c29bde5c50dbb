package bench_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/amqp"
)

// upkeep is line 12: what each mirror costs the broker while it listens, and within the minute after it has reported. Each size has a fresh node, from
// which the memory and the open files of an idle one are taken off.
func (b *bench) upkeep() error {
	if !b.hasBroker() {
		return nil
	}
	for _, n := range b.sizes(100, 1000, 5000) {
		if err := b.upkeepOf(n); err != nil {
			return fmt.Errorf("%d mirrors: %w", n, err)
		}
	}
	return nil
}

func (b *bench) upkeepOf(n int) error {
	var listening, reported [2]use
	for k := range 2 {
		var err error
		if k == 0 {
			listening[k], reported[k], err = b.upkeepOfOurs(n)
		} else {
			listening[k], err = b.upkeepOfBare(n)
		}
		if err != nil {
			return err
		}
	}
	per := func(sum float64) float64 { return max(0, sum) / float64(n) }
	for _, f := range []struct {
		what    string
		used    [2]use
		against string
	}{{"listens", listening, "bare amqp091-go"}, {"has just reported", reported, ""}} {
		what := fmt.Sprintf("%d mirrors: each that %s: ", n, f.what)
		b.add(row{line: "12", what: what + "memory of the broker", ours: per(f.used[0].memory), against: f.against, theirs: per(f.used[1].memory), unit: byteCount, rounds: 1})
		b.add(row{line: "12", what: what + "open files of the broker", ours: per(f.used[0].files), against: f.against, theirs: per(f.used[1].files), unit: fraction, rounds: 1})
	}
	return nil
}

// upkeepOfOurs is what n mirrors take that listen, and that have reported.
func (b *bench) upkeepOfOurs(n int) (listening, reported use, err error) {
	r, idle, err := b.idleBroker(vhostOurs)
	if err != nil {
		return use{}, use{}, err
	}
	defer r.node.Kill()
	s := b.side("mirrorbus", n)
	defer s.end()
	mirrors := make([]*transports.CheckedTransport, n)
	for i := range mirrors {
		if mirrors[i], err = r.open(transports.Mirror, fmt.Sprint("mirror-", i)); err != nil {
			return use{}, use{}, err
		}
		s.listen(mirrors[i])
	}
	if _, err = s.all(); err == nil {
		listening, err = r.use(idle)
	}
	if err == nil {
		err = report(s.ctx, mirrors)
	}
	if err == nil {
		reported, err = r.use(idle)
	}
	return listening, reported, err
}

// report has each mirror send one report.
func report(ctx context.Context, mirrors []*transports.CheckedTransport) error {
	var all errgroup.Group
	all.SetLimit(16)
	for i, t := range mirrors {
		all.Go(func() error {
			return t.Publish(ctx, transports.Message{Topic: transports.Topic{Kind: transports.Report, Module: module}, ID: fmt.Sprint("report-", i), Body: make([]byte, bareBody)})
		})
	}
	return all.Wait()
}

func (b *bench) upkeepOfBare(n int) (listening use, err error) {
	r, idle, err := b.idleBroker(vhostBare)
	if err != nil {
		return use{}, err
	}
	defer r.node.Kill()
	s := r.bare(n)
	defer s.end()
	if _, err := s.all(); err != nil {
		return use{}, err
	}
	return r.use(idle)
}

// idleBroker starts a node with one vhost, and says what it takes.
func (b *bench) idleBroker(vhost string) (*broker, use, error) {
	r, err := b.broker(4)
	if err != nil {
		return nil, use{}, err
	}
	if err = r.vhost(vhost, amqp.DefaultTopology()); err == nil {
		var idle use
		if idle, err = r.use(use{}); err == nil {
			return r, idle, nil
		}
	}
	r.node.Kill()
	return nil, use{}, err
}

// A use is what a node takes.
type use struct{ memory, files float64 }

// use is what the node takes beyond what it did.
func (r *broker) use(before use) (now use, err error) {
	if now.memory, err = r.memory(); err != nil {
		return use{}, err
	}
	files, err := os.ReadDir(filepath.Join("/proc", fmt.Sprint(r.node.PID()), "fd"))
	return use{now.memory - before.memory, float64(len(files)) - before.files}, err
}
