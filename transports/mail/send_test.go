package mail_test

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/mail"
)

// TestServerGoneAndBack: without the mail server nothing is sent and that is said; the same connectionless transport goes on when it is back.
func TestServerGoneAndBack(t *testing.T) {
	t.Parallel()
	door := fmt.Sprint("127.0.0.1:", testenv.FreePort(t))
	server := testenv.StartPostfix(t, testenv.PostfixOptions{Sockets: []string{"gone-hub"}, Routes: []string{`/@inet\.test$/ lmtp:inet:` + door}})
	hub := start(t, reports, post(server, "gone-hub", "gone@inet.test"))
	p := post(server, "gone", "gone-hub")
	p.From, p.LMTP = "gone@inet.test", door
	mirror := start(t, debian, p)
	hub.publish(msg(debian, "a"))
	mirror.has("a")
	server.Kill()
	if err := hub.Publish(t.Context(), msg(debian, "b")); !errors.Is(err, transports.ErrNotConnected) {
		t.Errorf("without the server: %v, want ErrNotConnected", err)
	}
	server.Start()
	hub.publish(msg(debian, "b"))
	mirror.has("b")
	mirror.publish(msg(reports, "c"))
	hub.has("c")
}

// TestOneRecipientStopsNoOther: one that is refused for good is noted, one that is to be tried later fails Publish, and those who have it get it once.
func TestOneRecipientStopsNoOther(t *testing.T) {
	t.Parallel()
	server := postfix(t)
	hub := start(t, reports, post(server, "mixed-hub", "x@nobody.test", "mixed", "y@later.test"))
	mirror := start(t, debian, post(server, "mixed", "mixed-hub"))
	for range 3 {
		err := hub.Publish(t.Context(), msg(debian, "a"))
		if err == nil || !strings.Contains(err.Error(), "y@later.test") || strings.Contains(err.Error(), "nobody") || transports.IsPermanent(err) || errors.Is(err, transports.ErrNotConnected) {
			t.Fatalf("with one to be tried later: %v", err)
		}
	}
	mirror.has("a")
	if err := hub.Publish(t.Context(), msg(debian, "marker")); err == nil {
		t.Error("the marker was sent to all")
	}
	mirror.has("marker")
	mirror.mu.Lock()
	if len(mirror.got) != 2 {
		t.Errorf("%d mails came, want each once", len(mirror.got))
	}
	mirror.mu.Unlock()
	if notes := hub.Notes(); len(notes) != 1 || !strings.HasPrefix(notes[0], "mail to x@nobody.test is refused since ") {
		t.Errorf("notes %q", notes)
	}
}

// TestServerWithLimits: one that takes mail only the second time gets it then, one that takes no large ones has the short form asked for, and one that takes
// nothing without a sender gets reports with ours.
func TestServerWithLimits(t *testing.T) {
	t.Parallel()
	server := testenv.StartPostfix(t, testenv.PostfixOptions{Sockets: []string{"grey-hub", "grey", "quick"}, Conf: []string{
		"message_size_limit = 30000", "smtpd_sender_restrictions = check_sender_access inline:{ {<> = REJECT no mail without a sender} }",
	}})
	access := filepath.Join(server.Dir, "conf", "access")
	must(t, os.WriteFile(access, []byte("/^grey@/ 450 4.2.0 greylisted\n"), 0o644))
	server.Kill()
	server.Start()
	hub := start(t, reports, post(server, "grey-hub", "quick", "grey"))
	grey, quick := start(t, debian, post(server, "grey", "grey-hub")), start(t, debian, post(server, "quick", "grey-hub"))
	if err := hub.Publish(t.Context(), msg(debian, "a")); err == nil || !strings.Contains(err.Error(), "greylisted") {
		t.Fatalf("greylisted: %v", err)
	}
	quick.has("a")
	must(t, os.WriteFile(access, nil, 0o644))
	server.Kill()
	server.Start()
	hub.publish(msg(debian, "a"))
	hub.publish(msg(debian, "b"))
	grey.has("a")
	grey.has("b")
	quick.has("b")
	if n := quick.Counters()["received"]; n != 2 {
		t.Errorf("who had it already got %d mails, want 2", n)
	}
	large := msg(debian, "c")
	large.Body = make([]byte, 40000)
	if err := hub.Publish(t.Context(), large); !errors.Is(err, transports.ErrTooLarge) {
		t.Errorf("a mail that is larger than the server takes: %v", err)
	}
	grey.publish(msg(reports, "r"))
	hub.has("r")
}

// TestNobodyTakesIt: where every recipient is refused for good, somebody must change something.
func TestNobodyTakesIt(t *testing.T) {
	t.Parallel()
	hub := start(t, reports, post(postfix(t), "loner", "x@nobody.test", "y@nobody.test"))
	err := hub.Publish(t.Context(), msg(debian, "a"))
	if !transports.IsPermanent(err) || !strings.Contains(fmt.Sprint(err), "y@nobody.test") {
		t.Errorf("%v", err)
	}
}

