package ssh_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/ssh"
)

// One mirror is away, one takes connections and says nothing, and one refuses the key: the others hear at once.
func TestADeadMirrorDelaysNobody(t *testing.T) {
	r := newRig(t)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer silent.Close() //nolint:errcheck // it was only listening
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	gone := nobody.Addr().String()
	must(t, nobody.Close())
	one := r.mirror("one")
	m := r.master([]string{"one"}, func(c *ssh.MasterConfig) {
		c.Parallel = 2
		c.DialTimeout = config.Duration{Duration: time.Second}
		for i := range 6 {
			address := map[bool]string{true: silent.Addr().String(), false: gone}[i%2 == 0]
			c.Mirrors = append(c.Mirrors, ssh.MirrorAddress{Name: fmt.Sprint("dead", i), Address: address, Keys: c.Mirrors[0].Keys, HostKey: "SHA256:" + strings.Repeat("A", 43)})
		}
	})
	one.isConnected(1)
	began := time.Now()
	must(t, m.transport.Publish(t.Context(), msg(debian, "a")))
	one.has("a")
	t.Logf("one had it after %s", time.Since(began))
	m.await("told of those who are away", func() bool {
		notes := strings.Join(m.transport.Notes(), "\n")
		return strings.Count(notes, "is not reached since") == 6 && strings.Contains(notes, "dead1") && strings.Contains(notes, "connection refused") && !strings.Contains(notes, "one is")
	})
	if n := m.transport.PeerCount(); n != 1 {
		t.Errorf("%d mirrors are connected, want 1", n)
	}
	must(t, one.transport.Publish(t.Context(), msg(reports, "r")))
	m.has("r")
}

// What the mirror refuses is told the master, and does not end the session.
func TestARefusalIsTold(t *testing.T) {
	r := newRig(t)
	one := r.mirror("one")
	one.refuses = func(m transports.Message) error {
		if m.ID == "bad" {
			return &transports.Refusal{Err: errors.New("not trusted")}
		}
		return nil
	}
	m := r.master([]string{"one"})
	one.isConnected(1)
	must(t, m.transport.Publish(t.Context(), msg(debian, "bad")))
	must(t, m.transport.Publish(t.Context(), msg(debian, "good")))
	one.has("good")
	m.logs("err bad not trusted")
	one.mu.Lock()
	defer one.mu.Unlock()
	if one.connected != 1 {
		t.Errorf("connected %d times", one.connected)
	}
}

// What is wrong with a mirror is said in words that name the remedy, and is not tried without end at full speed.
func TestMirrorsThatDoNotTakeTheMaster(t *testing.T) {
	r := newRig(t)
	r.keys = append(r.keys, r.keyLine("echo", `restrict,command="echo welcome to this machine"`), r.keyLine("missing", `restrict,command="/nonexistent/mirrorbus receive"`))
	r.writeKeys()
	for name, c := range map[string]struct {
		change func(*ssh.MirrorAddress)
		says   string
	}{
		"no agent":                 {func(m *ssh.MirrorAddress) {}, "exit status 75"},
		"key that is not let in":   {func(m *ssh.MirrorAddress) { m.Keys = []config.Path{config.Path(r.strangerKey())} }, "lets in none of our keys"},
		"another host key":         {func(m *ssh.MirrorAddress) { m.HostKey = "SHA256:" + strings.Repeat("A", 43) }, "shows another host key than expected"},
		"unknown host":             {func(m *ssh.MirrorAddress) { m.Address = strings.Replace(m.Address, "127.0.0.1", "localhost", 1) }, "has no key for"},
		"another forced command":   {func(m *ssh.MirrorAddress) { m.Keys = []config.Path{config.Path(r.keyFile("echo"))} }, "does its authorized_keys run `mirrorbus receive`?"},
		"a program that is absent": {func(m *ssh.MirrorAddress) { m.Keys = []config.Path{config.Path(r.keyFile("missing"))} }, "cannot run `mirrorbus receive`"},
		"key with a passphrase":    {func(m *ssh.MirrorAddress) { m.Keys = []config.Path{config.Path(r.lockedKey())} }, "has a passphrase"},
	} {
		t.Run(name, func(t *testing.T) {
			r.t = t
			m := r.master([]string{"one"}, func(conf *ssh.MasterConfig) { c.change(&conf.Mirrors[0]) })
			m.logs(strings.ReplaceAll(c.says, `"`, `\"`))
		})
	}
}

