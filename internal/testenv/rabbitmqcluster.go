package testenv

import (
	"testing"
	"time"
)

// StartRabbitMQCluster starts nodes that are one broker, and waits until it takes streams and quorum queues. The nodes join before the first
// stream is made: one that joins later is not asked to coordinate streams for half a minute.
func StartRabbitMQCluster(t testing.TB, size int, o RabbitMQOptions) []*RabbitMQ {
	t.Helper()
	nodes := []*RabbitMQ{newRabbitMQ(t, o, nil)}
	for len(nodes) < size {
		nodes = append(nodes, newRabbitMQ(t, o, nodes[0]))
	}
	for i, n := range nodes {
		n.ready = n.answers
		n.Start()
		if i == 0 {
			continue
		}
		for _, args := range [][]string{{"stop_app"}, {"join_cluster", nodes[0].Node}, {"start_app"}} {
			n.Ctl(args...)
		}
	}
	for _, n := range nodes {
		n.ready = n.whole
		WaitFor(t, time.Minute, n.ready)
	}
	return nodes
}
