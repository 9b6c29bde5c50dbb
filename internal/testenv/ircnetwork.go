package testenv

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// splitBound is when a test gives up to wait for two servers to part or to meet: either tries again after five seconds.
const splitBound = 45 * time.Second

// An IRCNetwork is two servers of one kind that are one network, over a link that a test can cut.
type IRCNetwork struct {
	One, Two *IRCServer

	t       testing.TB
	between *Proxy
	watch   *IRCUser // of One, in no channel
	two     string   // the name of Two
}

// StartIRCNetwork starts two linked servers. The kind is "ngircd" or "inspircd"; neither has services.
func StartIRCNetwork(t testing.TB, kind string, o IRCOptions) *IRCNetwork {
	t.Helper()
	n := &IRCNetwork{t: t}
	switch kind {
	case "ngircd":
		n.One, n.two = StartNgIRCd(t, o), "ng2.mirrorbus.test"
		n.between = StartProxy(t, n.One.Port)
		n.Two = started(t, func() *IRCServer { return newNgIRCd(t, o, "ng2", n.between.Port) })
	case "inspircd":
		n.One, n.two = StartInspIRCd(t, o), "insp2.mirrorbus.test"
		n.between = StartProxy(t, n.One.link)
		n.Two = started(t, func() *IRCServer { return newInspIRCd(t, o, n.between.Port) })
	default:
		t.Fatalf("no IRC server is called %q", kind)
	}
	n.watch = DialIRC(t, n.One.Port, "watch", o.Password)
	n.watch.Oper() // who may ask often
	n.await(true)
	return n
}

// Split cuts the link, and returns when the servers have parted.
func (n *IRCNetwork) Split() {
	n.t.Helper()
	n.between.Refuse(true)
	n.watch.Send("SQUIT " + n.two + " :split") // a server that is busy may not look at a link for a while
	n.await(false)
}

// Join lets the servers meet again, and returns when they have. What they tell each other of their users may still be on its way.
func (n *IRCNetwork) Join() {
	n.t.Helper()
	n.between.Refuse(false)
	n.await(true)
}

func (n *IRCNetwork) await(together bool) {
	n.t.Helper()
	WaitFor(n.t, splitBound, func() error {
		switch n.together() {
		case together:
			return nil
		case true:
			return fmt.Errorf("the servers are one network still; %s", n.lastWords())
		default:
			return fmt.Errorf("the servers are two networks still; %s", n.lastWords())
		}
	})
}

// lastWords are what the server last said to an operator.
func (n *IRCNetwork) lastWords() string {
	all := n.watch.Lines()
	return strings.Join(all[max(0, len(all)-20):], "\n")
}

// together tells whether One sees Two.
func (n *IRCNetwork) together() bool {
	n.t.Helper()
	before, asked := len(n.watch.Lines()), n.watch.Count(" 365 ")
	n.watch.Send("LINKS")
	n.watch.AwaitCount(asked+1, " 365 ")
	for _, line := range n.watch.Lines()[before:] {
		if strings.Contains(line, " 364 ") && strings.Contains(line, " "+n.two+" ") {
			return true
		}
	}
	return false
}
