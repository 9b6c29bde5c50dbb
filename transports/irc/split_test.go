package irc_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/irc"
)

// onNetworks runs a test on two linked servers of each kind. The master belongs on the first, and who is to hear it on the second.
func onNetworks(t *testing.T, o testenv.IRCOptions, test func(*testing.T, *testenv.IRCNetwork)) {
	t.Helper()
	for _, kind := range []string{"ngircd", "inspircd"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			test(t, testenv.StartIRCNetwork(t, kind, o))
		})
	}
}

// becomes publishes until a mirror hears it: two servers that have just met are still telling each other who is in the channel.
func (s *side) becomesHeard(m *side, n int) {
	s.t.Helper()
	s.await("one network with the master", func() bool {
		m.publishes(announce(n))
		return slices.Contains(s.bodies(), body(n))
	})
}

// What is said while the network is split is lost; when it has grown together the mirror is told so, and looks. Nobody reports into the void, and what was
// heard before is not heard again.
func TestNetsplit(t *testing.T) {
	t.Parallel()
	onNetworks(t, testenv.IRCOptions{}, func(t *testing.T, n *testenv.IRCNetwork) {
		m, heard := master(t, n.One.Port), mirror(t, n.Two.Port, "mirror")
		heard.becomesHeard(m, 1)
		before := heard.connects()
		n.Split()
		report := message(reports, "mirrorbus1 report module=fedora")
		if err := heard.cannotPublish(report, "nobody on IRC has the nick master"); !notConnected(err) {
			t.Errorf("Publish returned %v", err)
		}
		m.publishes(announce(2)) // its own server takes it
		n.Join()
		heard.isConnected(before + 1)
		heard.publishes(report)
		m.has(string(report.Body))
		heard.becomesHeard(m, 3)
		if got := heard.bodies(); slices.Contains(got, body(2)) || slices.Index(got, body(3)) < slices.Index(got, body(1)) {
			t.Errorf("heard %q", got)
		}
		if now := heard.connects(); now != before+1 {
			t.Errorf("was told to look %d times after one split", now-before)
		}
		for name, s := range map[string]*side{"master": m, "mirror": heard} {
			if c := s.Counters(); c["connects"] != 1 || c["rejoins"] != 0 {
				t.Errorf("%s: counted %v", name, c)
			}
		}
	})
}

// A mirror that comes while the network is split looks when it has come, and once more when the master is there: what was said in between it has not heard.
func TestComingDuringASplit(t *testing.T) {
	t.Parallel()
	onNetworks(t, testenv.IRCOptions{}, func(t *testing.T, n *testenv.IRCNetwork) {
		m := master(t, n.One.Port)
		n.Split()
		heard := mirror(t, n.Two.Port, "mirror")
		m.publishes(announce(1))
		n.Join()
		heard.isConnected(2)
		heard.becomesHeard(m, 2)
		if slices.Contains(heard.bodies(), body(1)) {
			t.Errorf("heard %q", heard.bodies())
		}
	})
}

// Each half of a split network has somebody with the master's nick. When they meet the master may lose it, or its connection; it is heard all the same, and has
// its nick again when the other has gone.
func TestNickOnBothSidesOfASplit(t *testing.T) {
	t.Parallel()
	onNetworks(t, testenv.IRCOptions{}, func(t *testing.T, n *testenv.IRCNetwork) {
		heard := mirror(t, n.One.Port, "mirror")
		n.Split()
		holder := testenv.DialIRC(t, n.Two.Port, "master", "")
		holder.Join(channel)
		m := open(t, transports.Master, n.One.Port, "master", func(n *irc.Network) { n.Keepalive = span(time.Second) }) // it comes later, so it is to yield
		m.keep().isConnected(1)
		n.Join()
		m.await("renamed or thrown out", func() bool {
			return m.connects() > 1 || len(m.Notes()) > 0 && strings.Contains(m.Notes()[0], "somebody else has the nick master; here it is ")
		})
		heard.await("hears the master under whatever nick", func() bool {
			return m.Publish(t.Context(), announce(1)) == nil && slices.Contains(heard.bodies(), body(1))
		})
		holder.Leave()
		report := message(reports, "mirrorbus1 report module=fedora")
		m.await("has its nick, and a report", func() bool {
			return heard.Publish(t.Context(), report) == nil && slices.Contains(m.bodies(), string(report.Body))
		})
	})
}

// Hundreds leave at once when the network splits, and come at once when it has grown together. None of them is answered.
func TestCrowdAcrossASplit(t *testing.T) {
	t.Parallel()
	onNetworks(t, testenv.IRCOptions{Limits: true}, func(t *testing.T, n *testenv.IRCNetwork) {
		m, heard := master(t, n.One.Port), mirror(t, n.One.Port, "mirror")
		crowd := testenv.DialIRCs(t, n.Two.Port, "agent", 200)
		for _, u := range crowd {
			u.Send("JOIN " + channel)
		}
		for _, u := range crowd {
			u.Await(" 366 ")
		}
		n.Split()
		m.publishes(announce(1))
		n.Join()
		m.publishes(announce(2))
		last := crowd[len(crowd)-1]
		m.await("heard by the last of them", func() bool {
			m.publishes(announce(3))
			return last.Count(body(3)) > 0
		})
		heard.has(body(3))
		if last.Count(body(1)) > 0 {
			t.Error("what was said during the split was heard on the other side")
		}
		for name, s := range map[string]*side{"master": m, "mirror": heard} {
			if c := s.Counters(); c["withheld"] != 0 || c["connects"] != 1 || c["told"] != 0 {
				t.Errorf("%s: counted %v", name, c)
			}
		}
		for _, line := range last.Lines() {
			if strings.HasPrefix(line, ":master!") && !strings.Contains(line, " JOIN ") && !strings.Contains(line, " QUIT ") && !strings.Contains(line, " :"+body(0)[:len(body(0))-1]) {
				t.Errorf("the master said %q", line)
			}
		}
	})
}
