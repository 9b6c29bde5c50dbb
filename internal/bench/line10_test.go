package bench_test

import (
	"fmt"

	"github.com/mirrorbus/mirrorbus/transports/amqp"
)

// waiting is how many announcements are made while every mirror is away.
const waiting = 300

// backlog is line 10: what it costs that many mirrors are away: announcements published for nobody, in the stream that they share, and in a queue for
// each, on a fresh node each time. What counts is the time until all are confirmed, and what the node then holds on disk and in memory.
func (b *bench) backlog() error {
	if !b.hasBroker() {
		return nil
	}
	var disk, memory [3]float64
	kinds := []string{"stream", "quorum", "classic"}
	for i, kind := range kinds {
		var err error
		if disk[i], memory[i], err = b.backlogIn(kind); err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
	}
	what := fmt.Sprintf("%d announcements for %d absent mirrors in one stream: ", waiting, b.mirrors)
	for i, kind := range kinds[1:] {
		queues := fmt.Sprintf("%d %s queues", b.mirrors, kind)
		b.add(row{line: "10", what: what + "disk of the broker", ours: disk[0], against: queues, theirs: disk[i+1], unit: byteCount, rounds: 1})
		b.add(row{line: "10", what: what + "memory of the broker", ours: memory[0], against: queues, theirs: memory[i+1], unit: byteCount, rounds: 1})
	}
	return nil
}

// backlogIn measures one kind of topology, in turns with the bare client. A stream is filled again and again; queues are filled once by each, on a node of
// its own: what waits in a thousand of them is slower to add to, and soon more than the node's memory.
func (b *bench) backlogIn(kind string) (disk, memory float64, err error) {
	rounds, in := b.rounds, "one stream"
	if kind != "stream" {
		rounds, in = 1, kind+" queues"
	}
	var took [2][]float64
	var r *broker
	defer func() {
		if r != nil {
			r.node.Kill()
		}
	}()
	for round := range rounds {
		for k := range took {
			if r != nil && kind != "stream" {
				r.node.Kill()
				r = nil
			}
			if r == nil {
				if r, err = b.brokerFor(kind); err != nil {
					return 0, 0, err
				}
			}
			t, err := r.fill(k, fmt.Sprint(kind, "-", round, "-", k))
			if err != nil {
				return 0, 0, err
			}
			took[k] = append(took[k], t)
			if round == 0 && k == 0 {
				if disk, err = r.disk(); err == nil {
					memory, err = r.memory()
				}
				if err != nil {
					return 0, 0, err
				}
			}
		}
	}
	b.add(row{line: "10", what: fmt.Sprintf("%d announcements for %d absent mirrors in %s: time", waiting, b.mirrors, in), ours: median(took[0]),
		against: "bare amqp091-go", theirs: median(took[1]), aim: overTheBare * median(took[1]), rounds: rounds})
	return disk, memory, nil
}

// brokerFor starts a node with one kind of topology, which both sides publish into.
func (b *bench) brokerFor(kind string) (*broker, error) {
	r, err := b.broker(8)
	if err != nil {
		return nil, err
	}
	r.bareIn = vhostOurs
	topology := amqp.DefaultTopology()
	if kind != "stream" {
		topology.Inboxes = map[string]string{}
		for i := range b.mirrors {
			topology.Inboxes[fmt.Sprint("mirror-", i)] = kind
		}
	}
	return r, r.vhost(vhostOurs, topology)
}

// fill publishes for nobody, by the transport (0) or the bare client (1), and returns how long that took.
func (r *broker) fill(k int, id string) (float64, error) {
	s := (*side)(nil)
	if k == 0 {
		master, err := r.open("master", "master")
		if err != nil {
			return 0, err
		}
		s = r.b.side("mirrorbus", 0)
		s.lead(master)
	} else {
		s = r.bare(0)
	}
	defer s.end()
	return s.fill(id)
}
