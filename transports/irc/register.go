package irc

import (
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"

	"github.com/lrstanley/girc"

	"github.com/mirrorbus/mirrorbus/transports"
)

// registration is how far we are with it.
type registration struct {
	offered  []string // capabilities of the server
	tries    int      // of nicks that were taken
	welcome  bool     // registered
	ready    bool     // the server has said all it says at the beginning
	loggedIn bool
	accounts bool   // the server puts accounts to lines
	tags     bool   // it puts tags to lines, such as that a bot has said them
	botMode  string // the letter of the mode that bots set
}

// maxTries is how many nicks are tried.
const maxTries = 6

// negotiate handles what is said about capabilities and accounts.
func (s *session) negotiate(e girc.Event) {
	if s.reg.welcome {
		return // what is new or gone later does not matter
	}
	if e.Command == "AUTHENTICATE" {
		if e.Last() == "+" && (s.t.conf.SASL == saslPlain || s.t.conf.SASL == saslExternal) {
			s.authenticate()
		}
		return
	}
	if len(e.Params) < 3 {
		return
	}
	switch e.Params[1] {
	case "LS":
		s.reg.offered = append(s.reg.offered, strings.Fields(e.Last())...)
		if e.Params[2] != "*" || len(e.Params) == 3 {
			s.want()
		}
	case "ACK":
		given := strings.Fields(e.Last())
		s.reg.accounts, s.reg.tags = slices.Contains(given, "account-tag"), slices.Contains(given, "message-tags")
		if slices.Contains(given, "sasl") {
			s.reply("AUTHENTICATE " + strings.ToUpper(s.t.conf.SASL))
			return
		}
		s.reply("CAP END")
	case "NAK":
		s.reply("CAP END") // who needs an account is told so when it turns out that there is none
	}
}

// want asks for the capabilities that are of use: the account of who says something, and to log in.
func (s *session) want() {
	var wanted []string
	for _, c := range s.reg.offered {
		name, value, _ := strings.Cut(c, "=")
		switch name {
		case "account-tag", "message-tags":
			wanted = append(wanted, name)
		case "sasl":
			if s.t.conf.SASL == saslNone || s.t.conf.SASL == saslNickServ {
				continue
			}
			if value != "" && !slices.Contains(strings.Split(value, ","), strings.ToUpper(s.t.conf.SASL)) {
				s.end(transports.Permanent(fmt.Errorf("it lets nobody log in by %s, but by %s: change sasl", s.t.conf.SASL, value)))
				return
			}
			wanted = append(wanted, name)
		}
	}
	if len(wanted) == 0 {
		s.reply("CAP END")
		return
	}
	s.reply("CAP REQ :" + strings.Join(wanted, " "))
}

// authenticate answers the server that asks who we are.
func (s *session) authenticate() {
	text := ""
	if s.t.conf.SASL == saslPlain {
		text = s.t.conf.Account + "\x00" + s.t.conf.Account + "\x00" + s.t.conf.Password.Reveal()
	}
	for _, chunk := range saslChunks([]byte(text)) {
		s.reply("AUTHENTICATE " + chunk)
	}
}

// saslChunks is what is said for a credential: pieces of 400, and one that is shorter, "+" if it is empty.
func saslChunks(credential []byte) (chunks []string) {
	text := base64.StdEncoding.EncodeToString(credential)
	for len(text) >= 400 {
		chunks, text = append(chunks, text[:400]), text[400:]
	}
	if text == "" {
		text = "+"
	}
	return append(chunks, text)
}

// register handles the answers until we are in the channel, and those about nicks later. It tells whether the line was one.
func (s *session) register(e girc.Event) bool {
	switch e.Command {
	case "002", "003", "004": // 001 is kept from the library; each of them has our nick, as the server knows it
		s.reg.welcome = true
		s.setNick(e.Params)
	case "005":
		for _, p := range e.Params {
			if letter, ok := strings.CutPrefix(p, "BOT="); ok && len(letter) == 1 {
				s.reg.botMode = letter
			}
		}
	case "376", "422":
		s.settle()
	case "900":
		s.reg.loggedIn = true
		if s.reg.ready && s.t.conf.SASL == saslNickServ {
			s.comeIn()
		}
	case "903":
		s.reg.loggedIn = true
		s.reply("CAP END")
	case "902", "904", "905", "906", "908":
		s.end(transports.Permanent(fmt.Errorf("it does not let us log in to the account %s by %s: %s; see that the account exists, and password_file or the certificate", s.t.conf.Account, s.t.conf.SASL, e.Last())))
	case "432", "433", "436", "437":
		if s.reg.welcome {
			return e.Command != "437" || !slices.ContainsFunc(e.Params, func(p string) bool { return s.place(p) != nil })
		}
		s.nextNick(e)
	case "464":
		s.end(transports.Permanent(fmt.Errorf("it wants another password: %s; see server_password_file", e.Last())))
	case "465":
		s.end(transports.Permanent(fmt.Errorf("it has banned us: %s; ask its operators", e.Last())))
	default:
		return false
	}
	return true
}

