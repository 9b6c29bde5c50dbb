package irc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/lrstanley/girc"
	"golang.org/x/time/rate"

	"github.com/mirrorbus/mirrorbus/transports"
)

// maxQueue is how many messages may wait for the receiver. A server cannot be asked to wait: it ends who does not read.
const maxQueue = 1024

// A session is one connection: a nick in its channels.
type session struct {
	t       *transport
	log     *slog.Logger
	server  string
	topics  map[transports.Topic]bool
	conn    *conn
	limit   *rate.Limiter
	running sync.WaitGroup
	entered chan struct{} // closed when it is in all channels for the first time
	done    chan struct{} // closed when the library has ended
	heard   chan item     // for the receiver
	kicked  chan struct{} // holds one token: a channel is to be joined again
	sending chan struct{} // holds one token while somebody publishes
	asked   chan question // for the process

	// Touched by the handler of the library alone, which is called for one line after the other.
	reg       registration
	parts     parts
	askers    askers
	inquiries inquiries
	master    time.Time // when the nick that reports go to was seen to come

	mu     sync.Mutex
	err    error // why it ended
	nick   string
	places map[string]*place // by the name of the channel, as servers compare it
	fence  *fence            // of who publishes
}

// An item is what goes to the receiver: a message, or word that something may have been lost.
type item struct {
	message transports.Message
	again   bool
}

func newSession(t *transport, server string, subs []transports.Subscription) *session {
	s := &session{
		t: t, log: t.log.With("server", server), server: server, topics: map[transports.Topic]bool{}, limit: rate.NewLimiter(rate.Limit(t.conf.Rate), t.conf.Burst),
		entered: make(chan struct{}), done: make(chan struct{}), heard: make(chan item, maxQueue), kicked: make(chan struct{}, 1), sending: make(chan struct{}, 1), asked: make(chan question, maxAsked),
		nick: t.conf.Nick, places: map[string]*place{}, inquiries: inquiries{},
	}
	for _, sub := range subs {
		s.topics[sub.Topic] = true
		s.visit(t.conf.channelOf(sub.Topic.Module))
	}
	if len(subs) == 0 {
		s.visit(t.conf.Channel)
		for _, channel := range t.conf.Channels {
			s.visit(channel)
		}
	}
	return s
}

// fail ends the session for the first reason that is given.
func (s *session) fail(err error) {
	if err == nil {
		err = transports.ErrClosed
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
	}
}

// end ends the session for a reason, now.
func (s *session) end(err error) {
	s.fail(err)
	s.conn.Close() //nolint:errcheck // it may be closed already
}

// why says why the session has ended.
func (s *session) why() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if errors.Is(s.err, io.EOF) || errors.Is(s.err, net.ErrClosed) {
		return transports.ErrClosed
	}
	return s.err
}

// deliver hands over what is heard until ctx is done, the session has ended or r fails. What was heard before the end is handed over still.
func (s *session) deliver(ctx context.Context, r transports.Receiver) error {
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case it := <-s.heard:
			if err := it.to(ctx, r); err != nil {
				return err
			}
			continue
		case <-s.done:
		}
		for len(s.heard) > 0 && ctx.Err() == nil {
			if err := (<-s.heard).to(ctx, r); err != nil {
				return err
			}
		}
		return fmt.Errorf("%s: %w", s.server, s.why())
	}
}

// to hands the item over.
func (it item) to(ctx context.Context, r transports.Receiver) error {
	if it.again {
		r.Connected()
		return nil
	}
	return r.Receive(ctx, it.message)
}

// hand puts something into the queue of the receiver.
func (s *session) hand(it item) {
	select {
	case s.heard <- it:
	default:
		s.end(fmt.Errorf("%d messages wait for this process, which takes none: connecting again, what was missed is looked up", maxQueue))
	}
}

