package bench_test

import (
	"fmt"

	"github.com/mirrorbus/mirrorbus/transports/amqp"
)

// overTheBare is how much longer than the bare client the transport may take.
const overTheBare = 1.2

// reached is line 8: one announcement, from the call that publishes it until the last of many listeners has it. Each listener has a connection of
// its own, all are in this process and do nothing. Beside it the bare client with the same topology on the same node, and the embedded hub.
func (b *bench) reached() error {
	if !b.hasBroker() {
		return nil
	}
	r, err := b.broker(8)
	if err == nil {
		err = r.vhosts(amqp.DefaultTopology())
	}
	if err != nil {
		return err
	}
	for _, n := range b.sizes(1, 10, 100, 1000, 2000) {
		if err := r.reachedBy(n); err != nil {
			return err
		}
	}
	return nil
}

// perRound is how many announcements are made in a round: each takes only milliseconds.
const perRound = 5

func (r *broker) reachedBy(n int) error {
	sides, err := r.three(n)
	defer func() {
		for _, s := range sides {
			s.end()
		}
	}()
	if err != nil {
		return err
	}
	took := make([][]float64, len(sides))
	for i := range (r.b.rounds + 1) * perRound {
		for k, s := range sides {
			t, err := s.reach(fmt.Sprint("reach-", n, "-", i))
			if err != nil {
				return err
			}
			if i >= perRound { // the first are slow on every side
				took[k] = append(took[k], t)
			}
		}
	}
	what := fmt.Sprintf("%d agents: an announcement has reached all", n)
	ours, bare, hub := median(took[0]), median(took[1]), median(took[2])
	r.b.add(row{line: "8", what: what, ours: ours, against: "bare amqp091-go", theirs: bare, aim: overTheBare * bare, rounds: len(took[0])})
	r.b.add(row{line: "8", what: what, ours: ours, against: "the embedded hub", theirs: hub, rounds: len(took[0])})
	return nil
}

// three are the transport, the bare client and the hub, all connected.
func (r *broker) three(n int) ([]*side, error) {
	ours, err := r.ours(n)
	if err != nil {
		return []*side{ours}, err
	}
	hub, err := r.b.hubSide(n)
	sides := []*side{ours, r.bare(n), hub}
	for _, s := range sides {
		if err == nil {
			_, err = s.all()
		}
	}
	return sides, err
}

// sizes are those of a line that are no more than MIRRORS, and that itself if there is a larger one.
func (b *bench) sizes(all ...int) []int {
	for i, n := range all {
		if n >= b.mirrors {
			return append(all[:i:i], b.mirrors)
		}
	}
	return all
}
