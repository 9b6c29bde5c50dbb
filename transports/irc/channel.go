package irc

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lrstanley/girc"

	"github.com/mirrorbus/mirrorbus/transports"
)

// A place is a channel that we are in, or should be.
type place struct {
	name    string
	entered bool // at least once
	inside  bool
	outside error // why we are not
}

// visit adds a channel to those to be in.
func (s *session) visit(channel string) {
	if s.place(channel) == nil {
		s.places[girc.ToRFC1459(channel)] = &place{name: channel, outside: fmt.Errorf("not in %s yet", channel)}
	}
}

// place is the channel of this name if it is one of ours, or nil.
func (s *session) place(name string) *place { return s.places[girc.ToRFC1459(name)] }

// names are those of all channels, in order.
func (s *session) names() []string {
	var all []string
	for _, p := range s.places {
		all = append(all, p.name)
	}
	slices.Sort(all)
	return all
}

// join asks for the channels that we are not in.
func (s *session) join() {
	for _, name := range s.names() {
		s.mu.Lock()
		inside := s.place(name).inside
		s.mu.Unlock()
		if inside {
			continue
		}
		line := "JOIN " + name
		if key := s.t.conf.ChannelKey.Reveal(); key != "" {
			line += " " + key
		}
		s.reply(line)
	}
}

// flurry is within what time the master comes to all the channels that we share with it: one of them is enough to look.
const flurry = 5 * time.Second

// moved handles who comes and goes.
func (s *session) moved(e girc.Event) {
	if e.Source == nil || len(e.Params) == 0 && e.Command != "QUIT" {
		return
	}
	who, me := e.Source.Name, s.isMe(e.Source.Name)
	var p *place
	if len(e.Params) > 0 {
		p = s.place(e.Params[0])
	}
	switch e.Command {
	case "JOIN":
		if p != nil {
			s.joined(p, who, me)
		}
	case "PART":
		if me && p != nil {
			s.left(p, "removed from "+p.name)
		}
	case "KICK":
		if p != nil && len(e.Params) > 1 && s.isMe(e.Params[1]) {
			s.left(p, fmt.Sprintf("kicked from %s by %s: %s", p.name, who, e.Last()))
		}
	case "NICK":
		if me {
			s.setNick(e.Params)
			s.log.Info("has another nick", "nick", e.Params[0])
			return
		}
		s.freed(who)
		if same(e.Params[0], s.t.master) {
			s.masterCame()
		}
	case "QUIT":
		s.freed(who)
	}
}

// freed notes that nobody has a nick any more.
func (s *session) freed(nick string) {
	if same(nick, s.t.conf.Nick) {
		s.reclaim(false)
	}
	if s.t.master != "" && same(nick, s.t.master) {
		s.master = time.Time{}
	}
}

// joined notes that somebody, or we, came to a channel.
func (s *session) joined(p *place, who string, me bool) {
	if !me {
		if s.t.master != "" && same(who, s.t.master) {
			s.masterCame()
		}
		return
	}
	s.mu.Lock()
	again, complete := p.entered, true
	p.entered, p.inside, p.outside = true, true, nil
	for _, other := range s.places {
		complete = complete && other.entered
	}
	s.mu.Unlock()
	if again {
		s.t.counts.rejoins.Add(1)
		s.log.Info("in the channel again", "channel", p.name)
		s.hand(item{again: true})
		return
	}
	if !complete {
		return
	}
	if nick := s.self(); !same(nick, s.t.conf.Nick) {
		s.log.Warn("somebody else has our nick; it is asked for again and again", "nick", s.t.conf.Nick, "have", nick)
	}
	close(s.entered)
}

// masterCame looks whether something may have been lost: the master may have been on the other side of a split network, and have spoken there, before
// we came or after.
func (s *session) masterCame() {
	if now := time.Now(); now.Sub(s.master) > flurry {
		s.master = now
		s.hand(item{again: true})
	}
}

// left notes that we are not in a channel any more.
func (s *session) left(p *place, why string) {
	s.log.Warn("not in the channel any more, joining it again after a while", "channel", p.name, "why", why)
	s.setOutside(p, errors.New(why))
	s.again()
}

func (s *session) setOutside(p *place, why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.inside, p.outside = false, why
}

func (s *session) again() {
	select {
	case s.kicked <- struct{}{}:
	default:
	}
}

// entryErrors are the answers to JOIN, and what to do about each.
var entryErrors = map[string]string{
	"403": "there is no such channel", "405": "we are in too many channels", "437": "it is not available for a while", "471": "it is full",
	"473": "it is for those who are invited: have its operators invite us, or give us an exception (+I)", "474": "we are banned: ask its operators",
	"475": "its key is another one: see channel_key_file", "476": "that is no name of a channel here", "477": "it is for those who are logged in: set sasl",
	"489": "it is for those with TLS", "520": "it is for operators of the network", "926": "it is forbidden",
}

// refusedEntry handles an answer to JOIN. It tells whether the line was one.
func (s *session) refusedEntry(e girc.Event) bool {
	remedy, known := entryErrors[e.Command]
	if !known || len(e.Params) < 2 || s.place(e.Params[1]) == nil {
		return false
	}
	p := s.place(e.Params[1])
	s.mu.Lock()
	inside := p.inside
	s.mu.Unlock()
	if inside {
		return false
	}
	err := fmt.Errorf("it does not let us into %s: %s (%s)", p.name, e.Last(), remedy)
	if e.Command != "471" && e.Command != "437" {
		err = transports.Permanent(err)
	}
	select {
	case <-s.entered: // we were in it before
		s.log.Warn("cannot join the channel again", "error", err)
		s.setOutside(p, err)
		s.again()
	default:
		s.end(err)
	}
	return true
}

// notes say what is wrong while the connection stands.
func (s *session) notes() (all []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range s.names() {
		if p := s.place(name); !p.inside {
			all = append(all, p.outside.Error())
		}
	}
	if !same(s.nick, s.t.conf.Nick) {
		text := fmt.Sprintf("somebody else has the nick %s; here it is %s", s.t.conf.Nick, s.nick)
		if s.t.hasYielded() {
			text += "; services have given it to them, who have our account: is it another master?"
		}
		all = append(all, text)
	}
	return all
}

// explainEnd says what the server's last words mean.
func (s *session) explainEnd(words string) error {
	err := fmt.Errorf("it ends the connection: %s", words)
	lower := strings.ToLower(words)
	has := func(any ...string) bool {
		for _, w := range any {
			if strings.Contains(lower, w) {
				return true
			}
		}
		return false
	}
	switch {
	case takenAway(words):
		return fmt.Errorf("%w: somebody with our account and nickserv has taken our nick: another master? give each a nick of its own", err)
	case has("password", "access denied"):
		return transports.Permanent(fmt.Errorf("%w; see server_password_file", err))
	case has("flood", "recvq", "sendq"):
		return transports.Permanent(fmt.Errorf("%w; lower rate and burst", err))
	case has("banned", "k-line", "g-line", "z-line", "kline", "gline"):
		return transports.Permanent(fmt.Errorf("%w; ask its operators", err))
	}
	return err
}
