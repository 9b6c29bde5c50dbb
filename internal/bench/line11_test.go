package bench_test

import (
	"fmt"
	"net"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mirrorbus/mirrorbus/transports/amqp"
)

// restarts is line 11: the broker is killed and started again. Counted from its port being open again: until all listeners are connected, and until
// all have the announcement that was made meanwhile. The bare client waits between its attempts as transports.Keep does.
func (b *bench) restarts() error {
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
	for _, n := range b.sizes(100, 1000) {
		if err := r.comeBack(n); err != nil {
			return err
		}
	}
	return nil
}

func (r *broker) comeBack(n int) error {
	var connected, reached [2][]float64
	for round := range r.b.rounds {
		for k := range 2 {
			s := (*side)(nil)
			var err error
			if k == 0 {
				s, err = r.ours(n)
			} else {
				s = r.bare(n)
			}
			var c, a float64
			if err == nil {
				c, a, err = r.restarted(s, fmt.Sprint("restart-", n, "-", round))
			}
			s.end()
			if err != nil {
				return err
			}
			connected[k], reached[k] = append(connected[k], c), append(reached[k], a)
		}
	}
	what := fmt.Sprintf("%d agents, the broker is killed and its port open again: ", n)
	for _, f := range []struct {
		what string
		took [2][]float64
	}{{"all connected", connected}, {"the next announcement at all", reached}} {
		bare := median(f.took[1])
		r.b.add(row{line: "11", what: what + f.what, ours: median(f.took[0]), against: "bare amqp091-go", theirs: bare, aim: overTheBare * bare, rounds: len(f.took[0])})
	}
	return nil
}

// restarted kills the broker under a side, and returns the seconds from its port being open until all are connected, and have a message.
func (r *broker) restarted(s *side, id string) (connected, reached float64, err error) {
	if _, err = s.all(); err == nil {
		_, err = s.reach(id + "-before") // from now on each knows where it is
	}
	if err != nil {
		return 0, 0, err
	}
	r.node.Kill()
	if err := s.none(); err != nil {
		return 0, 0, err
	}
	var open time.Time
	var after errgroup.Group
	after.Go(func() (err error) {
		if open, err = r.opened(s); err == nil {
			err = s.announce(id)
		}
		return err
	})
	r.node.Start()
	if err := after.Wait(); err != nil {
		return 0, 0, err
	}
	back, err := s.all()
	if err != nil {
		return 0, 0, err
	}
	heard, err := s.arrival(id)
	return back.Sub(open).Seconds(), heard.Sub(open).Seconds(), err
}

// opened waits until the port takes connections.
func (r *broker) opened(s *side) (time.Time, error) {
	for {
		c, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", r.node.Port))
		if err == nil {
			return time.Now(), c.Close()
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-s.ctx.Done():
			return time.Time{}, s.ctx.Err()
		}
	}
}
