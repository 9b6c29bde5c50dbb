package mail_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/smtp"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	gosmtp "github.com/emersion/go-smtp"

	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/mail"
)

// brings hands a mail to the mail server, as anybody can.
func brings(t *testing.T, server *testenv.Postfix, from, to, text string) {
	t.Helper()
	must(t, smtp.SendMail(server.Addr(), nil, from, []string{to}, []byte(strings.ReplaceAll(text, "\n", "\r\n"))))
}

// settled waits until nothing waits in the mail server for an address.
func settled(t *testing.T, server *testenv.Postfix, address string) {
	t.Helper()
	testenv.WaitFor(t, bound, func() error {
		if q := server.Queue(); strings.Contains(q, address) {
			return fmt.Errorf("the queue is %s", q)
		}
		return nil
	})
}

// quiet waits until nothing waits in the mail server for an address, and fails if it has sent anything back.
func quiet(t *testing.T, server *testenv.Postfix, address string) {
	t.Helper()
	settled(t, server, address)
	for line := range strings.Lines(server.Log()) {
		if strings.Contains(line, "to=<"+address+">") && strings.Contains(line, "status=bounced") {
			t.Errorf("mail was sent back: %s", line)
		}
	}
}

// TestStrangersAreNeverAnswered: whatever anybody sends is taken and counted, and nothing goes back.
func TestStrangersAreNeverAnswered(t *testing.T) {
	t.Parallel()
	server := postfix(t)
	mirror := start(t, debian, post(server, "junk", "master"))
	forged := "Mirrorbus-Topic: announce/debian\nMirrorbus-Id: x\nMirrorbus-Digest: x\nContent-Type: application/vnd.mirrorbus.announce\n\nx\n"
	for what, text := range map[string]string{
		"strangers":  "Subject: hello\n\nhow are you\n",
		"automatic":  "Auto-Submitted: auto-replied\nSubject: Re:\n\nI am away\n",
		"mangled":    forged,
		"too_large":  "Subject: large\n\n" + strings.Repeat("x", 9<<20) + "\n",
		"unreadable": "Content-Type: multipart/mixed; boundary=B\n\n" + strings.Repeat("--B\n\nx\n", 200),
	} {
		brings(t, server, "somebody@forged.test", at("junk"), text)
		mirror.counts(what, 1)
	}
	quiet(t, server, at("junk"))
	if !strings.Contains(mirror.log.String(), "a mail was changed on the way") {
		t.Errorf("that a mail was mangled is not said:\n%s", mirror.log.String())
	}
}

// TestBounceIsNoted: mail that comes back from behind the server is seen, and which recipient it was.
func TestBounceIsNoted(t *testing.T) {
	t.Parallel()
	server := postfix(t)
	hub := start(t, reports, post(server, "bounce-hub", "x@bounced.test"))
	hub.publish(msg(debian, "a"))
	hub.counts("bounces", 1)
	if notes := hub.Notes(); len(notes) != 1 || !strings.HasPrefix(notes[0], "mail to x@bounced.test comes back since ") || !strings.Contains(notes[0], "5.1.1") {
		t.Errorf("notes %q", notes)
	}
	quiet(t, server, at("bounce-hub"))
}

