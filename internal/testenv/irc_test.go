package testenv

import "testing"

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
	for _, kind := range []string{"ngircd", "inspircd"} {
		t.Run("network of "+kind, func(t *testing.T) {
			t.Parallel()
			n := StartIRCNetwork(t, kind, IRCOptions{})
			a, b := DialIRC(t, n.One.Port, "a", ""), DialIRC(t, n.Two.Port, "b", "")
			a.Join("#test")
			b.Join("#test")
			a.Await(":b!")
			b.Send("PRIVMSG #test :from afar")
			a.Await(":from afar")
			n.Split()
			a.Await(" QUIT ")
			b.Send("PRIVMSG #test :lost")
			n.Join()
			a.AwaitCount(3, " JOIN ") // its own, and twice that of b
			b.Send("PRIVMSG #test :from afar again")
			a.Await(":from afar again")
			if a.Count(":lost") > 0 {
				t.Error("what was said during the split was heard")
			}
		})
	}
}
