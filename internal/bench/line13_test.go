package bench_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/internal/enrol"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/transports"
	push "github.com/mirrorbus/mirrorbus/transports/ssh"
)

// An errand is a transport between a master and one mirror, and the bare act that it comes down to.
type errand struct {
	*side
	name string
	got  chan string // what the mirror has received
	what string      // the bare act
	act  func(id string) error
	ends []func() // ends what the act needs
}

func (e *errand) close() {
	for _, end := range e.ends {
		end()
	}
	e.end()
}

// acts is line 13: one announcement, from the call that publishes it until the one mirror has it, by each of the transports that admins have already,
// beside the bare act, on the same server.
func (b *bench) acts() error {
	for _, prepare := range []func(*bench) (*errand, error){(*bench).sshErrand, (*bench).ircErrand, (*bench).mailErrand} {
		e, err := prepare(b)
		if e == nil && err == nil {
			continue // it was said why
		}
		if err == nil {
			err = b.runErrand(e)
		}
		if e != nil {
			e.close()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) errand(name, what string) *errand {
	return &errand{side: b.side(name, 1), name: name, got: make(chan string, 100), what: what}
}

func (b *bench) runErrand(e *errand) error {
	if _, err := e.all(); err != nil {
		return err
	}
	var ours, bare []float64
	for i := range (b.rounds + 1) * perRound {
		took, err := e.run(i)
		if err != nil {
			return fmt.Errorf("%s: %w", e.name, err)
		}
		start := time.Now()
		if err := e.act(fmt.Sprint("bare-", i)); err != nil {
			return fmt.Errorf("%s: %s: %w", e.name, e.what, err)
		}
		if i >= perRound { // the first are slow on both sides
			ours, bare = append(ours, took), append(bare, time.Since(start).Seconds())
		}
	}
	b.add(row{line: "13", what: e.name + ": an announcement has reached its mirror", ours: median(ours), against: e.what, theirs: median(bare), rounds: len(ours)})
	return nil
}

// run publishes one line, as long as announcements are, and returns how many seconds later the mirror had it.
func (e *errand) run(i int) (float64, error) {
	body := fmt.Sprintf("mirrorbus1 change module=%s serial=%d", module, i+1)
	body += " pad=" + strings.Repeat("x", 300-len(body))
	start := time.Now()
	for {
		err := e.publish(e.ctx, []transports.Message{{Topic: announced, ID: fmt.Sprint("line-", i), Body: []byte(body)}})[0]
		if err == nil {
			break
		}
		select {
		case <-time.After(10 * time.Millisecond): // it is about to connect
			start = time.Now()
		case <-e.ctx.Done():
			return 0, errors.Join(err, context.Cause(e.ctx))
		}
	}
	for {
		select {
		case got := <-e.got:
			if got == body { // not one that came twice
				return time.Since(start).Seconds(), nil
			}
		case <-time.After(sideBound):
			return 0, fmt.Errorf("announcement %d has not come within %s", i, sideBound)
		}
	}
}

// taker is the receiver of an errand's mirror.
type taker struct{ e *errand }

// Connected implements transports.Receiver.
func (taker) Connected() {}

// Receive implements transports.Receiver.
func (t taker) Receive(_ context.Context, m transports.Message) error {
	t.e.got <- string(m.Body)
	return nil
}

// open opens both ends of a transport.
func (e *errand) open(d transports.Driver, master, mirror any) error {
	registry := transports.Registry{d}
	called, err := registry.Open(transports.Mirror, d.Name, mirror, transports.Env{Self: "mirror"})
	if err != nil {
		return err
	}
	state := &listener{side: e.side}
	e.keep(called, announced, taker{e}, transports.KeepOptions{State: state.state})
	leading, err := registry.Open(transports.Master, d.Name, master, transports.Env{Self: "master"})
	if err == nil {
		e.lead(leading)
	}
	return err
}

// sshErrand is the push by ssh: a real sshd runs `mirrorbus receive` for the master's key. The act is to run `true` over a connection that is kept.
func (b *bench) sshErrand() (*errand, error) {
	dir := filepath.Join(b.dir, "push")
	_, join, err := enrol.InitMaster(enrol.Master{Dir: filepath.Join(dir, "master"), State: filepath.Join(dir, "state"), Socket: filepath.Join(dir, "sock"), Name: "master",
		Listen: "127.0.0.1:1", Address: "127.0.0.1:1", Modules: []enrol.Module{{Name: module, Path: dir, Upstream: "rsync://127.0.0.1/" + module}}})
	if err != nil {
		return nil, err
	}
	m := &mirror{dir: dir}
	called := push.DefaultMirrorConfig()
	called.Socket = config.Path(filepath.Join(dir, "receive.sock"))
	_, _, err = enrol.InitMirror(enrol.Mirror{Dir: filepath.Dir(m.config()), State: filepath.Join(dir, "inbox"), Socket: filepath.Join(dir, "agent.sock"), Name: "mirror",
		Join: join, Modules: []enrol.Module{{Name: module, Path: filepath.Join(dir, "tree")}}})
	if err == nil {
		err = appendTo(m.config(), fmt.Sprintf("\n[transport.ssh]\nsocket = %q\n", called.Socket))
	}
	if err != nil {
		return nil, err
	}
	sshd := testenv.StartSSHD(b.T, b.program+" receive -c "+m.config())
	conf := push.DefaultMasterConfig()
	conf.Mirrors = []push.MirrorAddress{{Name: "mirror", Address: fmt.Sprint("127.0.0.1:", sshd.Port), User: sshd.User}}
	conf.Keys, conf.KnownHosts = []config.Path{config.Path(sshd.KeyFile)}, config.Path(sshd.KnownHosts)
	e := b.errand("ssh", "`true` by x/crypto/ssh over a kept connection")
	if err := e.open(push.Driver(), conf, called); err != nil {
		return e, err
	}
	client, err := plainSSH(testenv.StartSSHD(b.T, ""))
	if err != nil {
		return e, err
	}
	b.Cleanup(func() { client.Close() }) //nolint:errcheck // it is done with
	e.act = func(string) error {
		session, err := client.NewSession()
		if err != nil {
			return err
		}
		return session.Run("true")
	}
	return e, nil
}

// plainSSH is a connection to a server that runs what it is told.
func plainSSH(sshd *testenv.SSHD) (*ssh.Client, error) {
	text, err := os.ReadFile(sshd.KeyFile)
	if err != nil {
		return nil, err
	}
	key, err := ssh.ParsePrivateKey(text)
	if err != nil {
		return nil, err
	}
	conf := &ssh.ClientConfig{User: sshd.User, Auth: []ssh.AuthMethod{ssh.PublicKeys(key)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(), Timeout: time.Minute}
	return ssh.Dial("tcp", net.JoinHostPort("127.0.0.1", fmt.Sprint(sshd.Port)), conf)
}

func appendTo(path, text string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}