func (s *session) setNick(params []string) {
	if len(params) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nick = params[0]
}

// nextNick tries another nick when ours is taken.
func (s *session) nextNick(e girc.Event) {
	s.reg.tries++
	if e.Command == "432" || s.reg.tries >= maxTries {
		s.end(transports.Permanent(fmt.Errorf("it gives us neither the nick %s nor one like it: %s; choose another one", s.t.conf.Nick, e.Last())))
		return
	}
	next := otherNick(s.t.conf.Nick)
	s.setNick([]string{next})
	s.reply("NICK " + next)
}

// otherNick is a nick like the one given, by chance, and not longer than servers take that take the one given.
func otherNick(nick string) string {
	return fmt.Sprintf("%s-%02d", nick[:min(len(nick), max(6, len(nick)-3))], rand.IntN(100))
}

// settle goes on when the server has said what it says at the beginning.
func (s *session) settle() {
	if s.reg.ready {
		return
	}
	s.reg.ready = true
	if s.t.conf.SASL == saslNickServ {
		s.reply(fmt.Sprintf("PRIVMSG %s :IDENTIFY %s %s", s.services(), s.t.conf.Account, s.t.conf.Password.Reveal()))
		return
	}
	if s.t.conf.SASL != saslNone && !s.reg.loggedIn {
		s.end(transports.Permanent(errors.New("it lets nobody log in (SASL) now: its services may be away, or it has none, and sasl is to be taken out")))
		return
	}
	s.comeIn()
}

// comeIn says what we are, and asks for the channels.
func (s *session) comeIn() {
	letter := s.reg.botMode
	if letter == "" {
		letter = "B"
	}
	s.reply(fmt.Sprintf("MODE %s +%s", s.self(), letter)) // we are a bot; where that is unknown, it does no harm
	s.join()
}

// services is who knows accounts.
func (s *session) services() string { return cmp.Or(s.t.conf.NickServ, "NickServ") }

// noLogin is what services say to whom they do not log in.
var noLogin = regexp.MustCompile(`(?i)incorrect|invalid|wrong|denied|not registered|isn't registered|no such`)

// noticed hears what services say while we wait for them to log us in.
func (s *session) noticed(e girc.Event) {
	if s.t.conf.SASL != saslNickServ || s.reg.loggedIn || e.Source == nil || !same(e.Source.Name, s.services()) || !noLogin.MatchString(e.Last()) {
		return
	}
	s.end(transports.Permanent(fmt.Errorf("%s does not log us in to the account %s: %s; see that the account exists, and password_file", s.services(), s.t.conf.Account, fitted(e.Last()))))
}

// reclaim asks for our nick if we have another one. services: also ask those to take it from whoever has it.
func (s *session) reclaim(services bool) {
	s.mu.Lock()
	mine, inside := same(s.nick, s.t.conf.Nick), false
	for _, p := range s.places {
		inside = inside || p.inside
	}
	s.mu.Unlock()
	if mine || !inside {
		return
	}
	services = services && s.t.conf.NickServ != "" && !s.t.hasYielded()
	s.log.Debug("asking for our nick", "nick", s.t.conf.Nick, "services", services)
	if services {
		s.reply(fmt.Sprintf("PRIVMSG %s :RECOVER %s", s.t.conf.NickServ, s.t.conf.Nick))
	}
	s.reply("NICK " + s.t.conf.Nick)
}

// takenAway tells whether the server ends the connection because services have given our nick to somebody else who is logged in to our account. The words
// are those of Anope and Atheme.
func takenAway(words string) bool { return byServices.MatchString(words) }

var byServices = regexp.MustCompile(`(?i)\b(recover|ghost|regain) command used by`)

// yield notes that services have taken our nick from us while we were there, as somebody with our account asked for it. That is no connection of ours that
// has died, but one that lives. Two that have it taken from each other would go on for ever, so whoever has lost it once takes it only when it is free.
func (t *transport) yield() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.yields = true
}

func (t *transport) hasYielded() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.yields
}
