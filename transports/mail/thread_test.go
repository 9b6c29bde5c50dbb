package mail_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
)

// TestOneConnection: mails go one after the other over one connection to the server, also after it has refused a recipient; when it is lost there is another.
func TestOneConnection(t *testing.T) {
	t.Parallel()
	server := postfix(t)
	between := testenv.StartProxy(t, server.Port)
	p := post(server, "kept-hub", "x@nobody.test", "kept")
	p.SMTP = fmt.Sprint("127.0.0.1:", between.Port)
	hub, mirror := start(t, reports, p), start(t, debian, post(server, "kept", "kept-hub"))
	for n := range 6 {
		id := fmt.Sprint("m.", n)
		hub.publish(msg(debian, id))
		mirror.has(id)
	}
	if n := between.Accepted(); n != 1 {
		t.Errorf("%d connections for 6 mails", n)
	}
	between.Drop()
	hub.publish(msg(debian, "after"))
	mirror.has("after")
	if n := between.Accepted(); n != 2 {
		t.Errorf("%d connections, want one more after the first was lost", n)
	}
}

// TestReportsComeBackInTheThread: what mirrors report is for who reads mail an answer to the announcement, and for the master a report.
func TestReportsComeBackInTheThread(t *testing.T) {
	t.Parallel()
	server := postfix(t)
	box := testenv.SharedDovecot(t, server)
	hub := start(t, reports, post(server, "thread-hub", "thread", "answers@imap.test"))
	mirror := start(t, debian, post(server, "thread", "thread-hub", "answers@imap.test"))
	hub.publish(msg(debian, "e.1"))
	mirror.has("e.1")
	settled(t, server, at("thread")) // the mirror has answered for it
	mirror.publish(msg(reports, "r.1"))
	hub.has("r.1")
	const announced = "<e-1.debian.announce.mirrorbus@lmtp.test>"
	testenv.WaitFor(t, bound, func() error {
		got := strings.ReplaceAll(box.Doveadm("fetch", "-u", "answers", "hdr.message-id hdr.in-reply-to hdr.references hdr.auto-submitted", "mailbox", "INBOX", "all"), "\n ", " ") // long fields are on several lines
		for _, want := range []string{
			"hdr.message-id: " + announced, "hdr.in-reply-to: " + announced, "hdr.references: <debian.thread.mirrorbus@lmtp.test> " + announced, "hdr.auto-submitted: auto-replied",
		} {
			if !strings.Contains(got, want+"\n") {
				return fmt.Errorf("%q is not in the mailbox:\n%s", want, got)
			}
		}
		return nil
	})
}
