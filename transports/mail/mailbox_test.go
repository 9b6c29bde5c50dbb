package mail_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/mail"
	"github.com/mirrorbus/mirrorbus/transports/transporttest"
)

// fetching is post with a mailbox in the place of a socket.
func fetching(server *testenv.Postfix, box *testenv.Dovecot, name string, to ...string) mail.Post {
	for i := range to {
		to[i] += "@imap.test"
	}
	p := post(server, name, to...)
	p.LMTP, p.From = "", name+"@imap.test"
	p.IMAP, p.IMAPTLS, p.IMAPUser, p.IMAPPassword, p.Mailbox = box.Addr(), "none", name, config.NewSecret(box.Password), "INBOX"
	return p
}

// marks are bookmarks in memory, of one process.
type marks struct {
	mu  sync.Mutex
	all map[string]string
}

// Bookmark implements transports.Bookmarks.
func (m *marks) Bookmark(_ context.Context, name string) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.all[name], nil
}

// SetBookmark implements transports.Bookmarks.
func (m *marks) SetBookmark(_ context.Context, name, text string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.all == nil {
		m.all = map[string]string{}
	}
	m.all[name] = text
	return nil
}

// delivered waits until the mail server has nothing more to put into mailboxes.
func delivered(server *testenv.Postfix) error {
	if q := server.Queue(); !strings.Contains(q, "is empty") && strings.Contains(q, "@imap.test") {
		return fmt.Errorf("the queue is %s", q)
	}
	return nil
}

// TestConformanceOfMailboxes: in by IMAP from Dovecot. That it goes away ends every Run.
func TestConformanceOfMailboxes(t *testing.T) {
	server := postfix(t)
	box := testenv.SharedDovecot(t, server)
	transporttest.Run(t, transporttest.Harness{
		Driver: mail.Driver(), Connectionless: true, Bulk: 8,
		Start: func(_ context.Context, env transports.Env) (*transporttest.Bus, error) {
			testenv.WaitFor(t, bound, func() error { return delivered(server) })
			box.Empty()
			open := func(role transports.Role, name string) (transports.Transport, error) {
				env := env
				env.Self, env.Bookmarks = name, &marks{}
				var conf any = &mail.MirrorConfig{Post: fetching(server, box, name, "master")}
				if role == transports.Master {
					conf = masterOf(fetching(server, box, name, slices.Clone(mirrors)...))
				}
				return transports.Registry{mail.Driver()}.Open(role, mail.Name, conf, env)
			}
			return &transporttest.Bus{
				Open: open, Secrets: []string{box.Password},
				Stop:  func(context.Context) error { box.Kill(); return nil },
				Start: func(context.Context) error { box.Start(); return nil },
				Close: func() error {
					server.Purge()
					if !box.Running() {
						box.Start()
					}
					return nil
				},
			}, nil
		},
	})
}

// TestMailboxResumes: what came while nobody was there is taken, what was taken is not taken again, and mail of others stays unread.
func TestMailboxResumes(t *testing.T) {
	t.Parallel()
	server := postfix(t)
	box := testenv.SharedDovecot(t, server)
	hub := start(t, reports, fetching(server, box, "box", "resumed"))
	kept := &marks{}
	first := prepare(t, debian, fetching(server, box, "resumed", "box"), kept)
	stop := first.run(debian)
	hub.publish(msg(debian, "a"))
	first.has("a")
	stop()
	brings(t, server, "somebody@else.test", "resumed@imap.test", "Subject: to a person\n\nhello\n")
	hub.publish(msg(debian, "b"))
	second := prepare(t, debian, fetching(server, box, "resumed", "box"), kept)
	stop = second.run(debian)
	second.has("b")
	second.publish(msg(reports, "r"))
	hub.has("r")
	stop()
	third := prepare(t, debian, fetching(server, box, "resumed", "box"), nil)
	hub.publish(msg(debian, "c"))
	stop = third.run(debian)
	third.has("c")
	stop()
	for what, s := range map[string]*side{"a restart": second, "one that knows no position": third} {
		if len(s.got) != 1 {
			t.Errorf("after %s %d mails came, want the one that is new", what, len(s.got))
		}
	}
	testenv.WaitFor(t, bound, func() error { return delivered(server) })
	if seen := strings.Fields(box.Doveadm("fetch", "-u", "resumed", "hdr.subject", "mailbox", "INBOX", "unseen")); !strings.Contains(strings.Join(seen, " "), "to a person") || strings.Contains(strings.Join(seen, " "), "[mirrorbus]") {
		t.Errorf("unread are %q, want the mail of somebody else alone", seen)
	}
}

