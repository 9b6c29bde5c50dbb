package ssh_test

import (
	"context"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/ssh"
)

// A told is a mirror whose forced command notes what it is asked for, waits while there is a file "hold", and ends with the status in a file "status".
type told struct {
	*rig
	dir  string
	sshd *testenv.SSHD
}

func newTold(t *testing.T) *told {
	t.Helper()
	r := &told{rig: &rig{t: t}, dir: t.TempDir()}
	script := filepath.Join(r.dir, "command")
	must(t, os.WriteFile(script, []byte(`#!/bin/sh
cd `+r.dir+`
echo "$SSH_ORIGINAL_COMMAND" >>asked
while [ -e hold ]; do sleep 0.05; done
[ ! -e status ] || { echo "lock file still exists"; exit $(cat status); }
`), 0o700))
	r.sshd = testenv.StartSSHD(t, script)
	return r
}

func (r *told) asked() []string {
	text, err := os.ReadFile(filepath.Join(r.dir, "asked"))
	if err != nil {
		return nil
	}
	return strings.Split(strings.TrimSpace(string(text)), "\n")
}

func (r *told) put(name, text string) {
	r.t.Helper()
	must(r.t, os.WriteFile(filepath.Join(r.dir, name), []byte(text), 0o600))
}

// master pushes the mirror for some archives.
func (r *told) master(env transports.Env, archives ...string) *side[*ssh.Master] {
	r.t.Helper()
	c := ssh.DefaultMasterConfig()
	c.User, c.KnownHosts, c.RetryMax = r.sshd.User, config.Path(r.sshd.KnownHosts), config.Duration{Duration: 200 * time.Millisecond}
	c.Mirrors = []ssh.MirrorAddress{{Name: "old", Address: fmt.Sprint("127.0.0.1:", r.sshd.Port), Keys: []config.Path{config.Path(r.sshd.KeyFile)}, Speaks: "ftpsync", Archives: archives}}
	return start(r.t, reports, func(e transports.Env) (*ssh.Master, error) {
		env.Log = e.Log
		return ssh.NewMaster(*c, env)
	})
}

// told waits until the mirror was asked so often, and each time was done.
func (r *told) settled(m *side[*ssh.Master], asked int) {
	r.t.Helper()
	m.await(fmt.Sprintf("asked %d times", asked), func() bool {
		return len(r.asked()) >= asked && strings.Contains(strings.Join(m.transport.Notes(), "\n"), "each has done what it was last told")
	})
	if got := r.asked(); len(got) != asked {
		r.t.Errorf("asked %q, want %d", got, asked)
	}
}

func note(m *side[*ssh.Master]) string { return strings.Join(m.transport.Notes(), "\n") }

// What is announced while the mirror's program works is one more push, and a head that says nothing new is none.
func TestAMirrorThatRunsFtpsyncIsToldOnceAfterWhatItIsAt(t *testing.T) {
	r := newTold(t)
	m := r.master(transports.Env{}, "debian=main")
	m.isConnected(1)
	r.put("hold", "")
	publish := func(id string) { must(t, m.transport.Publish(t.Context(), msg(debian, id))) }
	publish("e.1")
	m.await("at work", func() bool { return len(r.asked()) == 1 && strings.Contains(note(m), "old (debian) is at work") })
	for _, id := range []string{"e.2", "e.3", "e.3.head.1700000000"} {
		publish(id)
	}
	must(t, os.Remove(filepath.Join(r.dir, "hold")))
	r.settled(m, 2)
	publish("e.3.head.1700000300")
	if !strings.Contains(note(m), "each has done what it was last told") {
		t.Errorf("a head that says nothing new: %s", note(m))
	}
	must(t, m.transport.Publish(t.Context(), msg(transports.Topic{Kind: transports.Announce, Module: "other"}, "o.1")))
	publish("e.4")
	r.settled(m, 3)
	for _, words := range r.asked() {
		if words != "sync:archive:main sync:all" {
			t.Errorf("asked for %q", words)
		}
	}
	if n := m.transport.Counters(); n["pushes"] != 3 || n["pushes failed"] != 0 {
		t.Errorf("%v", n)
	}
	if n := m.transport.PeerCount(); n != 0 {
		t.Errorf("%d peers, of which none says anything", n)
	}
}

// Only status 0 is taken for done: a mirror that was busy is asked again until it was not.
func TestAMirrorThatRunsFtpsyncAndIsBusyIsAskedAgain(t *testing.T) {
	r := newTold(t)
	m := r.master(transports.Env{}, "debian")
	m.isConnected(1)
	r.put("status", "1")
	must(t, m.transport.Publish(t.Context(), msg(debian, "e.1")))
	m.await("asked again", func() bool {
		return m.transport.Counters()["pushes failed"] > 2 && strings.Contains(note(m), `old (debian) was not brought up to date: archive "debian": the mirror's command ended with status 1: lock file still exists`)
	})
	must(t, os.Remove(filepath.Join(r.dir, "status")))
	m.await("done", func() bool { return strings.Contains(note(m), "each has done") })
	if n := m.transport.Counters(); n["pushes"] != 1 || n["pushes failed"] < 3 {
		t.Errorf("%v", n)
	}
}