// TestBounceDegradesUntilItIsAnswered: mail that comes back degrades the transport. That the server takes the next one proves nothing; that the mirror
// answers it does, and the answer of another does not.
func TestBounceDegradesUntilItIsAnswered(t *testing.T) {
	t.Parallel()
	server := testenv.StartPostfix(t, testenv.PostfixOptions{Sockets: []string{"back-hub", "back", "next"}, Routes: []string{`/^back@lmtp\.test$/ error:5.1.1 moved away`}})
	hub := start(t, reports, post(server, "back-hub", "back", "next"))
	back, next := start(t, debian, post(server, "back", "back-hub")), start(t, debian, post(server, "next", "back-hub"))
	hub.publish(msg(debian, "a"))
	degraded := func() string { return strings.Join(hub.Degraded(), "; ") }
	hub.await("degraded", func() bool { return degraded() != "" })
	if got := degraded(); !strings.HasPrefix(got, "mail to back@lmtp.test comes back since ") || !strings.Contains(got, "moved away") || strings.Contains(got, "next@") {
		t.Errorf("degraded: %q", got)
	}
	routes := filepath.Join(server.Dir, "conf", "transport")
	text, err := os.ReadFile(routes)
	must(t, err)
	_, text, _ = bytes.Cut(text, []byte("\n")) // the first is ours
	must(t, os.WriteFile(routes, text, 0o644))
	server.Kill()
	server.Start()
	hub.publish(msg(debian, "b"))
	back.has("b")
	next.has("b")
	next.publish(msg(reports, "n"))
	hub.has("n")
	if got := degraded(); !strings.Contains(got, "back@lmtp.test comes back") {
		t.Errorf("taken, and answered by another: %q", got)
	}
	for n := 1; degraded() != ""; n++ { // what it answers is the newest that it has heard, which "b" is a moment after it has come
		if n > 20 {
			t.Fatalf("answered: %q", degraded())
		}
		id := fmt.Sprint("answer-", n)
		back.publish(msg(reports, id))
		hub.has(id)
	}
	if !strings.Contains(hub.log.String(), "mail gets through again") {
		t.Errorf("nothing is said of it:\n%s", hub.log.String())
	}
}

// TestRefusalIsToldToThoseWeKnow: a mail of the other side that is never to be taken goes back, one under another address is dropped.
func TestRefusalIsToldToThoseWeKnow(t *testing.T) {
	t.Parallel()
	server := postfix(t)
	mirror := start(t, debian, post(server, "refusing", "report-hub"))
	mirror.refuses = func(transports.Message) error { return &transports.Refusal{Err: errors.New("not your module")} }
	hub := start(t, reports, post(server, "report-hub", "refusing"))
	hub.publish(msg(debian, "a"))
	hub.counts("bounces", 1)
	if notes := strings.Join(hub.Notes(), ""); !strings.Contains(notes, "not your module") {
		t.Errorf("notes %q", notes)
	}
	stranger := post(server, "report", "refusing")
	other := start(t, reports, stranger)
	other.publish(msg(debian, "b"))
	mirror.counts("not_taken", 2)
	settled(t, server, at("refusing"))
	if n := other.Counters()["bounces"]; n != 0 {
		t.Errorf("%d mails went back to a stranger", n)
	}
}

// TestPanicIsATemporaryFailure: a mistake of ours makes the mail server keep the mail, and tells the sender nothing.
func TestPanicIsATemporaryFailure(t *testing.T) {
	t.Parallel()
	server := postfix(t)
	mirror := start(t, debian, post(server, "panic", "master"))
	first := true
	mirror.refuses = func(transports.Message) error {
		if first {
			first = false
			panic("mistake in line 7")
		}
		return nil
	}
	hub := start(t, reports, post(server, "loner", "panic"))
	hub.publish(msg(debian, "a"))
	mirror.has("a") // it was brought again
	for line := range strings.Lines(server.Log()) {
		if strings.Contains(line, "mistake in line 7") {
			t.Errorf("the mail server was told: %s", line)
		}
	}
}

// TestSlowLoris: who is silent, or drips, does not keep the place, and one too many is turned away.
func TestSlowLoris(t *testing.T) {
	t.Parallel()
	server := postfix(t)
	p := post(server, "loris", "master")
	p.LMTP, p.MaxSessions, p.Timeout = fmt.Sprint("127.0.0.1:", testenv.FreePort(t)), 1, config.Duration{Duration: time.Second}
	mirror := start(t, debian, p)
	comes := func() (net.Conn, *bufio.Reader) {
		c, err := net.Dial("tcp", p.LMTP)
		must(t, err)
		t.Cleanup(func() { c.Close() }) //nolint:errcheck // it may be closed already
		must(t, c.SetDeadline(time.Now().Add(bound)))
		return c, bufio.NewReader(c)
	}
	first, in := comes()
	greeting, err := in.ReadString('\n')
	must(t, err)
	if !strings.HasPrefix(greeting, "220 ") {
		t.Fatalf("it greets with %q", greeting)
	}
	_, err = io.WriteString(first, "LHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\nSubject: half")
	must(t, err)
	_, second := comes()
	if line, err := second.ReadString('\n'); err == nil {
		t.Errorf("one too many is told %q", line)
	}
	mirror.counts("turned_away", 1)
	said, err := io.ReadAll(in) // until it is closed
	must(t, err)
	if !strings.Contains(string(said), "\n451 4.3.0 ") {
		t.Errorf("half a mail is answered with %q", said)
	}
	_, in = comes()
	if line, err := in.ReadString('\n'); err != nil || !strings.HasPrefix(line, "220 ") {
		t.Errorf("the place is not free again: %q, %v", line, err)
	}
}

