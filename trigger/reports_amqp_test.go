package trigger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/amqp"
)

// A witness notes which reports a desk accepts and which it refuses, by their run.
type witness struct {
	desk
	mu       sync.Mutex
	accepted map[uint64]bool
	refused  map[uint64]string
}

func (w *witness) Receive(ctx context.Context, m transports.Message) error {
	report, err := w.open(m)
	w.mu.Lock()
	defer w.mu.Unlock()
	if s, readErr := event.Read(m.Body); err != nil && readErr == nil {
		w.refused[s.Report.Run] = err.Error()
	}
	if err == nil {
		w.accepted[report.Run] = true
	}
	return w.desk.Receive(ctx, m)
}

// Over a real broker a report counts only if the signer, the routing key and, where the broker tells it, the user are the same mirror.
func TestReportOverAMQPMustAgreeWithItself(t *testing.T) {
	node := testenv.StartRabbitMQ(t, testenv.RabbitMQOptions{})
	node.VHost("mirrorbus")
	conf := amqp.DefaultMasterConfig()
	conf.Servers, conf.User, conf.Password = []string{node.URL()}, node.User, config.NewSecret(node.Password)
	if err := amqp.Init(t.Context(), conf.Broker, amqp.DefaultTopology()); err != nil {
		t.Fatal(err)
	}
	passwords := map[string]string{"one": "password of one", "two": "password of two"}
	importUsers(t, node, passwords)
	passwords[node.User] = node.Password

	d := newDesk(t)
	defer d.collector.Close() //nolint:errcheck // nothing is asked of it any more
	w := &witness{desk: d, accepted: map[uint64]bool{}, refused: map[uint64]string{}}
	type sent struct {
		of, signer, user, id, key string // id is the user-id of the message
		headers                   amqp091.Table
		good                      bool
	}
	cases := []sent{
		{of: "one", signer: "one", user: "one", id: "one", key: "report.one.m", good: true},
		{of: "one", signer: "one", user: "one", key: "report.one.m", good: true},  // not every client tells its user
		{of: "one", signer: "one", user: "test", key: "report.one.m", good: true}, // as over federation, which drops the user
		{of: "one", signer: "two", user: "one", id: "one", key: "report.one.m"},
		{of: "two", signer: "one", user: "one", id: "one", key: "report.one.m"},
		{of: "one", signer: "one", user: "test", id: "test", key: "report.one.m"},
		{of: "one", signer: "one", user: "two", id: "two", key: "report.two.m"}, // heard and sent again by another
		{of: "one", signer: "one", user: "two", key: "report.two.m"},
		{of: "one", signer: "one", user: "two", key: "report.two.m", headers: amqp091.Table{"CC": []any{"report.one.m"}}},
		{of: "one", signer: "one", user: "two", key: "report.two.m", headers: amqp091.Table{"BCC": []any{"report.one.m"}}},
		{of: "one", signer: "one", user: "one", id: "one", key: "report.one.n"},
		{of: "one", signer: "one", user: "test", key: "announce.m"},
	}
	for i, c := range cases {
		r := event.Report{Module: "m", Mirror: c.of, Epoch: "7c1e9f02", Run: uint64(i + 1), Outcome: event.Applied, Serial: 1, Applied: 1}
		line, err := event.Seal(r, d.keys[c.signer])
		if err != nil {
			t.Fatal(err)
		}
		publish(t, node, c.user, passwords[c.user], c.key, amqp091.Publishing{Headers: c.headers, UserId: c.id, MessageId: fmt.Sprint(i), Body: line})
	}
	master, err := transports.Registry{amqp.Driver()}.Open(transports.Master, "amqp", conf, transports.Env{Self: "master"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	subs := []transports.Subscription{{Topic: transports.Topic{Kind: transports.Report, Module: "m"}}, {Topic: transports.Topic{Kind: transports.Report, Module: "n"}}}
	go func() { ended <- master.Run(ctx, subs, w) }()
	defer func() { cancel(); <-ended }()

	last := d.message(t, event.Report{Module: "m", Mirror: "one", Epoch: "7c1e9f02", Run: 100, Outcome: event.Applied, Serial: 1, Applied: 1}, "one", "", "m")
	publish(t, node, "one", passwords["one"], "report.one.m", amqp091.Publishing{Body: last.Body, MessageId: "last"})
	want := []uint64{100}
	for i, c := range cases {
		if c.good {
			want = append(want, uint64(i+1))
		}
	}
	slices.Sort(want)
	testenv.WaitFor(t, time.Minute, func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		if !w.accepted[100] {
			return errors.New("the last report has not come")
		}
		return nil
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	if got := slices.Sorted(maps.Keys(w.accepted)); !slices.Equal(got, want) {
		t.Errorf("accepted %v, want %v; refused %v", got, want, w.refused)
	}
	if w.refused[7] != "report of one was brought by another peer" || len(w.refused) < 6 {
		t.Errorf("refused %v", w.refused)
	}
}

// importUsers makes users with the permissions of mirrors.
func importUsers(t *testing.T, node *testenv.RabbitMQ, passwords map[string]string) {
	t.Helper()
	users := amqp.Users{Master: "master", Mirrors: slices.Sorted(maps.Keys(passwords)), Passwords: passwords}
	text, err := amqp.Definitions("mirrorbus", amqp.DefaultTopology(), users)
	if err != nil {
		t.Fatal(err)
	}
	var definitions map[string]any
	if err := json.Unmarshal(text, &definitions); err != nil {
		t.Fatal(err)
	}
	node.API(http.MethodPost, "/api/definitions", definitions, nil)
}

// publish sends one message as a user and waits until the broker has it.
func publish(t *testing.T, node *testenv.RabbitMQ, user, password, key string, m amqp091.Publishing) {
	t.Helper()
	conn, err := amqp091.DialConfig(node.URL(), amqp091.Config{Vhost: "mirrorbus", SASL: []amqp091.Authentication{&amqp091.PlainAuth{Username: user, Password: password}}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // what it was for is done
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	c, err := ch.PublishWithDeferredConfirm("mb.report", key, false, false, m)
	if err != nil {
		t.Fatal(err)
	}
	if !c.Wait() && m.Headers == nil { // copies are refused from 4.1 on
		t.Fatalf("the broker does not take the message of %s on %s", user, key)
	}
}
