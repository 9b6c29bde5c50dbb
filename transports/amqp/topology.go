package amqp

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/mirrorbus/mirrorbus/transports"
)

// A Topology is what a vhost of the broker must hold. TOPOLOGY.md describes it.
type Topology struct {
	// Replicas is the number of nodes that keep each stream and quorum queue: 1 on a single node, 3 in a cluster.
	Replicas int

	// MaxAge is how long announcements are kept in the streams, as in "30D". The newest file of a stream is always kept.
	MaxAge string

	// Inboxes are the mirrors that have a queue of their own, and its type: "quorum" or "classic".
	Inboxes map[string]string

	// Embargoed are the mirrors that may hear of modules that not everybody may.
	Embargoed []string
}

// DefaultTopology is that of a single node and of mirrors that all read the stream.
func DefaultTopology() Topology { return Topology{Replicas: 1, MaxAge: "30D"} }

type exchange struct {
	name, kind string
	args       amqp091.Table
}

type queue struct {
	name string
	args amqp091.Table
}

type binding struct{ exchange, queue, key string }

const (
	segmentBytes   = 20_000_000    // of a stream: whole segments are forgotten, and the default of 500 MB would keep everything for ever
	unroutedBytes  = 100_000_000   // of the stream of what nobody reads
	reportsMax     = 1_000_000     // messages that wait for a master that is away, before mirrors are told to wait
	deadMax        = 10_000        // messages that nobody could take
	inboxMax       = 10_000        // announcements that wait for a mirror that is away
	inboxAge       = 30 * 86400000 // ms
	deliveryLimit  = 20            // how often a message may come back before it counts as one that cannot be taken
	quorumType     = "quorum"
	classicType    = "classic"
	queueTypeArg   = "x-queue-type"
	streamTypeName = "stream"
)

// maxAge is how RabbitMQ writes the age of what a stream forgets.
var maxAge = regexp.MustCompile(`^[1-9][0-9]{0,5}[YMDhms]$`)

// Check says what is wrong with it, if anything is.
func (t Topology) Check() error {
	if t.Replicas < 1 {
		return fmt.Errorf("%d replicas: must be 1 or more", t.Replicas)
	}
	if !maxAge.MatchString(t.MaxAge) {
		return fmt.Errorf("how long to keep: %.40q: must be a number and one of Y M D h m s, as in 30D", t.MaxAge)
	}
	for _, mirror := range append(t.inboxes(), t.Embargoed...) {
		if !userName.MatchString(mirror) {
			return fmt.Errorf("mirror %.70q: a name must be 1 to 64 of [A-Za-z0-9._@-]", mirror)
		}
	}
	for mirror, kind := range t.Inboxes {
		if kind != quorumType && kind != classicType {
			return fmt.Errorf("queue of %s: its type must be quorum or classic, not %.40q", mirror, kind)
		}
	}
	return nil
}

func (t Topology) exchanges() []exchange {
	return []exchange{
		{versionMark, amqp091.ExchangeFanout, nil},
		{unroutedExchange, amqp091.ExchangeFanout, nil},
		{deadExchange, amqp091.ExchangeFanout, nil},
		{announceExchange, amqp091.ExchangeTopic, amqp091.Table{"alternate-exchange": unroutedExchange}},
		{reportExchange, amqp091.ExchangeTopic, nil},
	}
}

