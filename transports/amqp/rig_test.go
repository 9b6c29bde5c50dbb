package amqp_test

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/amqp"
)

// Most tests wait for the broker, so more of them run at a time than there are processors. Those that kill, freeze or block the broker that they share
// with others, or count goroutines, are not parallel: they run first, each alone.
func TestMain(m *testing.M) {
	if err := flag.Set("test.parallel", "4"); err != nil { // what -parallel says is above it
		panic(err)
	}
	os.Exit(testenv.Main(m))
}

var vhosts atomic.Int64

// A site is a vhost with a topology.
type site struct {
	t     testing.TB
	node  *testenv.RabbitMQ
	vhost string

	mu    sync.Mutex
	marks map[string]*marks // by process
}

// newSite makes a vhost on the node that the tests of this package share.
func newSite(t testing.TB, topology amqp.Topology) *site {
	t.Helper()
	return siteOn(t, testenv.SharedRabbitMQ(t), topology)
}

func siteOn(t testing.TB, node *testenv.RabbitMQ, topology amqp.Topology) *site {
	t.Helper()
	s := &site{t: t, node: node, vhost: fmt.Sprint("v", vhosts.Add(1)), marks: map[string]*marks{}}
	node.VHost(s.vhost)
	conf := amqp.DefaultMasterConfig()
	s.fill(&conf.Broker)
	if err := amqp.Init(t.Context(), conf.Broker, topology); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *site) fill(b *amqp.Broker) {
	b.Servers, b.VHost, b.User, b.Password = []string{s.node.URL()}, s.vhost, s.node.User, config.NewSecret(s.node.Password)
}

// open opens the transport of a process; conf may change its configuration.
func (s *site) open(role transports.Role, name string, env transports.Env, mirror func(*amqp.MirrorConfig)) (transports.Transport, error) {
	env.Self, env.Bookmarks = name, s.of(name)
	if role == transports.Master {
		conf := amqp.DefaultMasterConfig()
		s.fill(&conf.Broker)
		return transports.Registry{amqp.Driver()}.Open(role, "amqp", conf, env)
	}
	conf := amqp.DefaultMirrorConfig()
	s.fill(&conf.Broker)
	if mirror != nil {
		mirror(conf)
	}
	return transports.Registry{amqp.Driver()}.Open(role, "amqp", conf, env)
}

// of is where a process keeps its positions.
func (s *site) of(name string) *marks {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.marks[name] == nil {
		s.marks[name] = &marks{kept: map[string]string{}}
	}
	return s.marks[name]
}

// marks are Bookmarks in memory.
type marks struct {
	mu   sync.Mutex
	kept map[string]string
}

func (m *marks) Bookmark(_ context.Context, name string) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.kept[name], nil
}

func (m *marks) SetBookmark(_ context.Context, name, text string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.kept[name] = text
	return nil
}

// user makes a user with a password who may configure nothing. The node has one for all vhosts, so that tests side by side each need a name of their own.
func (s *site) user(name, password, write, read string) {
	s.t.Helper()
	s.node.API(http.MethodPut, "/api/users/"+name, map[string]any{"password": password, "tags": ""}, nil)
	s.node.API(http.MethodPut, "/api/permissions/"+s.vhost+"/"+name, map[string]any{"configure": "^$", "write": write, "read": read}, nil)
}

// send publishes a message as anybody could, and waits until the broker has it.
func (s *site) send(exchange, key string, headers amqp091.Table) {
	s.t.Helper()
	ch := s.channel()
	if err := ch.Confirm(false); err != nil {
		s.t.Fatal(err)
	}
	c, err := ch.PublishWithDeferredConfirm(exchange, key, false, false, amqp091.Publishing{Headers: headers, Body: []byte("x")})
	if err != nil {
		s.t.Fatal(err)
	}
	if !c.Wait() {
		s.t.Fatalf("the broker does not take a message on %s", key)
	}
}

// channel is one of a plain connection to the vhost, as its user who may do everything.
func (s *site) channel() *amqp091.Channel {
	s.t.Helper()
	conn, err := amqp091.DialConfig(s.node.URL(), amqp091.Config{Vhost: s.vhost, SASL: []amqp091.Authentication{
		&amqp091.PlainAuth{Username: s.node.User, Password: s.node.Password}}})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() }) //nolint:errcheck // the node may be gone
	ch, err := conn.Channel()
	if err != nil {
		s.t.Fatal(err)
	}
	return ch
}
