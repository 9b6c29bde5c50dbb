package amqp_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/amqp"
)

// A crowd is a master and a mirror on each kind of queue.
type crowd struct {
	master                  *member
	stream, quorum, classic *member
	sent, reported          []string
}

func (s *site) crowd() *crowd {
	c := &crowd{
		master:  &member{role: transports.Master, name: "master"},
		stream:  &member{role: transports.Mirror, name: "stream"},
		quorum:  &member{role: transports.Mirror, name: "quorum", own: true},
		classic: &member{role: transports.Mirror, name: "classic", own: true},
	}
	for _, m := range c.all() {
		m.tune = func(b *amqp.Broker) {
			b.Heartbeat = config.Duration{Duration: 2 * time.Second}
			b.WriteTimeout = config.Duration{Duration: 5 * time.Second}
		}
		s.member(m).run()
	}
	for _, m := range c.all() {
		m.await(0)
	}
	return c
}

func (c *crowd) all() []*member     { return append(c.mirrors(), c.master) }
func (c *crowd) mirrors() []*member { return []*member{c.stream, c.quorum, c.classic} }

// put has everybody say something.
func (c *crowd) put(what string) {
	ids := numbered(what, 20)
	c.sent = append(c.sent, ids...)
	c.master.put(ids...)
	for _, m := range c.mirrors() {
		id := what + "-" + m.name
		c.reported = append(c.reported, id)
		m.put(id)
	}
}

// arrived waits until everybody has heard everything.
func (c *crowd) arrived(t *testing.T) {
	t.Helper()
	for _, m := range c.mirrors() {
		if n := m.gets(c.sent...); n > 0 {
			t.Logf("%s: %d came twice", m.name, n)
		}
	}
	c.master.getsAll(c.reported...)
}

// A fault is something that happens to a broker and its connections.
type fault struct {
	name       string
	breaks     func(s *site)
	mends      func(s *site)
	notNoticed []string          // members that keep their connection
	says       map[string]string // what the connections of members end with
	permanent  bool              // trying again does not help until it is mended
	some       bool              // it is enough if one of them does: who writes to a broker that closes may be told nothing but that
}

var faults = []fault{
	{
		name: "stopped", breaks: func(s *site) { s.node.Sync(); s.node.Stop() }, mends: func(s *site) { s.node.Start() },
		says: map[string]string{"master": "CONNECTION_FORCED", "stream": "CONNECTION_FORCED"}, some: true,
	},
	{name: "killed", breaks: func(s *site) { s.node.Sync(); s.node.Kill() }, mends: func(s *site) { s.node.Start() }},
	{
		name: "connections closed", breaks: func(s *site) { s.cutAll("enough") },
		says: map[string]string{"master": "enough", "stream": "enough", "quorum": "enough", "classic": "enough"},
	},
	{
		name: "frozen", breaks: func(s *site) { s.node.Freeze() }, mends: func(s *site) { s.node.Thaw() },
		says: map[string]string{"master": "i/o timeout", "stream": "i/o timeout", "quorum": "i/o timeout", "classic": "i/o timeout"},
	},
	{
		name: "channels crash", breaks: func(s *site) { s.node.Eval("[exit(P, kill) || P <- rabbit_channel:list()].") },
		says: map[string]string{"stream": "INTERNAL_ERROR", "quorum": "INTERNAL_ERROR"},
	},
	{
		name: "queue deleted", breaks: deletes("inbox.quorum", "inbox.classic"), mends: (*site).repair, notNoticed: []string{"master", "stream"},
		says: map[string]string{"quorum": "the queue inbox.quorum was deleted", "classic": "run `mirrorbus amqp init`"}, permanent: true,
	},
	{
		name: "stream deleted", breaks: deletes("mb.log"), mends: (*site).repair, notNoticed: []string{"master", "quorum", "classic"},
		says: map[string]string{"stream": "the queue mb.log was deleted"}, permanent: true,
	},
	{
		name: "queue of reports deleted", breaks: deletes("mb.report.in"), mends: (*site).repair, notNoticed: []string{"stream", "quorum", "classic"},
		says: map[string]string{"master": "part of the topology is missing"}, permanent: true,
	},
}