// TestTooMuch: more mails in a minute than are to be looked at are left to the mail server, which brings them again.
func TestTooMuch(t *testing.T) {
	t.Parallel()
	server := postfix(t)
	p := post(server, "gone", "master")
	p.PerMinute = 60
	mirror := start(t, debian, p)
	for i := range 80 {
		if i%20 == 0 && mirror.Counters()["too_many"] > 0 {
			break
		}
		brings(t, server, "somebody@forged.test", at("gone"), "Subject: x\n\nx\n")
	}
	mirror.counts("too_many", 1)
	mirror.counts("strangers", 61)
}

// TestLongLines: a mail of one line, however long, is dropped as any other that is too large; to bring it again would not help it.
func TestLongLines(t *testing.T) {
	t.Parallel()
	p := post(&testenv.Postfix{}, "lines", "hub")
	p.SMTP, p.LMTP = "127.0.0.1:25", filepath.Join(t.TempDir(), "door")
	mirror := start(t, debian, p)
	for i, size := range []int{3 << 20, 12 << 20} {
		if err := mail.HandOver(t.Context(), p.LMTP, "", strings.NewReader("Subject: x\r\n\r\n"+strings.Repeat("x", size)+"\r\n")); err != nil {
			t.Errorf("%d bytes: %v", size, err)
		}
		mirror.counts("too_large", uint64(i+1))
	}
	conn, err := net.Dial("unix", p.LMTP)
	must(t, err)
	defer conn.Close() //nolint:errcheck // what was to be said is said
	c := gosmtp.NewClientLMTP(conn)
	must(t, errors.Join(c.Hello("localhost"), c.Mail("", nil), c.Rcpt("x@localhost", nil)))
	w, err := c.Data()
	must(t, err)
	io.WriteString(w, strings.Repeat("x", 12<<20)+"\r\n") //nolint:errcheck // the other side hangs up in the middle
	w.CloseWithLMTPResponse()                             //nolint:errcheck // likewise
	mirror.counts("too_large", 3)
}

// taken is a mail that is taken.
const taken = "Content-Type: application/vnd.mirrorbus.announce\nMirrorbus-Topic: announce/debian\nMirrorbus-Id: 1\nMirrorbus-Digest: LXEWQrcmsEQBYnyp-6wy9chTD7GQPMTbAiWHF5IaSIE\n" +
	"Content-Transfer-Encoding: base64\n\neA==\n"

// TestHandOver: what `receive --mail` does, and how it is answered.
func TestHandOver(t *testing.T) {
	t.Parallel()
	p := post(&testenv.Postfix{}, "pipe", "hub")
	p.SMTP, p.LMTP = "127.0.0.1:25", fmt.Sprint("127.0.0.1:", testenv.FreePort(t))
	brought := func(from string) error {
		return mail.HandOver(t.Context(), p.LMTP, from, strings.NewReader("From a\n"+taken))
	}
	if err := brought(""); !errors.Is(err, mail.ErrNobody) {
		t.Errorf("without an agent: %v", err)
	}
	mirror := start(t, debian, p)
	must(t, brought("x@forged.test"))
	mirror.counts("received", 1)
	mirror.answers(&transports.Refusal{Err: errors.New("not your module")})
	must(t, brought("x@forged.test"))
	must(t, brought("MAILER-DAEMON"))
	if err := brought(at("hub")); !errors.Is(err, mail.ErrNotTaken) || !strings.Contains(err.Error(), "not your module") {
		t.Errorf("refused, to somebody known: %v", err)
	}
	mirror.ends = errors.New("disk full")
	mirror.answers(mirror.ends)
	if err := brought(at("hub")); !errors.Is(err, mail.ErrNotNow) || strings.Contains(err.Error(), "disk full") {
		t.Errorf("not now: %v", err)
	}
}
