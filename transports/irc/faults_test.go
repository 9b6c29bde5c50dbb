package irc_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/irc"
)

func op(t *testing.T, port int) *testenv.IRCUser {
	t.Helper()
	u := testenv.DialIRC(t, port, "op", "")
	u.Join(channel)
	return u
}

func quickRejoin(n *irc.Network) { n.Rejoin = span(100 * time.Millisecond) }

// Who is kicked comes back after a while, longer each time; meanwhile publishing is an error for which the outbox keeps what there is.
func TestKicked(t *testing.T) {
	t.Parallel()
	port := testenv.StartNgIRCd(t, testenv.IRCOptions{}).Port
	op := op(t, port)
	m := master(t, port, func(n *irc.Network) { n.Rejoin = span(500 * time.Millisecond) })
	op.Send("KICK " + channel + " master :too loud")
	if err := m.cannotPublish(announce(1), "kicked from #mirrorbus by op: too loud"); !notConnected(err) {
		t.Errorf("Publish returned %v", err)
	}
	if notes := m.Notes(); len(notes) != 1 || !strings.Contains(notes[0], "too loud") {
		t.Errorf("noted %q", notes)
	}
	m.isConnected(2)
	m.publishes(announce(2))
	op.Await(body(2))
}

// A module may have a channel of its own. A mirror is in those of its modules, and the master in all; out of one of them it still speaks in the other.
func TestChannelOfItsOwn(t *testing.T) {
	t.Parallel()
	port := startNg(t).Port
	op := op(t, port)
	op.Join("#epel")
	epel := transports.Topic{Kind: transports.Announce, Module: "epel"}
	own := func(n *irc.Network) {
		n.Channels, n.Rejoin = map[string]string{"epel": "#epel"}, span(500*time.Millisecond)
	}
	m := open(t, transports.Master, port, "master", own)
	m.subs = []transports.Subscription{{Topic: reports}, {Topic: transports.Topic{Kind: transports.Report, Module: "epel"}}}
	m.run().isConnected(1)
	one, other := open(t, transports.Mirror, port, "one", own), mirror(t, port, "other", own)
	one.subs = []transports.Subscription{{Topic: epel}}
	one.run().isConnected(1)
	text := "mirrorbus1 change module=epel serial=1"
	m.publishes(message(epel, text), announce(1))
	one.has(text)
	other.has(body(1))
	op.Await("PRIVMSG #epel :" + text)
	op.Await("PRIVMSG " + channel + " :" + body(1))
	for where, who := range map[string]string{channel: "other", "#epel": "one"} {
		op.Send("NAMES " + where)
		there := strings.Fields(strings.ReplaceAll(op.AwaitCount(2, " 353 op = "+where+" :"), ":", " "))
		if slices.Contains(there, "one") != (who == "one") || slices.Contains(there, "other") != (who == "other") || !slices.Contains(there, "master") {
			t.Errorf("in %s are %v", where, there)
		}
	}
	op.Send("KICK #epel master :not here")
	m.cannotPublish(message(epel, text), "kicked from #epel by op: not here") //nolint:errcheck // its text was looked at
	if notes := m.Notes(); len(notes) != 1 || !strings.Contains(notes[0], "#epel") {
		t.Errorf("noted %q", notes)
	}
	m.publishes(announce(2))
	other.has(body(2))
	m.isConnected(2)
	later := "mirrorbus1 change module=epel serial=2"
	m.publishes(message(epel, later))
	one.has(later)
}

// Who is banned says so, goes on trying, and is back when the ban is taken off.
func TestBanned(t *testing.T) {
	t.Parallel()
	port := testenv.StartNgIRCd(t, testenv.IRCOptions{}).Port
	op := op(t, port)
	m := master(t, port, quickRejoin)
	op.Send("MODE "+channel+" +b *!*@*", "KICK "+channel+" master")
	m.logs("we are banned")
	m.cannotPublish(announce(1), "we are banned") //nolint:errcheck // its text was looked at
	op.Send("MODE " + channel + " -b *!*@*")
	m.isConnected(2)
	m.publishes(announce(2))
}

// Who is not let in from the start says why, and that somebody must change it.
func TestNotLetIn(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(*testing.T) *testenv.IRCServer{
		"ngircd":   func(t *testing.T) *testenv.IRCServer { return testenv.StartNgIRCd(t, testenv.IRCOptions{}) },
		"inspircd": func(t *testing.T) *testenv.IRCServer { return testenv.StartInspIRCd(t, testenv.IRCOptions{}) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			port := start(t).Port
			op := op(t, port)
			mode := func(m string) {
				op.Send("MODE " + channel + " " + m)
				op.Await(strings.Fields(m)[0])
			}
			mode("+b *!*@*")
			open(t, transports.Master, port, "master").run().endsPermanently("we are banned")
			mode("-b *!*@*")
			mode("+k sesame")
			open(t, transports.Master, port, "master").run().endsPermanently("channel_key_file")
			key := func(n *irc.Network) { n.ChannelKey = config.NewSecret("sesame") }
			master(t, port, key).stop()
			mode("+i")
			open(t, transports.Master, port, "late", key).run().endsPermanently("invite us")
		})
	}
}

