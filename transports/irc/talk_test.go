package irc_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/irc"
)

// A desk is where questions come in.
type desk struct {
	mu   sync.Mutex
	got  []transports.Question
	news chan string
}

// Ask answers each question with what it was.
func (d *desk) Ask(_ context.Context, q transports.Question) ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.got = append(d.got, q)
	switch {
	case strings.HasPrefix(q.Text, "fail"):
		return nil, errors.New("it \x02cannot\r\nQUIT be")
	case strings.HasPrefix(q.Text, "much"):
		return strings.Split(strings.Repeat("line ", 50), " "), nil
	}
	return []string{"answer to " + q.Text}, nil
}

func (d *desk) Tell(ctx context.Context, say func(module, text string) error) error {
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case text := <-d.news:
			if err := say(fedora.Module, text); err != nil {
				return err
			}
		}
	}
}

func (d *desk) questions() []transports.Question {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]transports.Question(nil), d.got...)
}

// talker is a master that people can talk to.
func talker(t *testing.T, port int, nick string, change func(*irc.MasterConfig)) (*side, *desk) {
	t.Helper()
	c := irc.DefaultMasterConfig()
	c.Network = network(port, nick)
	change(c)
	d := &desk{news: make(chan string, 10)}
	s := &side{t: t, role: transports.Master, done: make(chan error, 1)}
	var err error
	s.CheckedTransport, err = transports.Registry{irc.Driver()}.Open(s.role, irc.Name, c, transports.Env{Self: nick,
		Log: slog.New(slog.NewTextHandler(&s.log, nil)), Talk: transports.Talk{Ask: d.Ask, Tell: d.Tell}})
	must(t, err)
	return s.run().isConnected(1), d
}

// News are said in the channel by NOTICE, on one line each, whatever is in them.
func TestNews(t *testing.T) {
	t.Parallel()
	port := startNg(t).Port
	reader := op(t, port)
	_, d := talker(t, port, "master", func(*irc.MasterConfig) {})
	_, silent := talker(t, port, "silent", func(c *irc.MasterConfig) { c.News = false })
	silent.news <- "not said"
	d.news <- "fedora 1042: 2 paths changed: a\r\nQUIT, \x0304b"
	d.news <- strings.Repeat("é", 400)
	reader.Await("NOTICE " + channel + " :fedora 1042: 2 paths changed: a??QUIT, ?04b")
	long := reader.Await("NOTICE " + channel + " :éé")
	if !strings.HasSuffix(long, "é…") || len(long) > 510 {
		t.Errorf("said %q", long)
	}
	if reader.Count("not said") > 0 {
		t.Error("news were said that nobody wants")
	}
}

// Where no server vouches for accounts nobody has any rights, unless anybody may ask; nobody is answered who asks too much.
func TestQuestionsWithoutAccounts(t *testing.T) {
	t.Parallel()
	port := startNg(t).Port
	reader := op(t, port)
	_, d := talker(t, port, "master", func(c *irc.MasterConfig) { c.Operators = []string{"op"} })
	reader.Send("PRIVMSG master :!status fedora")
	reader.Await("NOTICE op :answer to status fedora")
	if q := d.questions()[0]; q.Rights != transports.MayNothing || q.Account != "" || !q.Alone {
		t.Errorf("asked %+v", q)
	}
	_, open := talker(t, port, "open", func(c *irc.MasterConfig) { c.Ask, c.Operators = "anybody", []string{"op"} })
	reader.Send("PRIVMSG " + channel + " :!who")
	reader.AwaitCount(2, "NOTICE "+channel+" :answer to who")
	if q := open.questions()[0]; q.Rights != transports.MayAsk || q.Alone {
		t.Errorf("asked %+v", q)
	}
	reader.Send("PRIVMSG open :!fail", "PRIVMSG open :!much")
	reader.Await("NOTICE op :error: it ?cannot??QUIT be")
	reader.AwaitCount(7, "NOTICE op :line")
	for n := range 10 {
		reader.Send(fmt.Sprint("PRIVMSG open :!again ", n))
	}
	reader.Send("NOTICE open :!notice", "PRIVMSG open :mirrorbus1 command x") // too much by now
	reader.Await("NOTICE op :answer to again 1")
	testenv.WaitFor(t, bound, func() error {
		reader.Send("PING :x")
		if reader.Count("PONG") < 3 {
			return errors.New("still on the way")
		}
		return nil
	})
	if n := len(open.questions()); n != 5 {
		t.Errorf("%d questions were heard: %+v", n, open.questions())
	}
}

