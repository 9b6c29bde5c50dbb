package main

import (
	"fmt"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
)

// startIRC starts an IRC server, and somebody who reads along in a channel: irc CHANNEL. $IRC is its host:port.
func startIRC(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: irc CHANNEL")
	}
	s := sceneOf(ts)
	s.channel, s.ircPort = args[0], testenv.StartNgIRCd(s.t, testenv.IRCOptions{Limits: true}).Port
	comes(ts, false, []string{"reader"})
	ts.Setenv("IRC", fmt.Sprint("127.0.0.1:", s.ircPort))
}

// startIRCNetwork starts two IRC servers that are one network, and somebody who reads along on the first: ircnet KIND CHANNEL. $IRC and $IRC2 are where they are.
func startIRCNetwork(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: ircnet ngircd|inspircd CHANNEL")
	}
	s := sceneOf(ts)
	s.network = testenv.StartIRCNetwork(s.t, args[0], testenv.IRCOptions{})
	s.channel, s.ircPort = args[1], s.network.One.Port
	comes(ts, false, []string{"reader"})
	ts.Setenv("IRC", fmt.Sprint("127.0.0.1:", s.ircPort))
	ts.Setenv("IRC2", fmt.Sprint("127.0.0.1:", s.network.Two.Port))
}

// split cuts the link between the two servers: netsplit; ! netsplit makes them one network again.
func split(ts *testscript.TestScript, neg bool, args []string) {
	n := sceneOf(ts).network
	switch {
	case n == nil || len(args) > 0:
		ts.Fatalf("usage: ircnet KIND CHANNEL, then netsplit")
	case neg:
		n.Join()
	default:
		n.Split()
	}
}

// comes lets somebody else into the channel, who says and hears what follows: comes NICK.
func comes(ts *testscript.TestScript, _ bool, args []string) {
	s := sceneOf(ts)
	if len(args) != 1 || s.ircPort == 0 {
		ts.Fatalf("usage: irc CHANNEL, then comes NICK")
	}
	s.reader = testenv.DialIRC(s.t, s.ircPort, args[0], "")
	s.reader.Join(s.channel)
}

// says has the reader say something: says TARGET TEXT, or says TARGET <FILE.
func says(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 2 || sceneOf(ts).reader == nil {
		ts.Fatalf("usage: irc CHANNEL, then says TARGET TEXT")
	}
	text := args[1]
	if file, ok := strings.CutPrefix(text, "<"); ok {
		text = strings.TrimSpace(ts.ReadFile(file))
	}
	sceneOf(ts).reader.Send("PRIVMSG " + args[0] + " :" + text)
}

// hears waits until the reader has heard something: hears TEXT. With ! it has not heard it so far.
func hears(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 || sceneOf(ts).reader == nil {
		ts.Fatalf("usage: irc CHANNEL, then hears TEXT")
	}
	reader := sceneOf(ts).reader
	if neg {
		if reader.Count(args[0]) > 0 {
			ts.Fatalf("heard %s", args[0])
		}
		return
	}
	waitFor(ts, "somebody says "+args[0], func() error {
		if reader.Count(args[0]) == 0 {
			return fmt.Errorf("heard only:\n%s", strings.Join(reader.Lines(), "\n"))
		}
		return nil
	})
}