// A key that is let in by its certificate alone.
func TestACertificate(t *testing.T) {
	r := newRig(t)
	r.keys = []string{fmt.Sprintf(`cert-authority,principals="%s",%s`, r.sshd.User, r.keys[slices.Index(names, "one")])} // who has only a certificate of that key
	r.writeKeys()
	key := r.strangerKey()
	r.certify(key, r.keyFile("one"))
	one := r.mirror("one")
	m := r.master([]string{"one"}, func(c *ssh.MasterConfig) { c.Mirrors[0].Keys = []config.Path{config.Path(key)} })
	one.isConnected(1)
	must(t, m.transport.Publish(t.Context(), msg(debian, "a")))
	one.has("a")
}

// What connects to the socket of a mirror and is no `mirrorbus receive` is ended, and does not disturb the others.
func TestWhatElseConnectsToTheSocket(t *testing.T) {
	r := newRig(t)
	one := r.mirror("one", func(c *ssh.MirrorConfig) {
		c.WriteTimeout = config.Duration{Duration: 300 * time.Millisecond}
		c.MaxSessions = 4
	})
	m := r.master([]string{"one"})
	one.isConnected(1)
	for name, said := range map[string]string{
		"nothing": "", "half a line": "hand v1", "a greeting and no more": "hand v1 x\n", "a line without end": strings.Repeat("x", 10<<20), "another protocol": "GET / HTTP/1.1\r\n\r\n",
		"a message at once": "hand v1 x\nmsg a announce/debian 3\nabc\n", "a body of two exabytes": "hand v1 x\nready 1000\nmsg a announce/debian 2000000000000000000\n",
		"half a body": "hand v1 x\nready 100\nmsg a announce/debian 100\nabc", "control characters": "hand v1 \x1b[2J\x00\r\nready 0\n",
		"an answer to nothing": "hand v1 x\nready 1000\nok a\n",
	} {
		t.Run(name, func(t *testing.T) {
			c, err := net.Dial("unix", r.socket("one"))
			must(t, err)
			defer c.Close()                                   //nolint:errcheck // it was ended by the other side
			c.Write([]byte(said))                             //nolint:errcheck // it may be ended before it has all
			must(t, c.SetReadDeadline(time.Now().Add(bound))) // then the test fails, as it was not ended
			for buf := make([]byte, 1<<16); err == nil; {
				_, err = c.Read(buf)
			}
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("was not ended")
			}
		})
	}
	must(t, m.transport.Publish(t.Context(), msg(debian, "after")))
	one.has("after")
	var held []net.Conn
	for range 10 { // more than there are places
		c, err := net.Dial("unix", r.socket("one"))
		must(t, err)
		held = append(held, c)
	}
	one.logs("turned away")
	for _, c := range held {
		must(t, c.Close())
	}
}

// The socket is for the agent's user and group alone.
func TestTheSocketOfAMirror(t *testing.T) {
	r := newRig(t)
	r.mirror("one").await("listening", func() bool {
		info, err := os.Stat(r.socket("one"))
		return err == nil && info.Mode().Perm() == 0o660
	})
}

// doctor says of each mirror whether it lets the master in, and why not.
func TestExamine(t *testing.T) {
	r := newRig(t)
	r.mirror("one").await("listening", func() bool {
		_, err := os.Stat(r.socket("one"))
		return err == nil
	})
	conf := r.masterConf()
	found := ssh.Driver().Examine(t.Context(), transports.Master, conf, transports.Env{})
	if len(found) != len(conf.Mirrors) {
		t.Fatalf("%d findings, want %d", len(found), len(conf.Mirrors))
	}
	for i, f := range found {
		name := conf.Mirrors[i].Name
		good := f.Level == transports.LevelGood && strings.Contains(f.What, "takes 1 modules")
		bad := f.Level == transports.LevelBad && strings.Contains(f.Err.Error(), "exit status 75")
		if name == "one" && !good || name != "one" && !bad {
			t.Errorf("%s: %+v", name, f)
		}
	}
	for name, want := range map[string]transports.Level{"one": transports.LevelGood, "quick": transports.LevelWarn} {
		if f := ssh.Driver().Examine(t.Context(), transports.Mirror, r.mirrorConf(name), transports.Env{}); len(f) != 1 || f[0].Level != want {
			t.Errorf("mirror %s: %+v", name, f)
		}
	}
}
