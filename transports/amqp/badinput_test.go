package amqp_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/amqp"
)

// A bad is a situation that a process cannot work in.
type bad struct {
	name      string
	role      transports.Role      // a mirror if it is ""
	site      func(s *site)        // makes it so
	conf      func(b *amqp.Broker) // configures it so
	own       bool                 // a mirror reads its own queue, that of alpha
	says      string               // what the error must say
	temporary bool                 // trying again may help
}

// failure is what a process's Run ends with; it must not have been connected.
func (s *site) failure(b bad) error {
	s.t.Helper()
	env := transports.Env{Self: "alpha", Bookmarks: s.of("alpha")}
	var conf any
	tune := func(to *amqp.Broker) {
		s.fill(to)
		if b.conf != nil {
			b.conf(to)
		}
	}
	if b.role == "" {
		b.role = transports.Mirror
	}
	if b.role == transports.Master {
		c := amqp.DefaultMasterConfig()
		tune(&c.Broker)
		conf = c
	} else {
		c := amqp.DefaultMirrorConfig()
		tune(&c.Broker)
		if b.own {
			c.Queue = "own"
		}
		conf = c
	}
	tr, err := transports.Registry{amqp.Driver()}.Open(b.role, "amqp", conf, env)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(s.t.Context(), patience, errors.New("it does not fail"))
	defer cancel()
	return tr.Run(ctx, hears(b.role), unconnected{s.t})
}

// unconnected is a Receiver that must not be connected.
type unconnected struct{ t testing.TB }

func (u unconnected) Connected() { u.t.Error("connected") }
func (u unconnected) Receive(context.Context, transports.Message) error {
	u.t.Error("received")
	return nil
}

// check runs it and looks at the error: one line that says what is wrong, and no secret.
func (b bad) check(t *testing.T, s *site) {
	t.Helper()
	s.t = t
	if b.site != nil {
		b.site(s)
	}
	err := s.failure(b)
	text := err.Error()
	t.Log(text)
	if !strings.Contains(text, b.says) || strings.Contains(text, "\n") || len(text) > 500 {
		t.Errorf("error is %q, want one line that says %q", text, b.says)
	}
	if transports.IsPermanent(err) == b.temporary {
		t.Errorf("permanent: %t", !b.temporary)
	}
	for _, secret := range []string{s.node.Password, "wrong password"} {
		if strings.Contains(text, secret) {
			t.Error("a password is in the error")
		}
	}
}

func (s *site) delete(what, name string) {
	s.node.API(http.MethodDelete, "/api/"+what+"/"+s.vhost+"/"+name, nil, nil)
}

func (s *site) remake(queue string, args map[string]any) {
	s.delete("queues", queue)
	s.node.API(http.MethodPut, "/api/queues/"+s.vhost+"/"+queue, map[string]any{"durable": true, "arguments": args}, nil)
}

