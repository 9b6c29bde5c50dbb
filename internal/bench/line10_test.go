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

// backlogIn measures one kind of topology, and then publishes as many again and again in turns with the bare client.
func (b *bench) backlogIn(kind string) (disk, memory float64, err error) {
	r, err := b.broker(8)
	if err != nil {
		return 0, 0, err
	}
	defer r.node.Kill()
	topology := amqp.DefaultTopology()
	if kind != "stream" {
		topology.Inboxes = map[string]string{}
		for i := range b.mirrors {
			topology.Inboxes[fmt.Sprint("mirror-", i)] = kind
		}
	}
	if err := r.vhost(vhostOurs, topology); err != nil {
		return 0, 0, err
	}
	master, err := r.open("master", "master")
	if err != nil {
		return 0, 0, err
	}
	ours := b.side("mirrorbus", 0)
	defer ours.end()
	ours.lead(master)
	r.bareIn = vhostOurs // so that both publish into the same queues
	bare := r.bare(0)
	defer bare.end()
	rounds := b.rounds
	if kind != "stream" {
		rounds = 1 // what waits in a thousand queues would soon be more than the node's memory
	}
	var took [2][]float64
	for round := range rounds {
		for k, s := range []*side{ours, bare} {
			t, err := s.fill(fmt.Sprint(kind, "-", round))
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
	in := "one stream"
	if kind != "stream" {
		in = kind + " queues"
	}
	b.add(row{line: "10", what: fmt.Sprintf("%d announcements for %d absent mirrors in %s: time", waiting, b.mirrors, in), ours: median(took[0]),
		against: "bare amqp091-go", theirs: median(took[1]), aim: overTheBare * median(took[1]), rounds: rounds})
	return disk, memory, nil
}