// The account that counts is the one that the server puts to the very line. A nick is nothing, and what a client puts there itself is taken off.
func TestQuestionsByAccount(t *testing.T) {
	t.Parallel()
	server := testenv.StartInspIRCd(t, testenv.IRCOptions{Services: true})
	server.Register(t, "alice", secret, nil)
	server.Register(t, "bob", secret, nil)
	_, d := talker(t, server.Port, "master", func(c *irc.MasterConfig) { c.Operators = []string{"Alice"} })
	login := func(nick string) *testenv.IRCUser {
		u := testenv.DialIRC(t, server.Port, nick, "")
		u.Send("PRIVMSG NickServ :IDENTIFY " + secret)
		u.Await(" 900 ")
		return u
	}
	alice := login("alice")
	alice.Send("PRIVMSG master :!sync fedora")
	alice.Await("NOTICE alice :answer to sync fedora")
	alice.Send("NICK carol")
	alice.Await("NICK :carol")
	mallory := testenv.DialIRC(t, server.Port, "mallory", "")
	mallory.Send("CAP REQ :message-tags", "NICK alice") // whose owner has another nick now
	mallory.Await("NICK :alice")
	mallory.Send("@account=alice PRIVMSG master :!sync forged")
	mallory.Await("NOTICE alice :answer to sync forged")
	bob := login("bob")
	bob.Send("PRIVMSG master :!status")
	bob.Await("NOTICE bob :answer to status")
	want := []transports.Question{
		{Text: "sync fedora", Account: "alice", Rights: transports.MayCommand, Alone: true},
		{Text: "sync forged", Alone: true},
		{Text: "status", Account: "bob", Rights: transports.MayAsk, Alone: true},
	}
	if got := d.questions(); !slices.Equal(got, want) {
		t.Errorf("asked %+v, want %+v", got, want)
	}
}

// Where the server puts no accounts to lines it is asked for them. That is enough to be answered, and for no command.
func TestQuestionsByWhois(t *testing.T) {
	t.Parallel()
	server := testenv.StartNgIRCd(t, testenv.IRCOptions{Services: true})
	server.Register(t, "alice", secret, nil)
	_, d := talker(t, server.Port, "master", func(c *irc.MasterConfig) { c.Operators = []string{"alice"} })
	alice, mallory := testenv.DialIRC(t, server.Port, "alice", ""), testenv.DialIRC(t, server.Port, "mallory", "")
	alice.Send("PRIVMSG NickServ :IDENTIFY " + secret)
	alice.Await("Password accepted")
	alice.Send("PRIVMSG master :!status", "PRIVMSG master :!sync fedora")
	alice.Await("NOTICE alice :answer to status")
	alice.Await("NOTICE alice :answer to sync fedora")
	alice.Join(channel)
	alice.Send("PRIVMSG " + channel + " :!who")
	alice.Await("NOTICE " + channel + " :answer to who")
	mallory.Send("PRIVMSG master :!status")
	mallory.Await("NOTICE mallory :answer to status")
	want := []transports.Question{
		{Text: "status", Rights: transports.MayAsk, Alone: true}, {Text: "sync fedora", Rights: transports.MayAsk, Alone: true}, {Text: "who", Rights: transports.MayAsk},
		{Text: "status", Alone: true},
	}
	if got := d.questions(); !slices.Equal(got, want) {
		t.Errorf("asked %+v, want %+v", got, want)
	}
}