// TestTLS: STARTTLS is what is done, and what is required; a certificate that nobody vouches for is none.
func TestTLS(t *testing.T) {
	t.Parallel()
	authority := testenv.NewAuthority(t)
	cert := authority.Issue("mx", 3*time.Hour, "127.0.0.1", "localhost")
	wrapped := testenv.FreePort(t)
	server := testenv.StartPostfix(t, testenv.PostfixOptions{Sockets: []string{"tls-hub", "tls"}, Cert: cert, Services: []string{
		fmt.Sprintf("127.0.0.1:%d inet n - n - - smtpd -o smtpd_tls_wrappermode=yes", wrapped),
	}})
	mirror := start(t, debian, post(server, "tls", "tls-hub"))
	try := func(id string, change func(*mail.Post)) error {
		p := post(server, "tls-hub", "tls")
		p.LMTP, p.TLS, p.CA = "", "starttls", config.Path(authority.File)
		change(&p)
		hub := start(t, reports, p)
		return hub.Publish(t.Context(), msg(debian, id))
	}
	must(t, try("starttls", func(*mail.Post) {}))
	mirror.has("starttls")
	must(t, try("implicit", func(p *mail.Post) { p.TLS, p.SMTP = "implicit", fmt.Sprint("127.0.0.1:", wrapped) }))
	mirror.has("implicit")
	if err := try("unknown", func(p *mail.Post) { p.CA = "" }); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a certificate of an unknown authority: %v", err)
	}
	if err := try("password", func(p *mail.Post) { p.User, p.Password = "me", config.NewSecret("s3cret") }); err == nil || strings.Contains(err.Error(), "s3cret") || !strings.Contains(err.Error(), "log in as me") {
		t.Errorf("a server without AUTH: %v", err)
	}
	plain := postfix(t)
	if err := try("none", func(p *mail.Post) { p.SMTP = plain.Addr() }); !transports.IsPermanent(err) || !strings.Contains(err.Error(), "STARTTLS") {
		t.Errorf("a server without STARTTLS: %v", err)
	}
}

// TestHeadsAreHeldBack: what says nothing new is not mailed every few minutes.
func TestHeadsAreHeldBack(t *testing.T) {
	t.Parallel()
	server := postfix(t)
	hub := start(t, reports, post(server, "beat-hub", "beat"))
	mirror := start(t, debian, post(server, "beat", "beat-hub"))
	head := func(id string) transports.Message {
		return transports.Message{Topic: debian, ID: id, Body: []byte("mirrorbus1 head module=debian serial=4 key=k sig=s\n")}
	}
	hub.publish(head("1"))
	hub.publish(head("2"))
	hub.publish(msg(debian, "news"))
	mirror.has("news")
	mirror.counts("received", 2)
	hub.counts("held_back", 1)
	if n := mirror.Counters()["received"]; n != 2 {
		t.Errorf("%d mails came, want a head and the news", n)
	}
}

