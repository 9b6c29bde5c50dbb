package irc

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/lrstanley/girc"

	"github.com/mirrorbus/mirrorbus/transports"
)

// A fence is a question that the server answers after all that was said before it: by then it has said what it did not take.
type fence struct {
	token    string
	target   string
	refusal  error
	answered chan struct{}
}

var fences atomic.Uint64

// target is who a message is said to: mirrors report to the master alone.
func (s *session) target(m transports.Message) string {
	if m.Topic.Kind == transports.Report && s.t.role == transports.Mirror {
		return s.t.master
	}
	return s.t.conf.channelOf(m.Topic.Module)
}

// room is how many bytes may be said to a target, under the longest name that the server may put before it for us.
func room(target string) int {
	prefix := len(":!@ ") + maxNick + len("~") + maxUser + len("x") + maxHost
	return maxSaid - prefix - len("PRIVMSG ") - len(target) - len(" :")
}

// A batch is messages whose lines go out together, before one fence.
type batch struct {
	target string
	lines  []string
	places []int // of the messages
}

// patience is how long lines may wait for the limit. What takes longer is too large: the outbox then sends the line alone, and gives up on a message
// after half a minute.
const patience = 20 * time.Second

// errBehind is of a message that was not said because one before it on its topic was not: they go in order.
var errBehind = errors.New("one before it was not said")

// batches groups messages. What cannot be said has its error at its place, and so has what comes after that on its topic.
func (s *session) batches(ms []transports.Message, errs []error) (all []*batch) {
	most := 2*s.t.conf.Burst - 1 // lines before one question
	stuck := map[transports.Topic]bool{}
	for i, m := range ms {
		if !s.t.public(m.Topic) { // its mirrors hear of it in another way; to keep it would be to keep it for ever
			s.t.counts.embargoed.Add(1)
			continue
		}
		target := s.target(m)
		lines, err := s.linesOf(m, target)
		if err == nil && stuck[m.Topic] {
			err = errBehind
		}
		if err != nil {
			errs[i], stuck[m.Topic] = err, true
			continue
		}
		var last *batch
		if len(all) > 0 {
			last = all[len(all)-1]
		}
		if last == nil || last.target != target || len(last.lines)+len(lines) > most {
			last = &batch{target: target}
			all = append(all, last)
		}
		last.lines, last.places = append(last.lines, lines...), append(last.places, i)
	}
	return all
}

// linesOf is what is said for a message.
func (s *session) linesOf(m transports.Message, target string) ([]string, error) {
	if goesByReference(m.Body) {
		return nil, fmt.Errorf("%w: a path set", transports.ErrTooLarge)
	}
	lines, err := split(m, room(target))
	if err == nil && len(lines) > 1 && float64(len(lines)-s.t.conf.Burst) > s.t.conf.Rate*patience.Seconds() {
		err = fmt.Errorf("%w: %d lines at %v a second", transports.ErrTooLarge, len(lines), s.t.conf.Rate)
	}
	return lines, err
}

// publish says messages, in their order and not between those of another call.
func (s *session) publish(ctx context.Context, ms []transports.Message) []error {
	errs := make([]error, len(ms))
	all := s.batches(ms, errs)
	select {
	case s.sending <- struct{}{}:
		defer func() { <-s.sending }()
	case <-s.done:
		return repeat(s.lost(), len(ms))
	case <-ctx.Done():
		return repeat(context.Cause(ctx), len(ms))
	}
	var err error
	for _, b := range all {
		if err == nil {
			err = s.sendBatch(ctx, b)
		}
		for _, i := range b.places {
			errs[i] = err
		}
		if err != nil {
			s.t.counts.refused.Add(uint64(len(b.places)))
		}
	}
	return errs
}

// lost is the error of who publishes when the connection has gone.
func (s *session) lost() error {
	return fmt.Errorf("%w: %w", transports.ErrNotConnected, s.why())
}

// sendBatch says lines and waits until the server has taken them, or says why not.
func (s *session) sendBatch(ctx context.Context, b *batch) error {
	f := &fence{token: fmt.Sprint("mirrorbus", fences.Add(1)), target: b.target, answered: make(chan struct{})}
	if err := s.setFence(f, b.target); err != nil {
		return err
	}
	defer s.setFence(nil, "") //nolint:errcheck // taking it away does not fail
	for _, line := range b.lines {
		if err := s.say(ctx, "PRIVMSG "+b.target+" :"+line); err != nil {
			return err
		}
	}
	if err := s.say(ctx, "PING :"+f.token); err != nil {
		return err
	}
	late := time.NewTimer(s.t.conf.AnswerTimeout.Duration)
	defer late.Stop()
	select {
	case <-f.answered:
		s.mu.Lock()
		defer s.mu.Unlock()
		return f.refusal
	case <-s.done:
		return s.lost()
	case <-late.C:
		s.end(fmt.Errorf("no answer within %v (answer_timeout)", s.t.conf.AnswerTimeout.Duration))
		return s.lost()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// setFence notes who publishes. It is an error to publish to a channel that we are not in.
func (s *session) setFence(f *fence, target string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.place(target); f != nil && p != nil && !p.inside {
		return fmt.Errorf("%w: %w", transports.ErrNotConnected, p.outside)
	}
	s.fence = f
	return nil
}

// say says a line as soon as the limit allows it.
func (s *session) say(ctx context.Context, line string) error {
	if !s.limit.Allow() {
		s.t.counts.throttled.Add(1)
		if err := s.limit.Wait(ctx); err != nil {
			return fmt.Errorf("wait for the limit of lines: %w", err)
		}
	}
	select {
	case <-s.done:
		return s.lost()
	default:
	}
	if err := s.conn.say(line); err != nil {
		s.end(err)
		return fmt.Errorf("%w: %w", transports.ErrNotConnected, err)
	}
	s.t.counts.said.Add(1)
	return nil
}

// answered notes that the server has answered a fence.
func (s *session) answered(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.fence; f != nil && f.token == token {
		close(f.answered)
		s.fence = nil
	}
}

// refused notes that the server does not take what was said since the fence was set.
func (s *session) refused(e girc.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.fence
	if f == nil || len(e.Params) < 2 {
		return
	}
	switch {
	case e.Command == "417" || e.Command == "412" || e.Command == "407": // too long, nothing said, too many: to nobody in particular
	case !same(e.Params[1], f.target):
		return
	}
	if e.Command == "401" {
		f.refusal = fmt.Errorf("%w: nobody on IRC has the nick %s now", transports.ErrNotConnected, f.target)
		return
	}
	f.refusal = transports.Permanent(fmt.Errorf("%s does not let us speak to %s: %s; have its operators give us voice (+v)", s.server, f.target, strings.TrimSpace(e.Last())))
}