// What is wrong with a login, or with what the vhost holds, is one error that says what to do.
func TestBrokerIsNotAsItShouldBe(t *testing.T) {
	t.Parallel()
	classic, stream := map[string]any{"x-queue-type": "classic"}, map[string]any{"x-queue-type": "stream"}
	for _, b := range []bad{
		{name: "wrong vhost", conf: func(b *amqp.Broker) { b.VHost = "no-such" }, says: "no such vhost, or this user may not use it"},
		{name: "wrong password", conf: func(b *amqp.Broker) { b.Password = config.NewSecret("wrong password") }, says: "refuses the user or the password"},
		{name: "unknown user", conf: func(b *amqp.Broker) { b.User = "nobody" }, says: "refuses the user or the password"},
		{
			name: "no permission in the vhost", site: func(s *site) { s.user("mute", "pw", "", ""); s.delete("permissions", "mute") }, conf: login("mute", "pw"),
			says: "no such vhost, or this user may not use it",
		},
		{
			name: "no permission to read", site: func(s *site) { s.user("deaf", "pw", "^mb\\.report$", "^$") }, conf: login("deaf", "pw"),
			says: "this user may not do that: ACCESS_REFUSED - access to queue 'mb.log'",
		},
		{
			name: "a mirror that reads another's queue", site: func(s *site) { s.user("prying", "pw", "^mb\\.report$", "^mb\\.log$") }, conf: login("prying", "pw"), own: true,
			says: "this user may not do that: ACCESS_REFUSED - access to queue 'inbox.alpha'",
		},
		{name: "missing topology", site: func(s *site) { s.delete("exchanges", "mb.topology.1") }, says: "run `mirrorbus amqp init` of this version"},
		{
			name: "topology of another version", role: transports.Master, says: "no topology that this version knows",
			site: func(s *site) {
				s.delete("exchanges", "mb.topology.1")
				s.node.API(http.MethodPut, "/api/exchanges/"+s.vhost+"/mb.topology.2", map[string]any{"type": "fanout", "durable": true}, nil)
			},
		},
		{name: "no stream", site: func(s *site) { s.delete("queues", "mb.log") }, says: "part of the topology is missing: NOT_FOUND - no queue 'mb.log'"},
		{name: "no queue of its own", site: func(s *site) { s.delete("queues", "inbox.alpha") }, own: true, says: "no queue 'inbox.alpha'"},
		{name: "no queue of reports", role: transports.Master, site: func(s *site) { s.delete("queues", "mb.report.in") }, says: "no queue 'mb.report.in'"},
		{name: "a stream that is a queue", site: func(s *site) { s.remake("mb.log", classic) }, says: "a queue is not a stream and must be one"},
		{name: "a queue of its own that is a stream", site: func(s *site) { s.remake("inbox.alpha", stream) }, own: true, says: "a queue is a stream and must be none"},
		{name: "a queue of reports that is a stream", role: transports.Master, site: func(s *site) { s.remake("mb.report.in", stream) }, says: "a queue is a stream and must be none"},
	} {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			topology := amqp.DefaultTopology()
			topology.Inboxes = map[string]string{"alpha": "classic"}
			s := newSite(t, topology)
			defer s.node.DropVHost(s.vhost)
			b.check(t, s)
		})
	}
}

// What is there already and is another thing is named by init, which leaves it as it is.
func TestInitOverOtherObjects(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		site     func(s *site)
		topology func(t *amqp.Topology)
		says     string
	}{
		"another age": {topology: func(t *amqp.Topology) { t.MaxAge = "7D" }, says: "the queue mb.log is there already and is another one: inequivalent arg 'x-max-age'"},
		"a classic queue in the place of a stream": {
			site: func(s *site) { s.remake("mb.log.embargo", map[string]any{"x-queue-type": "classic"}) }, says: "the queue mb.log.embargo is there already and is another one: inequivalent arg 'x-queue-type'",
		},
		"a quorum queue that was a classic one": {
			topology: func(t *amqp.Topology) { t.Inboxes["alpha"] = "quorum" }, says: "delete it (rabbitmqctl delete_queue inbox.alpha)",
		},
		"an exchange of another type": {
			site: func(s *site) {
				s.delete("exchanges", "mb.report")
				s.node.API(http.MethodPut, "/api/exchanges/"+s.vhost+"/mb.report", map[string]any{"type": "direct", "durable": true}, nil)
			},
			says: "the exchange mb.report is there already and is another one: inequivalent arg 'type'",
		},
		"no right to configure": {
			site: func(s *site) { s.user("lowly", "pw", "^mb\\.report$", "^mb\\.log$"); s.delete("queues", "mb.dead") }, says: "ACCESS_REFUSED",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			topology := amqp.DefaultTopology()
			topology.Inboxes = map[string]string{"alpha": "classic"}
			s := newSite(t, topology)
			defer s.node.DropVHost(s.vhost)
			if c.site != nil {
				c.site(s)
			}
			if c.topology != nil {
				c.topology(&topology)
			}
			conf := amqp.DefaultMasterConfig()
			s.fill(&conf.Broker)
			if name == "no right to configure" {
				login("lowly", "pw")(&conf.Broker)
			}
			start := time.Now()
			err := amqp.Init(t.Context(), conf.Broker, topology)
			if err == nil || !strings.Contains(err.Error(), c.says) || !transports.IsPermanent(err) {
				t.Errorf("error %v, want a permanent one that says %q", err, c.says)
			}
			if took := time.Since(start); took > 15*time.Second {
				t.Errorf("took %v: it was tried again", took)
			}
		})
	}
}