func deletes(queues ...string) func(*site) {
	return func(s *site) {
		for _, q := range queues {
			s.node.API(http.MethodDelete, "/api/queues/"+s.vhost+"/"+q, nil, nil)
		}
	}
}

// awaitSaid waits until the connections of members have ended with what they must.
func (f fault) awaitSaid(t *testing.T, c *crowd) {
	t.Helper()
	if f.some {
		testenv.WaitFor(t, patience, func() error {
			for _, m := range c.all() {
				if said, _ := m.said(f.says[m.name]); said && f.says[m.name] != "" {
					return nil
				}
			}
			return errors.New("nobody said why the connection ended")
		})
		return
	}
	for _, m := range c.all() {
		testenv.WaitFor(t, patience, func() error {
			said, permanent := m.said(f.says[m.name])
			if f.says[m.name] != "" && (!said || f.permanent && !permanent) {
				return fmt.Errorf("%s: nobody said %q, permanent %v:\n\t%s", m.name, f.says[m.name], permanent, m.errors())
			}
			return nil
		})
	}
}

func TestKeepComesBack(t *testing.T) {
	node := testenv.SharedRabbitMQ(t)
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			before := goleak.IgnoreCurrent()
			s := siteOn(t, node, crowded)
			c := s.crowd()
			c.put("before")
			c.arrived(t)
			connects := map[*member]int{}
			for _, m := range c.all() {
				connects[m] = m.connections()
			}
			f.breaks(s)
			if !f.permanent { // what is said to a queue that is not there is said to nobody
				c.put("meanwhile")
			}
			for _, m := range c.all() {
				if !slices.Contains(f.notNoticed, m.name) {
					m.awaitLoss(connects[m])
				}
			}
			f.awaitSaid(t, c)
			if f.mends != nil {
				f.mends(s)
			}
			for _, m := range c.all() {
				if !slices.Contains(f.notNoticed, m.name) {
					m.await(connects[m])
				}
			}
			c.put("after")
			c.arrived(t)
			for _, m := range c.all() {
				m.stop()
				if _, permanent := m.said(""); permanent && !f.permanent {
					t.Errorf("%s has seen an error that somebody must mend, and nobody had to:\n\t%s", m.name, m.errors())
				}
			}
			for _, m := range c.all() {
				m.close()
			}
			s.nothingLeft(before)
		})
	}
}

// crowded is the topology of a crowd.
var crowded = func() amqp.Topology {
	topology := amqp.DefaultTopology()
	topology.Inboxes = map[string]string{"quorum": "quorum", "classic": "classic"}
	return topology
}()

// repair makes what is missing of a crowd's topology.
func (s *site) repair() {
	s.t.Helper()
	conf := amqp.DefaultMasterConfig()
	s.fill(&conf.Broker)
	if err := amqp.Init(s.t.Context(), conf.Broker, crowded); err != nil {
		s.t.Fatal(err)
	}
}

// A node that has just started takes connections before it has its queues.
func TestInitOfANodeThatHasJustStarted(t *testing.T) {
	s := newSite(t, crowded)
	s.node.Sync()
	s.node.Kill()
	started := make(chan struct{})
	go func() {
		defer close(started)
		s.node.Start()
	}()
	conf := amqp.DefaultMasterConfig()
	s.fill(&conf.Broker)
	testenv.WaitFor(t, patience, func() error {
		err := amqp.Init(t.Context(), conf.Broker, crowded)
		if err != nil && (strings.Contains(err.Error(), "inaccessible") || strings.Contains(err.Error(), "INTERNAL_ERROR")) {
			t.Errorf("init has not waited for the node: %v", err)
		}
		return err
	})
	<-started
}
