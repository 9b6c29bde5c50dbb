package amqp_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/amqp"
	"github.com/mirrorbus/mirrorbus/transports/outbox"
)

// A cluster is three nodes that hold each queue and stream three times, a master that publishes all the time, and mirrors.
type cluster struct {
	*site
	nodes   []*testenv.RabbitMQ
	master  *member
	mirrors []*member // one for each node, which it tries first, and one with a queue of its own

	mu   sync.Mutex
	sent []string
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{nodes: testenv.StartRabbitMQCluster(t, 3, testenv.RabbitMQOptions{Plugins: []string{"rabbitmq_federation"}})}
	topology := amqp.DefaultTopology()
	topology.Replicas, topology.Inboxes = 3, map[string]string{"own": "quorum"}
	c.site = siteOn(t, c.nodes[0], topology)
	c.master = c.member(&member{role: transports.Master, name: "master", tune: c.from(0)}).run()
	for i := range c.nodes {
		c.mirrors = append(c.mirrors, c.member(&member{role: transports.Mirror, name: fmt.Sprint("mirror-", i), tune: c.from(i)}).run())
	}
	c.mirrors = append(c.mirrors, c.member(&member{role: transports.Mirror, name: "own", own: true, tune: c.from(1)}).run())
	for _, m := range append(c.mirrors, c.master) {
		m.await(0)
	}
	return c
}

// from lists the servers so that one of them is tried first.
func (c *cluster) from(first int) func(*amqp.Broker) {
	return func(b *amqp.Broker) {
		b.Order, b.Servers = "listed", nil
		for i := range c.nodes {
			b.Servers = append(b.Servers, c.nodes[(first+i)%len(c.nodes)].URL())
		}
		b.ConfirmTimeout.Duration = 5 * time.Second
	}
}

// under has the master publish all the time while f runs, and then waits until all of it has arrived everywhere.
func (c *cluster) under(t *testing.T, f func()) {
	t.Helper()
	c.t = t
	for _, m := range append(c.mirrors, c.master) {
		m.t = t
	}
	t.Cleanup(func() {
		if t.Failed() {
			c.alive()
			waits, err := outbox.Stats(context.Background(), c.master.db)
			t.Logf("waiting: %+v, %v\nqueues:\n%s\nthe master:\n\t%s", waits, err, c.node.Ctl("list_queues", "-p", c.vhost, "name", "leader", "online", "messages", "messages_unacknowledged", "consumers"), c.master.errors())
		}
	})
	ctx, done := context.WithCancel(t.Context())
	var load sync.WaitGroup
	load.Go(func() {
		for tick := time.NewTicker(20 * time.Millisecond); ; {
			c.send()
			select {
			case <-tick.C:
			case <-ctx.Done():
				tick.Stop()
				return
			}
		}
	})
	f()
	done()
	load.Wait()
	for _, m := range c.mirrors {
		m.getsAll(c.sent...)
		got := m.received()
		again := len(got) - len(firsts(got))
		t.Logf("%s: %d messages, %d came twice; connected %d times, the master %d times", m.name, len(c.sent), again, m.connections(), c.master.connections())
		// A connection that is lost brings back what was on its way: to the broker, and from it.
		if most := 200 * (m.connections() + c.master.connections()); again > most {
			t.Errorf("%s: %d came twice, want at most %d", m.name, again, most)
		}
		if len(firsts(got)) != len(c.sent) {
			t.Errorf("%s: %d different messages, want %d", m.name, len(firsts(got)), len(c.sent))
		}
	}
	for _, m := range append(c.mirrors, c.master) {
		if said, permanent := m.said(""); said && permanent {
			t.Errorf("%s has seen an error that somebody must mend:\n\t%s", m.name, m.errors())
		}
	}
}

// alive makes rabbitmqctl ask a node that runs.
func (c *cluster) alive() {
	c.node = c.nodes[slices.IndexFunc(c.nodes, (*testenv.RabbitMQ).Running)]
}

// leader is the node that leads a queue.
func (c *cluster) leader(queue string) *testenv.RabbitMQ {
	c.t.Helper()
	for line := range strings.Lines(c.node.Ctl("list_queues", "-p", c.vhost, "name", "leader")) {
		name, leader, _ := strings.Cut(strings.TrimSpace(line), "\t")
		if i := slices.IndexFunc(c.nodes, func(n *testenv.RabbitMQ) bool { return n.Node == leader }); name == queue && i >= 0 {
			return c.nodes[i]
		}
	}
	c.t.Fatalf("nobody leads %s", queue)
	return nil
}

// step is a part of a test without which the rest makes no sense.
func step(t *testing.T, name string, f func(t *testing.T)) {
	t.Helper()
	if !t.Run(name, f) {
		t.FailNow()
	}
}

func TestCluster(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	step(t, "node of a mirror stopped", func(t *testing.T) {
		c.under(t, func() {
			c.node = c.nodes[0]
			before := c.mirrors[1].connections()
			c.nodes[1].Stop()
			c.mirrors[1].await(before) // at another node
			c.nodes[1].Start()
		})
	})
	step(t, "leader killed", func(t *testing.T) {
		c.under(t, func() {
			leader := c.leader("mb.log")
			c.node.Sync()
			leader.Kill()
			c.alive()
			id := c.send()
			for _, m := range c.mirrors {
				m.getsAll(id) // without the one that is away
			}
			leader.Start()
		})
	})
	step(t, "majority lost", func(t *testing.T) {
		c.under(t, func() {
			c.nodes[0].Sync()
			c.nodes[0].Kill()
			c.nodes[1].Kill()
			testenv.WaitFor(t, patience, func() error {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				if c.master.transport.Publish(ctx, c.master.message("m-00000")) == nil {
					return errors.New("one node of three has confirmed a message")
				}
				return nil
			})
			c.nodes[0].Start()
			c.nodes[1].Start()
		})
	})
	step(t, "rolling restart", func(t *testing.T) {
		c.under(t, func() {
			for _, n := range c.nodes {
				n.Stop()
				n.Start()
			}
		})
	})
	step(t, "federation", func(t *testing.T) {
		c.t, c.node = t, c.nodes[0]
		federation(t, c)
	})
}

// send has the master publish one more message.
func (c *cluster) send() (id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	id = fmt.Sprintf("m-%05d", len(c.sent))
	c.sent = append(c.sent, id)
	c.master.put(id)
	return id
}
