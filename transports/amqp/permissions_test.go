package amqp_test

import (
	"errors"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"
)

// An escape is something that a user tries and must not be able to do.
type escape struct {
	name string
	do   func(ch *amqp091.Channel) error
	code int // of the broker's refusal, 403 if it is 0
}

// publishing sends a message, and returns why the broker refuses it.
func publishing(exchange, key string, m amqp091.Publishing) func(*amqp091.Channel) error {
	return func(ch *amqp091.Channel) error {
		closed := ch.NotifyClose(make(chan *amqp091.Error, 1))
		if err := ch.Confirm(false); err != nil {
			return err
		}
		m.Body = []byte("x")
		c, err := ch.PublishWithDeferredConfirm(exchange, key, false, false, m)
		if err != nil {
			return err
		}
		select {
		case err := <-closed:
			return err
		case <-c.Done():
		case <-time.After(patience):
			return errors.New("the broker says nothing")
		}
		if c.Acked() {
			return nil
		}
		return <-closed
	}
}

func consuming(queue string) func(*amqp091.Channel) error {
	return func(ch *amqp091.Channel) error {
		if err := ch.Qos(1, 0, false); err != nil {
			return err
		}
		_, err := ch.Consume(queue, "", false, false, false, false, nil)
		return err
	}
}

func getting(queue string) func(*amqp091.Channel) error {
	return func(ch *amqp091.Channel) error { _, _, err := ch.Get(queue, false); return err }
}

func purging(queue string) func(*amqp091.Channel) error {
	return func(ch *amqp091.Channel) error { _, err := ch.QueuePurge(queue, false); return err }
}

func declaring(queue string, exclusive bool, args amqp091.Table) func(*amqp091.Channel) error {
	return func(ch *amqp091.Channel) error {
		_, err := ch.QueueDeclare(queue, !exclusive, false, exclusive, false, args)
		return err
	}
}

func binding(queue, key, exchange string) func(*amqp091.Channel) error {
	return func(ch *amqp091.Channel) error { return ch.QueueBind(queue, key, exchange, false, nil) }
}

func deleting(queue string) func(*amqp091.Channel) error {
	return func(ch *amqp091.Channel) error { _, err := ch.QueueDelete(queue, false, false, false); return err }
}

// anybody must not be able to do these.
func anybody() []escape {
	durable := func(name, kind string) func(*amqp091.Channel) error {
		return func(ch *amqp091.Channel) error { return ch.ExchangeDeclare(name, kind, true, false, false, false, nil) }
	}
	all := []escape{
		{name: "make a queue", do: declaring("mine", false, nil)},
		{name: "make an exclusive queue", do: declaring("mine", true, nil)},
		{name: "make a queue that the server names", do: declaring("", true, nil)},
		{name: "make a queue with the name of a line end, which ^$ matches", do: declaring("\n", false, nil)},
		{name: "make a queue with the prefix of an inbox", do: declaring("inbox.mine", false, nil)},
		{name: "make a queue that dead-letters into announcements", do: declaring("mine", false, amqp091.Table{"x-dead-letter-exchange": "mb.announce"})},
		{name: "make an exchange", do: durable("mine", "fanout")},
		{name: "make an exchange with the name of a line end", do: durable("\n", "fanout")},
		{name: "make the mark of another version", do: durable("mb.topology.1", "fanout")},
		{name: "delete an exchange", do: func(ch *amqp091.Channel) error { return ch.ExchangeDelete("mb.announce", false, false) }},
		{name: "bind an exchange to another", do: func(ch *amqp091.Channel) error { return ch.ExchangeBind("mb.announce", "#", "mb.report", false, nil) }},
		{name: "send to a queue through the default exchange", do: publishing("", "mb.report.in", amqp091.Publishing{})},
		{name: "send to a stream through the default exchange", do: publishing("", "mb.log", amqp091.Publishing{})},
		{name: "send to amq.topic", do: publishing("amq.topic", "announce.fedora", amqp091.Publishing{})},
		{name: "send to the dead", do: publishing("mb.dead", "", amqp091.Publishing{})},
		{name: "send to the unrouted", do: publishing("mb.unrouted", "", amqp091.Publishing{})},
		{name: "read what nobody could take", do: consuming("mb.dead")},
		{name: "read what nobody reads", do: consuming("mb.unrouted")},
		{name: "read the embargoed log", do: consuming("mb.log.embargo")},
		{name: "say that it is somebody else", do: publishing("mb.none", "", amqp091.Publishing{UserId: "beta"})}, // no such exchange: only that it is refused
	}
	for _, queue := range []string{"mb.log", "mb.log.embargo", "mb.report.in", "mb.dead", "inbox.beta", "inbox.gamma"} {
		all = append(all,
			escape{name: "delete " + queue, do: deleting(queue)},
			escape{name: "bind " + queue + " to announcements", do: binding(queue, "#", "mb.announce")},
			escape{name: "bind " + queue + " to reports", do: binding(queue, "report.#", "mb.report")},
			escape{name: "unbind " + queue, do: func(ch *amqp091.Channel) error { return ch.QueueUnbind(queue, "announce.#", "mb.announce", nil) }},
		)
	}
	return all
}