// A module that not everybody may hear of is not said in the channel, and does not wait for ever, unless the operator says that it may be.
func TestEmbargo(t *testing.T) {
	t.Parallel()
	port := startNg(t).Port
	reader := op(t, port)
	for nick, embargoed := range map[string]bool{"closed": false, "open": true} {
		c := irc.DefaultMasterConfig()
		c.Network, c.Embargoed = network(port, nick), embargoed
		s := &side{t: t, role: transports.Master, done: make(chan error, 1)}
		var err error
		s.CheckedTransport, err = transports.Registry{irc.Driver()}.Open(s.role, irc.Name, c, transports.Env{Self: nick,
			Allowed: func(peer string, topic transports.Topic, _ bool) error {
				if topic.Module == "secret" && peer == "" {
					return errors.New("not for everybody")
				}
				return nil
			}})
		must(t, err)
		s.run().isConnected(1)
		hidden := transports.Topic{Kind: transports.Announce, Module: "secret"}
		s.publishes(message(hidden, "mirrorbus1 change module=secret by="+nick), message(fedora, "mirrorbus1 change module=fedora by="+nick))
		reader.Await("module=fedora by=" + nick)
		if said := reader.Count("module=secret by="+nick) > 0; said != embargoed {
			t.Errorf("embargoed %v: said %v", embargoed, said)
		}
	}
}

// Both sides tell the server that they are bots, so that it can tell others.
func TestBotMode(t *testing.T) {
	t.Parallel()
	onEach(t, testenv.IRCOptions{}, func(t *testing.T, port int) {
		person := op(t, port)
		master(t, port)
		mirror(t, port, "mirror")
		for _, nick := range []string{"master", "mirror"} {
			testenv.WaitFor(t, bound, func() error { // it is said just before the channel is joined, and done after
				person.Send("WHOIS " + nick)
				if person.Count(" 335 op "+nick+" ") == 0 {
					return fmt.Errorf("%s is no bot: %q", nick, person.Lines())
				}
				return nil
			})
		}
	})
}

// Two masters with open ears in one channel do not answer each other, nor any other bot, whether the server says of each line that a bot has said it or only when asked.
func TestBotsAreNotAnswered(t *testing.T) {
	t.Parallel()
	onEach(t, testenv.IRCOptions{}, func(t *testing.T, port int) {
		one, a := talker(t, port, "one", func(c *irc.MasterConfig) { c.Ask = "anybody" })
		two, b := talker(t, port, "two", func(c *irc.MasterConfig) { c.Ask = "anybody" })
		bot := testenv.DialIRC(t, port, "bot", "")
		bot.Send("MODE bot +B")
		bot.Join(channel)
		a.news <- "!status"
		bot.Await("NOTICE " + channel + " :!status")
		bot.Send("PRIVMSG "+channel+" :!status", "PRIVMSG one :!status", "PRIVMSG two :!status", "NOTICE one :!status")
		person := op(t, port)
		person.Send("PRIVMSG " + channel + " :!help")
		person.AwaitCount(2, "NOTICE "+channel+" :answer to help")
		for name, d := range map[string]*desk{"one": a, "two": b} {
			if q := d.questions(); len(q) != 1 || q[0].Text != "help" {
				t.Errorf("%s was asked %+v", name, q)
			}
		}
		one.publishes(announce(1))
		two.publishes(announce(2))
	})
}

func TestPeopleConfigRefuses(t *testing.T) {
	for want, change := range map[string]func(*irc.MasterConfig){
		"ask":       func(c *irc.MasterConfig) { c.Ask = "everyone" },
		"operators": func(c *irc.MasterConfig) { c.Operators = []string{"*"} },
	} {
		c := irc.DefaultMasterConfig()
		c.Servers = []string{"irc.example.org"}
		change(c)
		if _, err := irc.Driver().Open(transports.Master, c, transports.Env{Self: "master"}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", want, err)
		}
	}
}