// on handles a line of the server.
func (s *session) on(_ *girc.Client, e girc.Event) {
	switch e.Command {
	case "PING":
		s.reply("PONG :" + e.Last())
	case "PONG":
		s.answered(e.Last())
	case "ERROR":
		if takenAway(e.Last()) {
			s.t.yield()
		}
		s.end(s.explainEnd(e.Last()))
	case "PRIVMSG":
		s.message(e)
	case "NOTICE": // never acted on, but for what services say of our login
		s.noticed(e)
	case "JOIN", "PART", "KICK", "QUIT", "NICK":
		s.moved(e)
	case "CAP", "AUTHENTICATE":
		s.negotiate(e)
	default:
		if len(e.Command) == 3 && e.Command[0] >= '0' && e.Command[0] <= '9' {
			s.numeric(e)
		}
	}
}

// reply says something that is not subject to the limit, but counts.
func (s *session) reply(line string) {
	s.limit.ReserveN(time.Now(), 1)
	if err := s.conn.say(line); err != nil {
		s.end(err)
	}
}

// numeric handles an answer of the server. The first parameter is our nick.
func (s *session) numeric(e girc.Event) {
	if s.register(e) || s.whois(e) || s.refusedEntry(e) {
		return
	}
	if e.Command[0] == '4' || e.Command[0] == '5' {
		s.refused(e)
	}
}

// message handles a line that somebody says, to a channel or to us.
func (s *session) message(e girc.Event) {
	if e.Source == nil || len(e.Params) != 2 || s.isMe(e.Source.Name) || !s.isMe(e.Params[0]) && s.place(e.Params[0]) == nil {
		return
	}
	s.t.counts.heard.Add(1)
	if s.asks(e) {
		return
	}
	m, ok := s.read(e.Source.String(), e.Params[1])
	if !ok {
		return
	}
	if !s.topics[m.Topic] {
		s.t.counts.ignored.Add(1)
		return
	}
	s.hand(item{message: m}) // not From anybody: a nick is nobody, and an account is not the name of a mirror
}

// read makes a message of what somebody says, if it is one by now.
func (s *session) read(sender, text string) (m transports.Message, ok bool) {
	if t, body, ok := saidLine(text); ok {
		return received(t, body), true
	}
	if len(text) < len(partLine) || text[:len(partLine)] != partLine {
		s.t.counts.ignored.Add(1)
		return m, false
	}
	p, err := parsePart(text)
	if err != nil {
		s.t.counts.partsDropped.Add(1)
		return m, false
	}
	body, err := s.parts.take(sender, p, time.Now())
	if err != nil {
		s.log.Debug("dropped a message in parts", "from", sender, "error", err)
	}
	return received(p.topic, body), body != nil
}

func received(t transports.Topic, body []byte) transports.Message {
	return transports.Message{Topic: t, ID: partID(t, body), Body: body}
}

// tend keeps the connection alive, gets the nick and the channels back.
func (s *session) tend() {
	alive := time.NewTicker(s.t.conf.Keepalive.Duration)
	defer alive.Stop()
	wait := s.t.conf.Rejoin.Duration
	var last time.Time
	var again <-chan time.Time
	for {
		select {
		case <-s.done:
			return
		case <-alive.C:
			s.reply("PING :alive") // the silence that follows if nobody is there ends the session, see conn.Read
			s.reclaim(true)
		case <-s.kicked:
			if time.Since(last) > 2*maxRejoin {
				wait = s.t.conf.Rejoin.Duration
			}
			again, last = time.After(wait), time.Now()
			wait = min(2*wait, maxRejoin)
		case <-again:
			s.join()
		}
	}
}

// maxRejoin is the longest wait before a channel is joined again. Who has been left in peace for twice as long begins anew with the shortest.
const maxRejoin = 10 * time.Minute

// same compares nicks and channels as servers do.
func same(a, b string) bool { return girc.ToRFC1459(a) == girc.ToRFC1459(b) }

func (s *session) isMe(nick string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return same(nick, s.nick)
}

func (s *session) self() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.nick
}
