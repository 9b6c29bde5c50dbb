package irc

import (
	"context"
	"errors"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/lrstanley/girc"
	"golang.org/x/time/rate"

	"github.com/mirrorbus/mirrorbus/transports"
)

// commandLine is how a signed command begins.
const commandLine = signedLine + "command "

// Bounds of talking with people.
const (
	maxAsked   = 16              // questions that wait for an answer
	maxAskers  = 256             // of whom is known how much they ask
	maxAnswer  = 8               // lines
	maxTold    = 380             // bytes of a line
	askEvery   = 6 * time.Second // on the average, and askBurst at once, for each person: five in half a minute
	askBurst   = 5
	askTimeout = 30 * time.Second
)

// A question is one that somebody has asked, and whom the answer goes to.
type question struct {
	transports.Question
	to string
}

// askers is how much each person has asked lately, by user and host: a nick is changed quickly.
type askers map[string]*rate.Limiter

// may tells whether one may ask once more.
func (a *askers) may(who string) bool {
	if *a == nil || len(*a) >= maxAskers && (*a)[who] == nil {
		*a = askers{}
	}
	if (*a)[who] == nil {
		(*a)[who] = rate.NewLimiter(rate.Every(askEvery), askBurst)
	}
	return (*a)[who].Allow()
}

// asks takes what somebody says for a command, if it is one, and tells whether it was. No bot is answered, and nobody is who asks too much.
func (s *session) asks(e girc.Event) bool {
	text, command := strings.CutPrefix(strings.TrimSpace(e.Params[1]), "!")
	signed := strings.HasPrefix(text, commandLine)
	if s.t.talk.Ask == nil || !command && !signed {
		return false
	}
	if isBot(e.Tags) || !s.askers.may(e.Source.Ident+"@"+e.Source.Host) {
		s.t.counts.ignored.Add(1)
		return true
	}
	q := question{transports.Question{Text: text, Account: e.Tags["account"], Alone: s.isMe(e.Params[0])}, e.Params[0]}
	if q.Alone {
		q.to = e.Source.Name
	}
	q.Rights = s.rights(q.Account)
	if !signed && s.asksWhois(q) {
		s.inquire(e.Source.Name, q)
	} else {
		s.ask(q)
	}
	return true
}

// ask hands a question to the process.
func (s *session) ask(q question) {
	select {
	case s.asked <- q:
		s.t.counts.asked.Add(1)
	default:
		s.t.counts.ignored.Add(1)
	}
}

// isBot tells whether the server says that a bot has said this; before the tag had its name, servers had names of their own.
func isBot(tags girc.Tags) bool {
	for _, name := range []string{"bot", "draft/bot", "inspircd.org/bot"} {
		if _, bot := tags[name]; bot {
			return true
		}
	}
	return false
}

// rights are what the configuration lets an account do that the server vouches for.
func (s *session) rights(account string) transports.Rights {
	people := s.t.people
	if account != "" {
		for _, operator := range people.Operators {
			if strings.EqualFold(operator, account) {
				return transports.MayCommand
			}
		}
	}
	if people.Ask == askAnybody || people.Ask == askAccount && account != "" {
		return transports.MayAsk
	}
	return transports.MayNothing
}

// talk says news and answers questions until the function that it returns is called or the session ends.
func (s *session) talk(ctx context.Context) (hush func()) {
	ctx, hush = context.WithCancel(ctx)
	// People get at most half of what may be said.
	p := &people{s: s, limit: rate.NewLimiter(rate.Limit(s.t.conf.Rate/2), max(s.t.conf.Burst/2, 1))}
	s.running.Go(func() {
		select {
		case <-s.done:
			hush()
		case <-ctx.Done():
		}
	})
	if s.t.talk.Ask != nil {
		s.running.Go(func() { p.answer(ctx) })
	}
	if s.t.talk.Tell != nil && s.t.people.News {
		s.running.Go(func() {
			err := s.t.talk.Tell(ctx, func(module, text string) error { return p.say(ctx, s.t.conf.channelOf(module), text) })
			if err != nil && ctx.Err() == nil && !errors.Is(err, transports.ErrNotConnected) {
				s.log.Warn("cannot tell news", "error", err)
			}
		})
	}
	return hush
}

// people are those whom the session talks to.
type people struct {
	s     *session
	limit *rate.Limiter
}

// answer answers one question after the other.
func (p *people) answer(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case q := <-p.s.asked:
			p.answerOne(ctx, q)
		}
	}
}

func (p *people) answerOne(ctx context.Context, q question) {
	asking, cancel := context.WithTimeout(ctx, askTimeout)
	lines, err := p.s.t.talk.Ask(asking, q.Question)
	cancel()
	if err != nil {
		lines = []string{"error: " + err.Error()}
		p.s.log.Info("asked for what cannot be", "account", q.Account, "error", err)
	}
	if len(lines) > maxAnswer {
		lines = append(lines[:maxAnswer-1:maxAnswer-1], "…")
	}
	for _, line := range lines {
		if p.say(ctx, q.to, line) != nil {
			return // the session ends, which says why
		}
	}
}

// say says one line for people, by NOTICE, which no bot answers.
func (p *people) say(ctx context.Context, target, text string) error {
	if err := p.limit.Wait(ctx); err != nil {
		return err
	}
	p.s.t.counts.told.Add(1)
	return p.s.say(ctx, "NOTICE "+target+" :"+fitted(text))
}

// fitted is a text as it can be said: on one line, without codes for colours, and not too long.
func fitted(text string) string {
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	if len(text) <= maxTold {
		return text
	}
	n := maxTold - len("…")
	for !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n] + "…"
}