// TestExamine: what doctor says of a server, its recipients and our door.
func TestExamine(t *testing.T) {
	t.Parallel()
	server := postfix(t)
	p := post(server, "login", "x@nobody.test", "login")
	var all []string
	for _, f := range mail.Driver().Examine(t.Context(), transports.Master, masterOf(p), transports.Env{Self: "login"}) {
		all = append(all, fmt.Sprint(f.Level, " ", f.What))
	}
	got := strings.Join(all, "\n")
	for _, want := range []string{"0 mail server " + server.Addr(), "2 recipient x@nobody.test", "0 recipient login@lmtp.test is taken", "1 door for mail"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
}

// TestDigest: people get one mail of a module in an interval, with what was announced in it in words, and nothing for programs.
func TestDigest(t *testing.T) {
	t.Parallel()
	server := postfix(t)
	box := testenv.SharedDovecot(t, server)
	c := masterOf(post(server, "digest-hub"))
	c.Digest, c.DigestEvery = []string{"people@imap.test", "x@nobody.test"}, config.Duration{Duration: 3 * time.Second}
	hub := &side{t: t}
	var err error
	hub.CheckedTransport, err = transports.Registry{mail.Driver()}.Open(transports.Master, mail.Name, c, transports.Env{Self: "digest-hub"})
	must(t, err)
	hub.run(reports)
	change := func(n int) transports.Message {
		return transports.Message{Topic: debian, ID: fmt.Sprint(n), Body: fmt.Appendf(nil, "mirrorbus1 change module=debian serial=%d at=2026-11-20T19:02:1%[1]dZ n=7 key=k sig=s\n", n)}
	}
	hub.publish(change(1))
	hub.counts("digests", 1)
	hub.publish(change(2))
	hub.publish(change(3))
	hub.publish(transports.Message{Topic: debian, ID: "h", Body: []byte("mirrorbus1 head module=debian serial=3 key=k sig=s\n")})
	hub.counts("digests", 2)
	var got string
	testenv.WaitFor(t, bound, func() error {
		got = box.Doveadm("fetch", "-u", "people", "hdr.subject text", "mailbox", "INBOX", "all")
		if !strings.Contains(got, "serial 3") {
			return fmt.Errorf("in the mailbox is %s", got)
		}
		return nil
	})
	got = strings.NewReplacer("\r", "", "=\n", "", "\n ", " ").Replace(got)
	for _, want := range []string{
		"hdr.subject: [mirrorbus] debian: 7 changed paths, serial 1\n", "2 announcements, the last: debian: 7 changed paths, serial 3\n",
		"2026-11-20T19:02:12Z  debian: 7 changed paths, serial 2\n2026-11-20T19:02:13Z  debian: 7 changed paths, serial 3\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
	if strings.Contains(got, "Content-Disposition") || strings.Contains(got, "is at serial") {
		t.Errorf("more than words of changes was sent:\n%s", got)
	}
	if notes := hub.Notes(); len(notes) != 1 || !strings.Contains(notes[0], "x@nobody.test is refused") {
		t.Errorf("notes %q", notes)
	}
}

// TestDigestIsKept: what was gathered is told although the hub was started again, and although the mail server was away when it was due.
func TestDigestIsKept(t *testing.T) {
	t.Parallel()
	server := testenv.StartPostfix(t, testenv.PostfixOptions{Sockets: []string{"digest"}, Maildirs: []string{"kept"}})
	box := testenv.StartDovecot(t, server, testenv.Certificate{})
	kept := &marks{}
	start := func() (*side, func()) {
		c := masterOf(post(server, "digest"))
		c.Digest, c.DigestEvery = []string{"kept@imap.test"}, config.Duration{Duration: 2 * time.Second}
		hub := &side{t: t}
		var err error
		hub.CheckedTransport, err = transports.Registry{mail.Driver()}.Open(transports.Master, mail.Name, c, transports.Env{Self: "digest", Bookmarks: kept,
			Log: slog.New(slog.NewTextHandler(&hub.log, nil))})
		must(t, err)
		return hub, hub.run(reports)
	}
	change := func(n int) transports.Message {
		return transports.Message{Topic: debian, ID: fmt.Sprint(n), Body: fmt.Appendf(nil, "mirrorbus1 change module=debian serial=%d at=2026-11-20T19:02:1%[1]dZ n=7 key=k sig=s\n", n)}
	}
	hub, stop := start()
	hub.publish(change(1))
	hub.counts("digests", 1)
	hub.publish(change(2))
	testenv.WaitFor(t, bound, func() error {
		if text, err := kept.Bookmark(t.Context(), "mail.digest"); !strings.Contains(text, "serial 2") {
			return fmt.Errorf("kept is %s, %v", text, err)
		}
		return nil
	})
	stop()
	server.Kill()
	hub, _ = start()
	testenv.WaitFor(t, bound, func() error {
		if !strings.Contains(hub.log.String(), "a digest was not sent") {
			return errors.New("it was not tried")
		}
		return nil
	})
	server.Start()
	testenv.WaitFor(t, bound, func() error {
		if got := box.Doveadm("fetch", "-u", "kept", "text", "mailbox", "INBOX", "all"); !strings.Contains(got, "serial 1") || !strings.Contains(got, "serial 2") {
			return fmt.Errorf("in the mailbox is %s", got)
		}
		return nil
	})
}

// TestLogin: a server that wants to know who we are is told over TLS alone; a wrong password is an error that somebody must mend, and is not in it.
func TestLogin(t *testing.T) {
	t.Parallel()
	authority := testenv.NewAuthority(t)
	server := testenv.StartPostfix(t, testenv.PostfixOptions{Sockets: []string{"tls"}, SASL: true, Cert: authority.Issue("mx", 3*time.Hour, "127.0.0.1"),
		Conf: []string{"smtpd_data_restrictions = permit_sasl_authenticated, reject"}})
	box := testenv.StartDovecot(t, server, testenv.Certificate{})
	mirror := start(t, debian, post(server, "tls", "tls-hub"))
	try := func(id string, change func(*mail.Post)) error {
		p := post(server, "tls-hub", "tls")
		p.LMTP, p.TLS, p.CA, p.User, p.Password = "", "starttls", config.Path(authority.File), "me", config.NewSecret(box.Password)
		change(&p)
		return start(t, reports, p).Publish(t.Context(), msg(debian, id))
	}
	must(t, try("letin", func(*mail.Post) {}))
	mirror.has("letin")
	err := try("wrong", func(p *mail.Post) { p.Password = config.NewSecret("wr0ng") })
	if !transports.IsPermanent(err) || strings.Contains(err.Error(), "wr0ng") || !strings.Contains(err.Error(), "does not let me in") {
		t.Errorf("a wrong password: %v", err)
	}
	if err := try("plain", func(p *mail.Post) { p.TLS, p.CA = "none", "" }); !transports.IsPermanent(err) {
		t.Errorf("without TLS: %v", err)
	}
	if err := try("nobody", func(p *mail.Post) { p.User, p.Password = "", config.Secret{} }); err == nil {
		t.Error("without a login mail was taken")
	}
}
