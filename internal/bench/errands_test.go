package bench_test

import (
	"bufio"
	"fmt"
	"net/smtp"
	"os"
	"path/filepath"
	"time"

	"github.com/lrstanley/girc"
	"golang.org/x/sys/unix"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/transports/irc"
	"github.com/mirrorbus/mirrorbus/transports/mail"
)

// ircErrand is a channel of an ngIRCd that lets everybody talk as fast as they like. The act is one line between two clients of the library.
func (b *bench) ircErrand() (*errand, error) {
	server := testenv.StartNgIRCd(b.T, testenv.IRCOptions{})
	e := b.errand("irc", "one PRIVMSG between two girc clients")
	conf := irc.DefaultMasterConfig()
	conf.Servers, conf.TLS, conf.Nick, conf.Rate, conf.Burst = []string{fmt.Sprint("127.0.0.1:", server.Port)}, false, "master", 10_000, 1000
	called := irc.DefaultMirrorConfig()
	called.Network, called.Master = conf.Network, "master"
	called.Nick = "mirror"
	if err := e.open(irc.Driver(), conf, called); err != nil {
		return e, err
	}
	heard, joined := make(chan string, 10), make(chan string, 2)
	for _, nick := range []string{"one", "two"} {
		c := girc.New(girc.Config{Server: "127.0.0.1", Port: server.Port, Nick: nick, User: nick, AllowFlood: true, DisableSTS: true})
		c.Handlers.Add(girc.RPL_ENDOFMOTD, func(c *girc.Client, _ girc.Event) { c.Cmd.Join("#bare") })
		c.Handlers.Add(girc.RPL_ENDOFNAMES, func(*girc.Client, girc.Event) { joined <- nick })
		c.Handlers.Add(girc.PRIVMSG, func(_ *girc.Client, e girc.Event) { heard <- e.Last() })
		e.parts.Go(func() { c.Connect() }) //nolint:errcheck // it ends with the server, or by Close
		e.ends = append(e.ends, c.Close)
		if nick == "one" {
			e.act = func(id string) error {
				c.Cmd.Message("#bare", id)
				return waitFor(heard, id)
			}
		}
	}
	return e, waitFor(joined, "one", "two")
}

// mailErrand is a Postfix that hands over by LMTP. The act is a mail that it pipes into a program.
func (b *bench) mailErrand() (*errand, error) {
	if os.Geteuid() != 0 {
		say("  left out: a Postfix of one's own needs root")
		return nil, nil
	}
	server := testenv.StartPostfix(b.T, testenv.PostfixOptions{
		Sockets: []string{"hub", "mirror"}, PipeUser: "nobody", Pipe: map[string]string{"bare.test": "/bin/dd of=@DIR@/bare conv=notrunc status=none"},
	})
	pipe, err := openPipe(filepath.Join(server.Dir, "bare"))
	if err != nil {
		return nil, err
	}
	e := b.errand("mail", "a mail that Postfix pipes into dd")
	conf, called := mail.DefaultMasterConfig(), mail.DefaultMirrorConfig()
	conf.SMTP, conf.TLS, conf.From, conf.To, conf.LMTP = server.Addr(), "none", "hub@lmtp.test", []string{"mirror@lmtp.test"}, server.Socket("hub")
	called.SMTP, called.TLS, called.From, called.To, called.LMTP = server.Addr(), "none", "mirror@lmtp.test", []string{"hub@lmtp.test"}, server.Socket("mirror")
	came := make(chan string, 100)
	e.parts.Go(func() {
		for lines := bufio.NewScanner(pipe); lines.Scan(); {
			came <- lines.Text()
		}
	})
	e.ends = append(e.ends, func() { pipe.Close() }) //nolint:errcheck // it was only read
	e.act = func(id string) error {
		if err := smtp.SendMail(server.Addr(), nil, "hub@lmtp.test", []string{"x@bare.test"}, []byte("Subject: x\r\n\r\n"+id+"\r\n")); err != nil {
			return err
		}
		return waitFor(came, id)
	}
	return e, e.open(mail.Driver(), conf, called)
}

// openPipe makes a pipe that anybody may write to, and opens it so that it has no end.
func openPipe(path string) (*os.File, error) {
	if err := unix.Mkfifo(path, 0o666); err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o666); err != nil {
		return nil, err
	}
	return os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0)
}

// waitFor waits until all words have come, in any order.
func waitFor(words <-chan string, all ...string) error {
	missing := map[string]bool{}
	for _, w := range all {
		missing[w] = true
	}
	for len(missing) > 0 {
		select {
		case w := <-words:
			delete(missing, w)
		case <-time.After(sideBound):
			return fmt.Errorf("%v have not come within %s", missing, sideBound)
		}
	}
	return nil
}
