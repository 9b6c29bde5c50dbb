package irc_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/irc"
)

// G5: its limit lets bursts through for which servers end the connection, and then holds single lines back for seconds.
func TestG5DefaultLimitsOfServersAreKept(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(*testing.T) *testenv.IRCServer{
		"ngircd": func(t *testing.T) *testenv.IRCServer { return testenv.StartNgIRCd(t, testenv.IRCOptions{Limits: true}) },
		"inspircd": func(t *testing.T) *testenv.IRCServer {
			return testenv.StartInspIRCd(t, testenv.IRCOptions{Limits: true})
		},
		"inspircd, which disconnects": func(t *testing.T) *testenv.IRCServer {
			return testenv.StartInspIRCd(t, testenv.IRCOptions{Kills: true})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			port := start(t).Port
			m := master(t, port, func(n *irc.Network) { n.Rate, n.Burst = 1, 5 })
			heard := mirror(t, port, "mirror")
			var all []transports.Message
			for n := range 30 {
				all = append(all, announce(n))
			}
			ctx, cancel := context.WithTimeout(t.Context(), 3*bound)
			defer cancel()
			must(t, errors.Join(m.Batch().PublishAll(ctx, all)...))
			heard.await("all are heard", func() bool { return len(heard.bodies()) == len(all) })
			if c := m.Counters(); c["throttled"] == 0 || c["connects"] != 1 {
				t.Errorf("counted %v", c)
			}
		})
	}
}

// G6: it asks the server about each person that joins.
func TestG6HundredsJoin(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(*testing.T) *testenv.IRCServer{
		"ngircd": func(t *testing.T) *testenv.IRCServer { return testenv.StartNgIRCd(t, testenv.IRCOptions{Limits: true}) },
		"inspircd": func(t *testing.T) *testenv.IRCServer {
			return testenv.StartInspIRCd(t, testenv.IRCOptions{Limits: true})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			port := start(t).Port
			m := master(t, port)
			crowd := testenv.DialIRCs(t, port, "agent", 250)
			for _, u := range crowd {
				u.Send("JOIN " + channel)
			}
			m.publishes(announce(1))
			for _, u := range crowd {
				u.Await(" 366 ")
			}
			m.publishes(announce(2))
			for _, u := range crowd {
				u.Await("PRIVMSG " + channel + " :" + body(2))
			}
			if c := m.Counters(); c["withheld"] != 0 || c["connects"] != 1 {
				t.Errorf("counted %v", c)
			}
		})
	}
}

// G12: it says nothing of what is not sent, or not taken.
func TestG12WhatIsNotTakenIsAnError(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(*testing.T) *testenv.IRCServer{
		"ngircd":   func(t *testing.T) *testenv.IRCServer { return testenv.StartNgIRCd(t, testenv.IRCOptions{}) },
		"inspircd": func(t *testing.T) *testenv.IRCServer { return testenv.StartInspIRCd(t, testenv.IRCOptions{}) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			port := start(t).Port
			op := testenv.DialIRC(t, port, "op", "")
			op.Join(channel)
			heard := mirror(t, port, "mirror")
			report := message(reports, "mirrorbus1 report module=fedora")
			if err := heard.cannotPublish(report, "nobody on IRC has the nick master"); !notConnected(err) {
				t.Errorf("Publish returned %v", err)
			}
			m := master(t, port)
			heard.publishes(report)
			op.Send("MODE " + channel + " +m")
			if err := m.cannotPublish(announce(1), "give us voice"); !transports.IsPermanent(err) {
				t.Errorf("Publish returned %v", err)
			}
			op.Send("MODE " + channel + " +v master")
			op.Await(" +v ")
			m.publishes(announce(2))
			heard.has(body(2))
		})
	}
}

// A path set is not said, and nothing on its topic is said before its line: the outbox sends the line alone, and then the rest.
func TestPathSetGoesByReference(t *testing.T) {
	t.Parallel()
	port := startNg(t).Port
	m, heard := master(t, port), mirror(t, port, "mirror")
	debian := transports.Topic{Kind: transports.Announce, Module: "debian"}
	errs := m.Batch().PublishAll(t.Context(), []transports.Message{announce(1), message(fedora, body(2)+"\na path set"), announce(3),
		message(debian, "mirrorbus1 change module=debian")})
	if errs[0] != nil || !errors.Is(errs[1], transports.ErrTooLarge) || errs[2] == nil || errors.Is(errs[2], transports.ErrTooLarge) || errs[3] != nil {
		t.Errorf("PublishAll returned %v", errs)
	}
	m.publishes(announce(2), announce(3))
	heard.await("all in order", func() bool { return slices.Equal(heard.bodies(), []string{body(1), body(2), body(3)}) })
}