// escapes are what each user of smallSite must not be able to do, besides.
var escapes = map[string][]escape{
	"alpha": {
		{name: "report as another mirror", do: publishing("mb.report", "report.beta.fedora", amqp091.Publishing{})},
		{name: "report as a mirror whose name begins alike", do: publishing("mb.report", "report.alpha.x.fedora", amqp091.Publishing{})},
		{name: "report under no name", do: publishing("mb.report", "report", amqp091.Publishing{})},
		{name: "report under a key of announcements", do: publishing("mb.report", "announce.fedora", amqp091.Publishing{})},
		{name: "report as another user", do: publishing("mb.report", "report.alpha.fedora", amqp091.Publishing{UserId: "beta"}), code: 406},
		{name: "announce", do: publishing("mb.announce", "announce.fedora", amqp091.Publishing{})},
		{name: "announce what is embargoed", do: publishing("mb.announce", "embargo.fedora", amqp091.Publishing{})},
		{name: "announce under a key that ^$ matches", do: publishing("mb.announce", "", amqp091.Publishing{})},
		{name: "announce within a transaction", do: func(ch *amqp091.Channel) error {
			if err := ch.Tx(); err != nil {
				return err
			}
			if err := ch.Publish("mb.announce", "announce.fedora", false, false, amqp091.Publishing{Body: []byte("x")}); err != nil { //nolint:staticcheck // the library's context is only looked at beforehand
				return err
			}
			return ch.TxCommit()
		}},
		{name: "read reports", do: consuming("mb.report.in")},
		{name: "get reports", do: getting("mb.report.in")},
		{name: "purge reports", do: purging("mb.report.in")},
		{name: "read another's queue", do: consuming("inbox.beta")},
		{name: "get from another's queue", do: getting("inbox.gamma")},
		{name: "purge another's queue", do: purging("inbox.gamma")},
		{name: "purge the log", do: purging("mb.log"), code: 540},
		{name: "get from the log", do: getting("mb.log"), code: 540},
	},
	"beta": {
		{name: "read another's queue", do: consuming("inbox.gamma")},
		{name: "purge another's queue", do: purging("inbox.gamma")},
	},
	"d.elta": {
		{name: "report as one whose name is alike", do: publishing("mb.report", "report.dxelta.fedora", amqp091.Publishing{})},
		{name: "report as another mirror", do: publishing("mb.report", "report.d.fedora", amqp091.Publishing{})},
	},
	"master": {
		{name: "report", do: publishing("mb.report", "report.alpha.fedora", amqp091.Publishing{})},
		{name: "announce under other keys", do: publishing("mb.announce", "report.alpha.fedora", amqp091.Publishing{})},
		{name: "announce with too many words", do: publishing("mb.announce", "announce.fedora.x", amqp091.Publishing{})},
		{name: "announce as another user", do: publishing("mb.announce", "announce.fedora", amqp091.Publishing{UserId: "alpha"}), code: 406},
		{name: "read the log", do: consuming("mb.log")},
		{name: "read a mirror's queue", do: consuming("inbox.beta")},
	},
}

// Nobody can do with the shipped permissions what is not meant for them; what is meant works.
func TestPermissionsHold(t *testing.T) {
	t.Parallel()
	topology, users := smallSite()
	s := imported(t, topology, users)
	for user, more := range escapes {
		conn, err := s.connection(user, users.Passwords[user])
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range append(anybody(), more...) {
			if conn.IsClosed() { // as after 540
				if conn, err = s.connection(user, users.Passwords[user]); err != nil {
					t.Fatal(err)
				}
			}
			ch, err := conn.Channel()
			if err != nil {
				t.Fatal(err)
			}
			e.code = max(e.code, amqp091.AccessRefused)
			closed := ch.NotifyClose(make(chan *amqp091.Error, 1))
			err = e.do(ch)
			if errors.Is(err, amqp091.ErrClosed) { // it was closed between two steps; why is said here
				if why := <-closed; why != nil {
					err = why
				}
			}
			var refused *amqp091.Error
			if !errors.As(err, &refused) || refused.Code != e.code {
				t.Errorf("%s tries to %s: %v, want %d", user, e.name, err, e.code)
			}
			ch.Close() //nolint:errcheck // the broker has closed it
		}
	}
	for user, allowed := range map[string][]escape{
		"alpha": {
			{name: "report", do: publishing("mb.report", "report.alpha.fedora", amqp091.Publishing{UserId: "alpha"})},
			{name: "read the log", do: consuming("mb.log")},
		},
		"beta": {{name: "read its queue", do: consuming("inbox.beta")}, {name: "read the log", do: consuming("mb.log")}},
		"gamma": {
			{name: "read its queue", do: consuming("inbox.gamma")}, {name: "read the log", do: consuming("mb.log")},
			{name: "read the embargoed log", do: consuming("mb.log.embargo")},
		},
		"d.elta": {{name: "report", do: publishing("mb.report", "report.d.elta.fed~ora", amqp091.Publishing{UserId: "d.elta"})}},
		"master": {
			{name: "announce", do: publishing("mb.announce", "announce.fedora", amqp091.Publishing{UserId: "master"})},
			{name: "announce what is embargoed", do: publishing("mb.announce", "embargo.fedora", amqp091.Publishing{})},
			{name: "read reports", do: consuming("mb.report.in")},
		},
	} {
		for _, e := range allowed {
			ch, err := s.as(user, users.Passwords[user])
			if err != nil {
				t.Fatal(err)
			}
			if err := e.do(ch); err != nil {
				t.Errorf("%s must be able to %s: %v", user, e.name, err)
			}
		}
	}
}
