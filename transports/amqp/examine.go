package amqp

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/mirrorbus/mirrorbus/transports"
)

// Examine implements transports.Examiner: it looks at each server as this process sees it: whether it lets us in, its version, the topology and what waits in
// it, and whether we may do more than we should.
func (t *transport) Examine(ctx context.Context) []transports.Finding {
	var all []transports.Finding
	for _, text := range t.broker.Servers {
		all = append(all, t.examineServer(ctx, text)...)
	}
	return all
}

func (t *transport) examineServer(ctx context.Context, text string) []transports.Finding {
	s, err := parseServer(text, t.broker.Plaintext)
	if err != nil {
		return []transports.Finding{transports.Bad(text, "see mirrorbus check", err)}
	}
	l, err := t.dialOne(ctx, s, "doctor")
	if err != nil {
		return []transports.Finding{transports.Bad(s.addr, "its text says what to change; if the broker is away for a while nothing is lost", err)}
	}
	defer l.close()
	all := []transports.Finding{t.examineVersion(l, s)}
	if err := l.checkVersion(ctx); err != nil {
		return append(all, transports.Bad(s.addr, "the operator of the broker runs it once", err))
	}
	all = append(all, t.examineQueues(ctx, l)...)
	return append(all, t.examineRights(ctx, l)...)
}

// oldestBroker has streams, and quorum queues that forget what is too old.
var oldestBroker = [2]int{3, 10}

// checkedCopies checks the rights of a sender for the copies, too, that the headers CC and BCC ask for.
var checkedCopies = [2]int{4, 1}

func (t *transport) examineVersion(l *link, s server) transports.Finding {
	product, _ := l.Properties["product"].(string)
	version, _ := l.Properties["version"].(string)
	cluster, _ := l.Properties["cluster_name"].(string)
	what := fmt.Sprintf("%s: %s %s, cluster %s", s.addr, product, version, cluster)
	have, ok := parseVersion(version)
	switch {
	case product != "RabbitMQ" || !ok:
		return transports.Warn(what, "mirrorbus is tested with RabbitMQ", errors.New("not a RabbitMQ that tells its version"))
	case older(have, oldestBroker):
		return transports.Bad(what, "use RabbitMQ 3.10 or later", errors.New("too old: streams are not complete"))
	case older(have, checkedCopies):
		return transports.Good(what + "; before 4.1 the headers CC and BCC pass by the permissions of a sender, and signatures alone say whose a report is")
	}
	return transports.Good(what)
}

func parseVersion(text string) (v [2]int, ok bool) {
	parts := strings.SplitN(text, ".", 3)
	if len(parts) < 2 {
		return v, false
	}
	for i := range v {
		n, err := strconv.Atoi(parts[i])
		if err != nil {
			return v, false
		}
		v[i] = n
	}
	return v, true
}

func older(a, b [2]int) bool { return a[0] < b[0] || a[0] == b[0] && a[1] < b[1] }

// examineQueues asks how much waits in what concerns this process, and in the queues in which nothing should.
func (t *transport) examineQueues(ctx context.Context, l *link) []transports.Finding {
	names := []string{logStream}
	switch {
	case t.role == transports.Master:
		names = []string{logStream, embargoStream, reportQueue, unroutedQueue, deadQueue}
	case t.mirror.Queue == readOwn:
		names = []string{inboxPrefix + t.env.Self, reportQueue}
	case t.mirror.Embargoed:
		names = append(names, embargoStream, reportQueue)
	default:
		names = append(names, reportQueue)
	}
	var all []transports.Finding
	for _, name := range names {
		q, err := l.inspect(ctx, name)
		what := fmt.Sprintf("%s %s", l.server, name)
		switch {
		case err != nil:
			all = append(all, transports.Bad(what, "run `mirrorbus amqp init`", err))
			return all
		case name == unroutedQueue && q.Messages > 0:
			all = append(all, transports.Warn(what, "somebody announces under keys that nobody reads; look at them, and run `mirrorbus amqp init` again if a binding is missing",
				fmt.Errorf("%d messages", q.Messages)))
		case name == deadQueue && q.Messages > 0:
			all = append(all, transports.Warn(what, "look at them; what is no report does no harm and may be purged", fmt.Errorf("%d messages that nobody could take", q.Messages)))
		case name == reportQueue && q.Consumers == 0:
			all = append(all, transports.Warn(what, "see that the master's hub runs; reports wait until it does", fmt.Errorf("nobody reads it, %d messages wait", q.Messages)))
		default:
			all = append(all, transports.Good(fmt.Sprintf("%s: about %d messages", what, q.Messages)))
		}
	}
	return all
}

