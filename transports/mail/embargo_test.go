package mail_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/mail"
)

// TestEmbargo: of a module that only some mirrors may hear of, mail goes to addresses that are known to be theirs, and no digest tells of it; where there is no
// such address nothing waits for ever.
func TestEmbargo(t *testing.T) {
	t.Parallel()
	server := postfix(t)
	box := testenv.SharedDovecot(t, server)
	secret, closed := debian, debian
	secret.Module, closed.Module = "secret", "closed"
	c := masterOf(post(server, "embargo-hub", "inner", "outer"))
	c.Mirrors = map[string]string{"one": at("inner"), "two": at("outer")}
	c.Digest, c.DigestEvery = []string{"readers@imap.test"}, config.Duration{Duration: time.Second}
	hub := &side{t: t}
	var err error
	hub.CheckedTransport, err = transports.Registry{mail.Driver()}.Open(transports.Master, mail.Name, c, transports.Env{Self: "embargo-hub",
		Allowed: func(peer string, topic transports.Topic, _ bool) error {
			if topic == debian || topic == secret && peer == "one" {
				return nil
			}
			return errors.New("not for everybody")
		}})
	must(t, err)
	hub.run(reports)
	inner, outer := start(t, secret, post(server, "inner", "embargo-hub")), start(t, secret, post(server, "outer", "embargo-hub"))
	hub.publish(msg(secret, "s.1"))
	inner.has("s.1")
	hub.publish(msg(closed, "c.1"))
	hub.publish(msg(debian, "d.1"))
	for _, s := range []*side{inner, outer} {
		s.counts("not_subscribed", 1)
	}
	settled(t, server, at("outer"))
	if n := outer.Counters()["received"]; n != 1 {
		t.Errorf("who may not hear of it got %d mails, want that of another module", n)
	}
	hub.counts("embargoed", 2)
	testenv.WaitFor(t, bound, func() error {
		got := box.Doveadm("fetch", "-u", "readers", "text", "mailbox", "INBOX", "all")
		if !strings.Contains(got, "debian") {
			return fmt.Errorf("in the mailbox is %s", got)
		}
		if strings.Contains(got, "secret") || strings.Contains(got, "closed") {
			t.Errorf("a digest tells of what not everybody may hear of:\n%s", got)
		}
		return nil
	})
}

// TestWhoseAddress: an address that is nobody's recipient is a mistake.
func TestWhoseAddress(t *testing.T) {
	for address, good := range map[string]bool{"mirrorbus@Mirror1.example.org": true, "mirrorbus@mirror2.example.org": false} {
		text := "smtp = \"mail.example.org:587\"\nfrom = \"hub@example.org\"\nto = [\"mirrorbus@mirror1.example.org\"]\nmirrors = { mirror1 = \"" + address + "\" }\n"
		err := config.Decode("x.toml", []byte(text), mail.DefaultMasterConfig())
		if good != (err == nil) || err != nil && !strings.Contains(err.Error(), "mirrors") {
			t.Errorf("%s: %v", address, err)
		}
	}
}
