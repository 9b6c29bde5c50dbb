package trigger_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/trigger"
)

// commanded is a master whose trust file knows alice, who may give commands on the module m, and bob, who may not.
func commanded(t *testing.T) *master {
	t.Helper()
	m := newMaster(t)
	f, err := os.OpenFile(string(m.conf.Trust), os.O_APPEND|os.O_WRONLY, 0)
	check(t, err)
	for _, name := range []string{"alice", "bob"} {
		m.keys[name] = writeKey(t, t.TempDir()+"/key")
		_, err := fmt.Fprintf(f, "%s namespaces=\"command@mirrorbus\" %s", name, ssh.MarshalAuthorizedKey(m.keys[name].PublicKey()))
		check(t, err)
	}
	check(t, f.Close())
	m.conf.Commanders = []trigger.CommanderConfig{{Principal: "alice", Modules: []string{"m"}}}
	return m
}

// signed is a command as it is said.
func (m *master) signed(by string, change func(*event.Command)) string {
	m.t.Helper()
	c := event.Command{Module: "m", Master: "master", At: time.Now().UTC().Truncate(time.Second), TTL: time.Minute, Nonce: "0123456789abcdef", Order: event.SyncNow,
		Paths: []string{"a"}}
	change(&c)
	line, err := event.Seal(c, m.keys[by])
	check(m.t, err)
	return string(line)
}

// A signed command is obeyed without an account: once, also after a restart, in time, by the master that it names, for who is named a commander.
func TestSignedCommands(t *testing.T) {
	m := commanded(t)
	m.write("a", "b")
	h, stop := m.start()
	first := m.signed("alice", func(*event.Command) {})
	for _, c := range []struct {
		line, want string // the answer begins with it
	}{
		{first, "m 1: announced, 1 path"},
		{first, "error: this command was obeyed already"},
		{m.signed("alice", func(c *event.Command) { c.Nonce = "00000000000000ff" }), "m 2: announced, 1 path"},
		{m.signed("alice", func(c *event.Command) { c.Order, c.Paths = event.FlipNow, []string{"a", "b"} }), "m 3: announced, 2 paths"},
		{m.signed("alice", func(c *event.Command) { c.Paths = nil }), "m: the mirrors are told"},
		{m.signed("alice", func(c *event.Command) { c.Paths = []string{"-gone", "d:."} }), "error: path "},
		{m.signed("alice", func(c *event.Command) { c.Paths = []string{"-gone"} }), "m 4: announced, 1 path"},
		{m.signed("alice", func(c *event.Command) { c.Master = "other" }), `error: this master knows no "other"`},
		{m.signed("alice", func(c *event.Command) { c.Module = "n" }), "error: refused"},
		{m.signed("alice", func(c *event.Command) { c.At = c.At.Add(-time.Hour) }), "error: this command held until"},
		{m.signed("alice", func(c *event.Command) { c.At = c.At.Add(time.Hour) }), "error: this command is of the future"},
		{m.signed("bob", func(*event.Command) {}), "error: refused"},
		{m.signed("stranger", func(*event.Command) {}), "error: refused"},
		{m.signed("one", func(*event.Command) {}), "error: refused"},
		{strings.Replace(first, "paths=a", "paths=b", 1), "error: refused"},
		{"mirrorbus1 command module=m", "error: refused"},
		{string(m.seal(event.Head{Module: "m", Epoch: "00000000", At: time.Now(), TTL: time.Minute}, "alice")), "error: "},
	} {
		if got := asks(t, h, c.line, transports.MayNothing, true); !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: said %q, want %q", c.line, got, c.want)
		}
	}
	forged := m.signed("bob", func(*event.Command) {})
	if got := asks(t, h, forged, transports.MayNothing, false); got != "" {
		t.Errorf("where others listen: said %q", got)
	}
	if got := asks(t, h, "log m", transports.MayAsk, true); strings.Count(got, " by irc alice") != 4 {
		t.Errorf("the log says %q", got)
	}
	stop()
	m.bus = nil
	h, _ = m.start()
	if got := asks(t, h, first, transports.MayNothing, true); !strings.HasPrefix(got, "error: this command was obeyed already") {
		t.Errorf("after a restart: said %q", got)
	}
}
