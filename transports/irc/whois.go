package irc

import (
	"time"

	"github.com/lrstanley/girc"

	"github.com/mirrorbus/mirrorbus/transports"
)

// A server that does not put accounts to lines, nor that a bot has said them, tells both when it is asked (WHOIS). The nick may have changed hands between the line
// and the answer, so that is good enough to be answered, and never to command.

// An inquiry is who the server was asked about, and what they have asked of us.
type inquiry struct {
	account   string
	bot       bool
	questions []question
	since     time.Time
}

// inquiries are by nick, as servers compare it.
type inquiries map[string]*inquiry

// patientInquiry is after what time the server's answer is not waited for any more.
const patientInquiry = time.Minute

// asksWhois tells whether the server has to be asked about who says something.
func (s *session) asksWhois(q question) bool {
	switch s.t.people.Ask {
	case askNobody:
		return false
	case askAccount:
		return q.Account == "" && !s.reg.accounts || !s.reg.tags
	}
	return !s.reg.tags
}

// inquire asks the server about who asks. It is not done where too many ask at once, as it costs a line that we may say.
func (s *session) inquire(nick string, q question) {
	key := girc.ToRFC1459(nick)
	for k, i := range s.inquiries {
		if time.Since(i.since) > patientInquiry {
			delete(s.inquiries, k)
		}
	}
	i := s.inquiries[key]
	if i == nil {
		if len(s.inquiries) >= maxAsked || s.limit.Tokens() < -float64(s.t.conf.Burst) {
			s.t.counts.ignored.Add(1)
			return
		}
		i = &inquiry{since: time.Now()}
		s.inquiries[key] = i
		s.reply("WHOIS " + nick)
	}
	if len(i.questions) >= askBurst {
		s.t.counts.ignored.Add(1)
		return
	}
	i.questions = append(i.questions, q)
}

// whois handles what the server says of somebody: the account (330), that it is a bot (335), and that this was all (318). It tells whether the line was of that kind.
func (s *session) whois(e girc.Event) bool {
	if e.Command != "330" && e.Command != "335" && e.Command != "318" || len(e.Params) < 3 {
		return false
	}
	key := girc.ToRFC1459(e.Params[1])
	i := s.inquiries[key]
	switch {
	case i == nil:
	case e.Command == "330":
		i.account = e.Params[2]
	case e.Command == "335":
		i.bot = true
	default:
		delete(s.inquiries, key)
		s.judged(i)
	}
	return true
}

// judged hands on what was asked by somebody of whom is known who it is.
func (s *session) judged(i *inquiry) {
	for _, q := range i.questions {
		if i.bot {
			s.t.counts.ignored.Add(1)
			continue
		}
		if i.account != "" && q.Rights == transports.MayNothing {
			q.Rights = transports.MayAsk
		}
		s.ask(q)
	}
}