// TestMailboxMadeAnew: with another UIDVALIDITY the position is worth nothing, and everything that is there is taken.
func TestMailboxMadeAnew(t *testing.T) {
	t.Parallel()
	server := postfix(t)
	box := testenv.SharedDovecot(t, server)
	p := fetching(server, box, "renamed", "shared")
	kept := &marks{}
	must(t, kept.SetBookmark(t.Context(), fmt.Sprintf("mail imap renamed %s INBOX", box.Addr()), "17 4000"))
	p.Delete = true
	mirror := prepare(t, debian, p, kept)
	mirror.run(debian)
	hub := start(t, reports, fetching(server, box, "shared", "renamed"))
	hub.publish(msg(debian, "a"))
	mirror.has("a")
	testenv.WaitFor(t, bound, func() error {
		if left := box.Doveadm("search", "-u", "renamed", "mailbox", "INBOX", "all"); left != "" {
			return fmt.Errorf("in the mailbox are %q", left)
		}
		return nil
	})
}

// TestMailboxLogin: a wrong password is an error that somebody must mend, and is not in it; TLS is as good as its certificate.
func TestMailboxLogin(t *testing.T) {
	t.Parallel()
	server := postfix(t)
	authority := testenv.NewAuthority(t)
	box := testenv.StartDovecot(t, server, authority.Issue("imap", 3*time.Hour, "127.0.0.1"))
	try := func(change func(*mail.Post)) error {
		p := fetching(server, box, "secure", "locked")
		p.CA = config.Path(authority.File)
		change(&p)
		s := prepare(t, debian, p, nil)
		ctx, cancel := context.WithTimeout(t.Context(), bound)
		defer cancel()
		connected := receiver{cancel}
		return s.Run(ctx, []transports.Subscription{{Topic: debian}}, connected)
	}
	for _, how := range []string{"none", "starttls", "implicit"} {
		err := try(func(p *mail.Post) {
			p.IMAPTLS = how
			if how == "implicit" {
				p.IMAP = fmt.Sprint("127.0.0.1:", box.TLSPort)
			}
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", how, err)
		}
	}
	err := try(func(p *mail.Post) { p.IMAPPassword = config.NewSecret("wr0ng") })
	if !transports.IsPermanent(err) || strings.Contains(err.Error(), "wr0ng") || !strings.Contains(err.Error(), "secure is not let in") {
		t.Errorf("a wrong password: %v", err)
	}
	err = try(func(p *mail.Post) { p.IMAPTLS, p.CA = "starttls", "" })
	if err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a certificate of an unknown authority: %v", err)
	}
}

// TestMailboxServerThatHangs: one that takes the connection and says nothing is given up in time, whatever the library would wait for.
func TestMailboxServerThatHangs(t *testing.T) {
	t.Parallel()
	server := postfix(t)
	box := testenv.SharedDovecot(t, server)
	between := testenv.StartProxy(t, box.Port)
	between.Hang(true)
	for _, how := range []string{"none", "starttls", "implicit"} {
		p := fetching(server, box, "box", "shared")
		p.IMAP, p.IMAPTLS, p.Timeout = fmt.Sprint("127.0.0.1:", between.Port), how, config.Duration{Duration: time.Second}
		ctx, cancel := context.WithTimeout(t.Context(), bound)
		err := prepare(t, debian, p, nil).Run(ctx, []transports.Subscription{{Topic: debian}}, receiver{func() { t.Error("it is connected") }})
		cancel()
		if err == nil || transports.IsPermanent(err) || !strings.Contains(err.Error(), "no answer within 1s") {
			t.Errorf("%s: %v", how, err)
		}
	}
}

// TestMailboxServerThatFallsSilent: one that is gone while mail is waited for is noticed, and what came meanwhile is fetched from the next.
func TestMailboxServerThatFallsSilent(t *testing.T) {
	t.Parallel()
	server := postfix(t)
	box := testenv.SharedDovecot(t, server)
	between := testenv.StartProxy(t, box.Port)
	hub := start(t, reports, fetching(server, box, "talking", "silent"))
	p := fetching(server, box, "silent", "talking")
	p.IMAP, p.IMAPIdle, p.Timeout = fmt.Sprint("127.0.0.1:", between.Port), config.Duration{Duration: time.Second}, config.Duration{Duration: time.Second}
	kept := &marks{}
	mirror := prepare(t, debian, p, kept)
	ended := make(chan error, 1)
	go func() { ended <- mirror.Run(t.Context(), []transports.Subscription{{Topic: debian}}, mirror) }()
	hub.publish(msg(debian, "a"))
	mirror.has("a")
	between.Hang(true)
	hub.publish(msg(debian, "b"))
	select {
	case err := <-ended:
		if err == nil || transports.IsPermanent(err) || !strings.Contains(err.Error(), "no answer within 1s") {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(bound):
		t.Fatal("a server that is gone is waited for")
	}
	between.Hang(false)
	again := prepare(t, debian, p, kept)
	again.run(debian)
	again.has("b")
}

// A receiver is told that it is connected, and needs no more.
type receiver struct{ connected func() }

// Connected implements transports.Receiver.
func (r receiver) Connected() { r.connected() }

// Receive implements transports.Receiver.
func (receiver) Receive(context.Context, transports.Message) error { return nil }
