package testenv

import (
	"errors"
	"testing"
)

// Both servers let users in, who hear each other; with services, accounts can be made.
func TestIRC(t *testing.T) {
	for name, start := range map[string]func(*testing.T) *IRCServer{
		"ngircd":   func(t *testing.T) *IRCServer { return StartNgIRCd(t, IRCOptions{Password: "secret"}) },
		"inspircd": func(t *testing.T) *IRCServer { return StartInspIRCd(t, IRCOptions{Password: "secret"}) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t)
			a, b := DialIRC(t, s.Port, "a", "secret"), DialIRC(t, s.Port, "b", "secret")
			a.Join("#test")
			b.Join("#test")
			a.Send("PRIVMSG #test :hello")
			b.Await("PRIVMSG #test :hello")
			s.Stop()
			a.AwaitEnd()
			s.Start()
			DialIRC(t, s.Port, "a", "secret")
		})
	}
	t.Run("services", func(t *testing.T) {
		t.Parallel()
		s := StartInspIRCd(t, IRCOptions{Services: true})
		s.Register(t, "alice", "wonderland", nil)
	})
	t.Run("network", func(t *testing.T) {
		t.Parallel()
		s := StartNgIRCd(t, IRCOptions{})
		second := LinkNgIRCd(t, s.Port)
		a := DialIRC(t, s.Port, "a", "")
		a.Join("#test")
		WaitFor(t, ircBound, func() error {
			a.Send("LINKS")
			if a.Count("ng2.mirrorbus.test") == 0 {
				return errors.New("the servers are not linked")
			}
			return nil
		})
		b := DialIRC(t, second.Port, "b", "")
		b.Join("#test")
		b.Send("PRIVMSG #test :from afar")
		a.Await("from afar")
	})
}