// examineRights tries what this process must not be able to do, in ways that leave nothing behind. What is refused closes the channel it was
// tried on.
func (t *transport) examineRights(ctx context.Context, l *link) []transports.Finding {
	type try struct {
		what string
		do   func(*amqp091.Channel) error
	}
	publish := func(exchange, key string) func(*amqp091.Channel) error {
		return func(ch *amqp091.Channel) error { // within a transaction that is taken back
			if err := ch.Tx(); err != nil {
				return err
			}
			if err := ch.Publish(exchange, key, false, false, amqp091.Publishing{}); err != nil { //nolint:staticcheck // the library's context is only looked at beforehand
				return err
			}
			return ch.TxRollback()
		}
	}
	tries := []try{{"may change the topology", func(ch *amqp091.Channel) error {
		return ch.ExchangeDeclare(versionMark, amqp091.ExchangeFanout, true, false, false, false, nil)
	}}}
	if t.role == transports.Mirror {
		tries = append(tries, try{"may announce", publish(announceExchange, announceKey("mirrorbus-doctor", false))},
			try{"may report for other mirrors", publish(reportExchange, reportKey(t.env.Self+"-doctor", "mirrorbus-doctor"))})
		if !t.mirror.Embargoed {
			tries = append(tries, try{"may hear of modules that only named mirrors may", func(ch *amqp091.Channel) error {
				if err := ch.Qos(1, 0, false); err != nil {
					return err
				}
				_, err := ch.Consume(embargoStream, "", false, false, false, false, amqp091.Table{"x-stream-offset": "next"})
				return err
			}})
		}
	}
	var wide []string
	for _, try := range tries {
		allowed, err := l.allowed(ctx, try.do)
		if err != nil {
			return []transports.Finding{transports.Bad(l.server+" rights", "try again", err)}
		}
		if allowed {
			wide = append(wide, try.what)
		}
	}
	if len(wide) > 0 {
		return []transports.Finding{transports.Warn(l.server+" rights", "give the user the permissions of deploy/rabbitmq; signatures protect what is announced, not the broker",
			fmt.Errorf("the user %s %s", t.broker.User, strings.Join(wide, ", ")))}
	}
	return []transports.Finding{transports.Good(l.server + " rights: no more than it needs")}
}

// allowed tells whether the broker lets us do something.
func (l *link) allowed(ctx context.Context, do func(*amqp091.Channel) error) (bool, error) {
	defer l.answers(ctx, "what may this user do")()
	ch, err := l.Channel()
	if err != nil {
		return false, l.explain(err)
	}
	closed := ch.NotifyClose(make(chan *amqp091.Error, 1))
	err = do(ch)
	if errors.Is(err, amqp091.ErrClosed) { // what was refused did not wait for an answer, and the broker has closed the channel before the next call
		select {
		case reason := <-closed:
			if reason != nil {
				err = reason
			}
		case <-ctx.Done():
		}
	}
	var refused *amqp091.Error
	switch {
	case err == nil:
		return true, ch.Close()
	case errors.As(err, &refused) && refused.Code == amqp091.AccessRefused:
		return false, nil
	}
	return false, l.explain(err)
}

// inspect asks for a queue's state. Needs no right.
func (l *link) inspect(ctx context.Context, name string) (amqp091.Queue, error) {
	defer l.answers(ctx, "is there a queue "+name)()
	ch, err := l.Channel()
	if err != nil {
		return amqp091.Queue{}, l.explain(err)
	}
	q, err := ch.QueueDeclarePassive(name, true, false, false, false, nil)
	if err != nil {
		return q, l.explain(err)
	}
	if err := ch.Close(); err != nil {
		return q, l.explain(err)
	}
	return q, nil
}
