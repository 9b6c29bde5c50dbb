package bench_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
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
	ours *side
	what string // the bare act
	act  func(id string) error
}

// acts is line 13: one announcement, from the call that publishes it until the one mirror has it, by each of the transports that admins have already,
// beside the bare act, on the same server.
func (b *bench) acts() error {
	for _, e := range []struct {
		name string
		make func(*bench) (errand, error)
	}{{"ssh", (*bench).sshErrand}} {
		one, err := e.make(b)
		if err == nil {
			_, err = one.ours.all()
		}
		if err == nil {
			err = b.beside(e.name, one)
		}
		if one.ours != nil {
			one.ours.end()
		}
		if err != nil {
			return fmt.Errorf("%s: %w", e.name, err)
		}
	}
	return nil
}

func (b *bench) beside(name string, e errand) error {
	var ours, bare []float64
	for i := range (b.rounds + 1) * perRound {
		took, err := e.ours.reach(fmt.Sprint(name, "-", i))
		if err != nil {
			return err
		}
		start := time.Now()
		if err := e.act(fmt.Sprint("bare-", name, "-", i)); err != nil {
			return err
		}
		if i >= perRound { // the first are slow on both sides
			ours, bare = append(ours, took), append(bare, time.Since(start).Seconds())
		}
	}
	b.add(row{line: "13", what: name + ": an announcement has reached its mirror", ours: median(ours), against: e.what, theirs: median(bare), rounds: len(ours)})
	return nil
}

// sshErrand is the push by ssh: a real sshd runs `mirrorbus receive` for the master's key. The act is to run `true` over a connection that is kept.
func (b *bench) sshErrand() (e errand, err error) {
	dir := filepath.Join(b.dir, "push")
	_, join, err := enrol.InitMaster(enrol.Master{Dir: filepath.Join(dir, "master"), State: filepath.Join(dir, "state"), Socket: filepath.Join(dir, "sock"), Name: "master",
		Listen: "127.0.0.1:1", Address: "127.0.0.1:1", Modules: []enrol.Module{{Name: module, Path: dir, Upstream: "rsync://127.0.0.1/" + module}}})
	if err != nil {
		return e, err
	}
	m := &mirror{dir: dir}
	socket := filepath.Join(dir, "receive.sock")
	_, _, err = enrol.InitMirror(enrol.Mirror{Dir: filepath.Dir(m.config()), State: filepath.Join(dir, "inbox"), Socket: filepath.Join(dir, "agent.sock"), Name: "mirror",
		Join: join, Modules: []enrol.Module{{Name: module, Path: filepath.Join(dir, "tree")}}})
	if err == nil {
		err = appendTo(m.config(), fmt.Sprintf("\n[transport.ssh]\nsocket = %q\n", socket))
	}
	if err != nil {
		return e, err
	}
	e = errand{ours: b.side("push by ssh", 1), what: "`true` by x/crypto/ssh over a kept connection"}
	if err := e.ours.byPush(testenv.StartSSHD(b.T, b.program+" receive -c "+m.config()), socket); err != nil {
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

// byPush opens both ends of the transport.
func (s *side) byPush(sshd *testenv.SSHD, socket string) error {
	conf := push.DefaultMasterConfig()
	conf.Mirrors = []push.MirrorAddress{{Name: "mirror", Address: fmt.Sprint("127.0.0.1:", sshd.Port), User: sshd.User}}
	conf.Keys, conf.KnownHosts = []config.Path{config.Path(sshd.KeyFile)}, config.Path(sshd.KnownHosts)
	called := push.DefaultMirrorConfig()
	called.Socket = config.Path(socket)
	registry := transports.Registry{push.Driver()}
	mirror, err := registry.Open(transports.Mirror, push.Name, called, transports.Env{Self: "mirror"})
	if err != nil {
		return err
	}
	s.listen(mirror)
	master, err := registry.Open(transports.Master, push.Name, conf, transports.Env{Self: "master"})
	if err == nil {
		s.lead(master)
	}
	return err
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