// marks are bookmarks in memory.
type marks map[string]string

func (m marks) Bookmark(_ context.Context, name string) (string, error) { return m[name], nil }
func (m marks) SetBookmark(_ context.Context, name, text string) error  { m[name] = text; return nil }

// backlog is a journal whose newest message has an id.
func backlog(id string) func(context.Context, transports.Topic, string) iter.Seq2[transports.Message, error] {
	return func(_ context.Context, t transports.Topic, _ string) iter.Seq2[transports.Message, error] {
		return func(yield func(transports.Message, error) bool) { yield(msg(t, id), nil) }
	}
}

// A master that starts tells what was announced since it last told the mirror, and nothing if nothing was.
func TestAMasterThatStartsRemembersWhatItHasTold(t *testing.T) {
	r := newTold(t)
	at, kept := "e.7.head.1700000000", marks{}
	env := transports.Env{Bookmarks: kept, Backlog: func(_ context.Context, t transports.Topic, have string) iter.Seq2[transports.Message, error] {
		return func(yield func(transports.Message, error) bool) { yield(msg(t, at), nil) }
	}}
	for _, run := range []struct {
		head  string
		asked int
	}{{"e.7.head.1700000000", 1}, {"e.7.head.1700000300", 1}, {"e.9.head.1700000600", 2}} {
		t.Run(run.head, func(t *testing.T) {
			at, r.t = run.head, t
			m := r.master(env, "debian")
			r.settled(m, run.asked)
		})
	}
	if kept["ssh/old/debian"] != "e.9" {
		t.Errorf("kept %v", kept)
	}
}

// A mirror whose program is not there, or has no such archive, is asked rarely; doctor starts nothing on it.
func TestAMirrorThatRunsFtpsyncWithoutTheArchive(t *testing.T) {
	r := newTold(t)
	r.put("status", "78")
	m := r.master(transports.Env{}, "debian")
	m.isConnected(1)
	must(t, m.transport.Publish(t.Context(), msg(debian, "e.1")))
	m.logs("somebody must change this")
	before := len(r.asked())
	conf := ssh.DefaultMasterConfig()
	conf.User, conf.KnownHosts, conf.Keys = r.sshd.User, config.Path(r.sshd.KnownHosts), []config.Path{config.Path(r.sshd.KeyFile)}
	conf.Mirrors = []ssh.MirrorAddress{{Name: "old", Address: fmt.Sprint("127.0.0.1:", r.sshd.Port), Speaks: "ftpsync", Archives: []string{"other"}}}
	found := ssh.Driver().Examine(t.Context(), transports.Master, conf, transports.Env{})
	if len(found) != 1 || found[0].Level != transports.LevelGood || !strings.Contains(found[0].What, "runs ftpsync") {
		t.Errorf("%+v", found)
	}
	for _, words := range r.asked()[before:] {
		if !strings.Contains(words, "debian") {
			t.Errorf("doctor has asked for %q", words)
		}
	}
}

func TestConfigurationOfMirrorsThatRunFtpsync(t *testing.T) {
	for name, c := range map[string]struct {
		mirror ssh.MirrorAddress
		says   string
	}{
		"no archive":           {ssh.MirrorAddress{Speaks: "ftpsync"}, "archives"},
		"another word":         {ssh.MirrorAddress{Speaks: "rsync"}, "speaks"},
		"archives of the bus":  {ssh.MirrorAddress{Archives: []string{"debian"}}, "is for mirrors that run ftpsync"},
		"no module":            {ssh.MirrorAddress{Speaks: "ftpsync", Archives: []string{"=debian"}}, "module name"},
		"words in the archive": {ssh.MirrorAddress{Speaks: "ftpsync", Archives: []string{"debian=x sync:all"}}, "archive"},
		"another way to push":  {ssh.MirrorAddress{Speaks: "ftpsync", Archives: []string{"debian"}, Push: "stage1"}, "push"},
		"stages of the bus":    {ssh.MirrorAddress{Push: "staged"}, "push"},
		"a shell":              {ssh.MirrorAddress{Speaks: "ftpsync", Archives: []string{"debian=$(id)"}}, "archive"},
	} {
		c.mirror.Name, c.mirror.Address = "old", "127.0.0.1:22"
		if err := c.mirror.Validate(); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	good := ssh.MirrorAddress{Name: "old", Address: "127.0.0.1:22", Speaks: "ftpsync", Archives: []string{"debian", "security=debian-security", "main="}, Push: "mhop"}
	must(t, good.Validate())
}