// Who is killed by an operator comes back by itself.
func TestKilled(t *testing.T) {
	t.Parallel()
	port := testenv.StartInspIRCd(t, testenv.IRCOptions{}).Port
	op := op(t, port)
	op.Oper()
	m := master(t, port)
	op.Send("KILL master :go away")
	if err := m.ends(); transports.IsPermanent(err) || !strings.Contains(err.Error(), "go away") {
		t.Errorf("Run returned %v", err)
	}
	m.run().isConnected(2)
}

// The servers are tried in their order.
func TestFailOver(t *testing.T) {
	t.Parallel()
	first, second := testenv.StartNgIRCd(t, testenv.IRCOptions{}), testenv.StartNgIRCd(t, testenv.IRCOptions{})
	both := func(n *irc.Network) { n.Servers = append(n.Servers, network(second.Port, "").Servers...) }
	m := master(t, first.Port, both)
	first.Kill()
	m.ends() //nolint:errcheck // the server has gone
	m.run().isConnected(2)
	m.publishes(announce(1))
}

// Nobody's chatter is a message, nobody is answered, and two masters in a channel are no more to each other than anybody else.
func TestStrangers(t *testing.T) {
	t.Parallel()
	port := testenv.StartNgIRCd(t, testenv.IRCOptions{}).Port
	stranger := op(t, port)
	m, heard := master(t, port), mirror(t, port, "mirror")
	second := open(t, transports.Master, port, "second").run().isConnected(1)
	for _, to := range []string{channel, "mirror", "master", "second"} {
		stranger.Send("NOTICE "+to+" :"+body(1), "PRIVMSG "+to+" :hello", "PRIVMSG "+to+" :\x01VERSION\x01", "PRIVMSG "+to+" :\x01NOSUCH thing\x01", "PRIVMSG "+to+" :!status",
			"PRIVMSG "+to+" :mirrorbus1 change module=fedora \x02bold", "PRIVMSG "+to+" :mirrorbus1 change module=../x", "PRIVMSG "+to+" :mirrorbus1",
			"PRIVMSG "+to+" :mirrorbus-part1 x", "PRIVMSG "+to+" :mirrorbus-part1 0123456789abcdef 1/999999999 announce fedora eA")
	}
	stranger.Send("PRIVMSG mirror :" + body(2)) // whoever brings it: the signature decides
	heard.has(body(2))
	m.publishes(announce(3))
	second.publishes(announce(4))
	heard.has(body(3))
	heard.has(body(4))
	if got := heard.bodies(); len(got) != 3 {
		t.Errorf("received %q", got)
	}
	stranger.Send("PING :end")
	stranger.Await("PONG ng.mirrorbus.test :end")
	for _, from := range []string{":mirror!", ":master!", ":second!"} {
		for _, line := range stranger.Lines() {
			if strings.HasPrefix(line, from) && !strings.Contains(line, " JOIN ") && !strings.Contains(line, " :"+body(3)) && !strings.Contains(line, " :"+body(4)) {
				t.Errorf("was answered: %q", line)
			}
		}
	}
}

// Parts of somebody else do not spoil a message, and half of one is none.
func TestForgedAndReplayedParts(t *testing.T) {
	t.Parallel()
	port := testenv.StartNgIRCd(t, testenv.IRCOptions{}).Port
	stranger := op(t, port)
	m, heard := master(t, port), mirror(t, port, "mirror")
	text := strings.Repeat("not one line\n", 50)
	m.publishes(message(fedora, text))
	heard.has(text)
	stranger.AwaitCount(2, "PRIVMSG "+channel+" :mirrorbus-part1 ")
	var said []string
	for _, line := range stranger.Lines() {
		if _, part, ok := strings.Cut(line, "PRIVMSG "+channel+" :mirrorbus-part1 "); ok {
			said = append(said, "PRIVMSG "+channel+" :mirrorbus-part1 "+part)
		}
	}
	swapped := strings.Replace(said[0], " 1/", " 2/", 1)
	stranger.Send(swapped)             // the second part, forged
	m.publishes(message(fedora, text)) // comes all the same
	heard.await("the message twice", func() bool { return len(heard.bodies()) == 2 })
	stranger.Send(said...) // contradicts what they have said before, and what follows is not whole
	stranger.Send(said...) // now it is: a replay, which serials are for
	heard.await("the message three times", func() bool { return len(heard.bodies()) == 3 })
	for _, b := range heard.bodies() {
		if b != text {
			t.Errorf("received %q", b)
		}
	}
	if c := heard.Counters(); c["parts_dropped"] == 0 {
		t.Errorf("counted %v", c)
	}
}