func (t Topology) queues() []queue {
	stream := func(name, age string, more amqp091.Table) queue {
		args := amqp091.Table{queueTypeArg: streamTypeName, "x-max-age": age, "x-stream-max-segment-size-bytes": int64(segmentBytes)}
		if t.Replicas > 1 {
			args["x-initial-cluster-size"] = int64(t.Replicas)
		}
		for k, v := range more {
			args[k] = v
		}
		return queue{name, args}
	}
	quorum := func(name string, args amqp091.Table) queue {
		args[queueTypeArg] = quorumType
		if t.Replicas > 1 {
			args["x-quorum-initial-group-size"] = int64(t.Replicas)
		}
		return queue{name, args}
	}
	all := []queue{
		stream(logStream, t.MaxAge, nil),
		stream(embargoStream, t.MaxAge, nil),
		stream(unroutedQueue, "7D", amqp091.Table{"x-max-length-bytes": int64(unroutedBytes)}),
		quorum(deadQueue, amqp091.Table{"x-max-length": int64(deadMax), "x-overflow": "drop-head"}),
		// Not with the dead-letter strategy at-least-once: if such a queue is deleted just after a node has started (RabbitMQ 3.10), the node can
		// lead no queue of that kind until it is started again, and answers 541 to whoever asks for one.
		quorum(reportQueue, amqp091.Table{
			"x-single-active-consumer": true, "x-delivery-limit": int64(deliveryLimit), "x-dead-letter-exchange": deadExchange,
			"x-overflow": "reject-publish", "x-max-length": int64(reportsMax),
		}),
	}
	for _, mirror := range t.inboxes() {
		args := amqp091.Table{"x-max-length": int64(inboxMax), "x-overflow": "drop-head", "x-message-ttl": int64(inboxAge)}
		if t.Inboxes[mirror] == quorumType {
			args["x-delivery-limit"] = int64(deliveryLimit)
			all = append(all, quorum(inboxPrefix+mirror, args))
			continue
		}
		args[queueTypeArg] = classicType
		all = append(all, queue{inboxPrefix + mirror, args})
	}
	return all
}

func (t Topology) inboxes() []string {
	var names []string
	for mirror := range t.Inboxes {
		names = append(names, mirror)
	}
	slices.Sort(names)
	return names
}

func (t Topology) bindings() []binding {
	all := []binding{
		{announceExchange, logStream, announceWord + ".#"},
		{announceExchange, embargoStream, embargoWord + ".#"},
		{unroutedExchange, unroutedQueue, ""},
		{deadExchange, deadQueue, ""},
		{reportExchange, reportQueue, reportWord + ".#"},
	}
	for _, mirror := range t.inboxes() {
		all = append(all, binding{announceExchange, inboxPrefix + mirror, announceWord + ".#"})
		if slices.Contains(t.Embargoed, mirror) {
			all = append(all, binding{announceExchange, inboxPrefix + mirror, embargoWord + ".#"})
		}
	}
	return all
}

// declare makes what is missing. What is there with other arguments is an error that names it.
func (t Topology) declare(l *link) error {
	if err := t.Check(); err != nil {
		return err
	}
	ch, err := l.Channel()
	if err != nil {
		return l.explain(err)
	}
	for _, x := range t.exchanges() {
		if err := ch.ExchangeDeclare(x.name, x.kind, true, false, false, false, x.args); err != nil {
			return differs(l.server, "exchange", x.name, err)
		}
	}
	for _, q := range t.queues() {
		if _, err := ch.QueueDeclare(q.name, true, false, false, false, q.args); err != nil {
			return differs(l.server, "queue", q.name, err)
		}
	}
	for _, b := range t.bindings() {
		if err := ch.QueueBind(b.queue, b.key, b.exchange, false, nil); err != nil {
			return l.explain(err)
		}
	}
	return nil
}

// differs explains that an object is there already and is not as it should be.
func differs(server, what, name string, err error) error {
	e, ok := err.(*amqp091.Error) //nolint:errorlint // the library wraps nothing here
	if !ok || e.Code != amqp091.PreconditionFailed {
		return fmt.Errorf("the %s %s: %w", what, name, explain(server, err))
	}
	_, detail, _ := strings.Cut(e.Reason, " - ")
	remedy := "rabbitmqctl delete_queue " + name
	if what == "exchange" {
		remedy = "on the management page"
	}
	return transports.Permanent(fmt.Errorf("the %s %s is there already and is another one: %s. If nothing else uses it, delete it (%s) and run this again; "+
		"mirrors that have read it catch up by themselves", what, name, detail, remedy))
}
