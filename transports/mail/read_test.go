package mail

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"maps"
	"net/mail"
	"slices"
	"strings"
	"testing"

	"github.com/mirrorbus/mirrorbus/transports"
)

// writer is a transport that only writes mails.
func writer(t testing.TB, role transports.Role, self string) *transport {
	t.Helper()
	p := defaultPost()
	p.SMTP, p.TLS, p.From, p.To, p.LMTP = "127.0.0.1:25", tlsNone, self+"@a.test", []string{"other@b.test"}, "/nowhere"
	x, err := newTransport(role, &MasterConfig{Post: p, DigestEvery: p.BeatEvery}, p, transports.Env{Self: self})
	if err != nil {
		t.Fatal(err)
	}
	return x
}

const change = "mirrorbus1 change module=fedora epoch=7c1e9f02 serial=1042 at=2026-11-20T19:02:11Z n=1482 set=S prev=P key=K sig=S\n\x28\xb5\x2f\xfd\x00"

func announcement(body string) transports.Message {
	return transports.Message{Topic: transports.Topic{Kind: transports.Announce, Module: "fedora"}, ID: "7c1e9f02.1042", Body: []byte(body)}
}

// composed is a mail of a master.
func composed(t testing.TB, body string) string {
	t.Helper()
	text, err := writer(t, transports.Master, "hub").compose(announcement(body), "other@b.test")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestWhatPeopleRead: the head threads by module and says that a program has written it; the text says what changed, how much, and what to do.
func TestWhatPeopleRead(t *testing.T) {
	text := composed(t, change)
	one, err := mail.ReadMessage(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	for field, want := range map[string]string{
		"Subject": "[mirrorbus] fedora: 1482 changed paths, serial 1042", "Message-Id": "<7c1e9f02-1042.fedora.announce.mirrorbus@a.test>",
		"References": "<fedora.thread.mirrorbus@a.test>", "In-Reply-To": "<fedora.thread.mirrorbus@a.test>", "List-Id": "<fedora.mirrorbus.a.test>",
		"Auto-Submitted": "auto-generated", "Precedence": "list", "From": "<hub@a.test>", "To": "<other@b.test>",
	} {
		if got := one.Header.Get(field); got != want {
			t.Errorf("%s is %q, want %q", field, got, want)
		}
	}
	for _, want := range []string{"fedora: 1482 changed paths, serial 1042.\r\n", "When: 2026-11-20T19:02:11Z", "Nothing is to be done", "Content-Type: " + mediaType} {
		if !strings.Contains(strings.ReplaceAll(text, "=3D", "="), want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	if len(text) != len(strings.ToValidUTF8(text, "")) || strings.ContainsFunc(text, func(r rune) bool { return r > '~' || r < ' ' && r != '\r' && r != '\n' && r != '\t' }) {
		t.Error("the mail is not plain ASCII: a mail server on the way would change it")
	}
}

// TestNothingIsInjected: whatever a body says, the head has the fields that it is to have, and the body arrives.
func TestNothingIsInjected(t *testing.T) {
	want := slices.Sorted(maps.Keys(fields(t, composed(t, change))))
	for _, body := range []string{
		"mirrorbus1 change module=fedora serial=1\r\nBcc: victim@b.test\r\n\r\nx", "mirrorbus1 change serial=1\rBcc: victim@b.test n=\x0b\x00\n",
		"mirrorbus1 report mirror=<b>&=?utf-8?q?x?= serial=-- outcome=.\n.\n", "mirrorbus1 change n=" + strings.Repeat("9", 4000) + " serial=1\n", "mirrorbus1  \n", "mirrorbus1 change\n", "\n", "\r\n.\r\n",
	} {
		text := composed(t, body)
		if got := slices.Sorted(maps.Keys(fields(t, text))); !slices.Equal(got, want) {
			t.Errorf("%.40q: the head has %q, want %q", body, got, want)
		}
		for line := range strings.Lines(text) {
			if len(line) > 998 {
				t.Errorf("%.40q: a line of %d bytes", body, len(line))
			}
		}
		if found := read([]byte(text), ""); found.kind != kindMessage || string(found.message.Body) != body {
			t.Errorf("%.40q: it is %s (%v)", body, found.kind, found.err)
		}
	}
}

func fields(t *testing.T, text string) mail.Header {
	t.Helper()
	one, err := mail.ReadMessage(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return one.Header
}

// TestReportsAnswer: a report is a reply to the last announcement of its module, in the thread of the master.
func TestReportsAnswer(t *testing.T) {
	x := writer(t, transports.Mirror, "m1")
	x.hasHeard("fedora", "<7c1e9f02-1042.fedora.announce.mirrorbus@b.test>")
	m := announcement("mirrorbus1 report module=fedora mirror=m1 serial=1042 outcome=failed err=disk%20full key=K sig=S")
	m.Topic.Kind = transports.Report
	text, err := x.compose(m, "other@b.test")
	if err != nil {
		t.Fatal(err)
	}
	one, err := mail.ReadMessage(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	for field, want := range map[string]string{
		"In-Reply-To": "<7c1e9f02-1042.fedora.announce.mirrorbus@b.test>", "Auto-Submitted": "auto-replied", "Subject": "[mirrorbus] fedora: m1 has serial 1042 failed",
		"References": "<fedora.thread.mirrorbus@b.test> <7c1e9f02-1042.fedora.announce.mirrorbus@b.test>",
	} {
		if got := strings.Join(strings.Fields(one.Header.Get(field)), " "); got != want {
			t.Errorf("%s is %q, want %q", field, got, want)
		}
	}
}

const bounceText = "Return-Path: <>\r\nFrom: MAILER-DAEMON@b.test\r\nAuto-Submitted: auto-replied\r\nContent-Type: multipart/report; report-type=delivery-status; boundary=B\r\n\r\n" +
	"--B\r\nContent-Type: text/plain\r\n\r\nI am sorry\r\n--B\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; b.test\r\n\r\n" +
	"Final-Recipient: rfc822; other@b.test\r\nAction: failed\r\nStatus: 5.1.1\r\nDiagnostic-Code: smtp; 550 nobody here\r\n\r\n" +
	"Final-Recipient: rfc822; late@b.test\r\nAction: delayed\r\nStatus: 4.0.0\r\n\r\n--B\r\nContent-Type: message/rfc822\r\n\r\nX\r\n--B--\r\n"

// TestRead: what mail servers, gateways, people and programs make of a mail.
func TestRead(t *testing.T) {
	good := composed(t, change)
	b64 := base64.StdEncoding.EncodeToString([]byte(change))
	if !strings.Contains(strings.ReplaceAll(good, "\r\n", ""), b64) {
		t.Fatal("the attachment is not base64")
	}
	quoted := strings.NewReplacer("\n", "=0A", "\x28", "=28", "\xb5", "=B5", "\x2f", "=2F", "\xfd", "=FD", "\x00", "=00", "=", "=3D").Replace
	recoded := func(body string) string {
		head, rest, _ := strings.Cut(good, "Content-Transfer-Encoding: base64")
		fields, rest, _ := strings.Cut(rest, "\r\n\r\n")
		_, end, _ := strings.Cut(rest, "\r\n--")
		return head + "Content-Transfer-Encoding: quoted-printable" + fields + "\r\n\r\n" + body + "\r\n--" + end
	}
	deep := ""
	for i := range 40 {
		deep += fmt.Sprintf("Content-Type: multipart/mixed; boundary=B%d-\r\n\r\n--B%[1]d-\r\n", i)
	}
	for _, c := range []struct{ name, mail, want string }{
		{"as sent", good, kindMessage},
		{"with the first line of a mailbox", "From hub@a.test  Fri Nov 20 19:02:11 2026\n" + good, kindMessage},
		{"with line feeds alone", strings.ReplaceAll(good, "\r\n", "\n"), kindMessage},
		{"with the null sender, as reports have", "Return-Path: <>\r\n" + good, kindMessage},
		{"type changed by a gateway", strings.Replace(good, mediaType, "application/octet-stream", 1), kindMessage},
		{"in another multipart", "Subject: fwd\r\nContent-Type: multipart/mixed; boundary=Z\r\n\r\n--Z\r\n" + good + "\r\n--Z--\r\n", kindMessage},
		{"encoded anew", recoded(quoted(change)), kindMessage},
		{"encoded anew, and changed", recoded(quoted(strings.Replace(change, "serial=1042", "serial=1043", 1))), kindMangled},
		{"a digit changed", strings.Replace(good, b64[:60], strings.Replace(b64[:60], b64[40:41], "_", 1), 1), kindMangled},
		{"cut short", good[:strings.Index(good, b64[:40])+40], kindMangled},
		{"topic of nobody", strings.ReplaceAll(good, "announce/fedora", "announce/../x"), kindMangled},
		{"attachment taken out", good[:strings.Index(good, "\r\n\r\n")+4], kindMangled},
		{"bounce", bounceText, kindBounce},
		{"away from office", "Auto-Submitted: auto-replied\r\nSubject: Re: [mirrorbus]\r\n\r\nI am away\r\n", kindAutomatic},
		{"from a list", "Precedence: bulk\r\nSubject: x\r\n\r\nx\r\n", kindAutomatic},
		{"null sender", "Return-Path: <>\r\nSubject: x\r\n\r\nx\r\n", kindAutomatic},
		{"a person", "Subject: hello\r\n\r\nhow are you\r\n", kindStranger},
		{"nothing", "", kindBroken},
		{"no head", "x", kindBroken},
		{"boxes in boxes", deep, kindBroken},
		{"a hundred attachments", "Content-Type: multipart/mixed; boundary=B\r\n\r\n" + strings.Repeat("--B\r\n\r\nx\r\n", 200), kindBroken},
		{"a head of a megabyte", "X: " + strings.Repeat("x", 1<<20) + "\r\n" + good, kindMessage},
		{"control characters", "Subject: \x00\x1b[2J\x07\r\n\r\nx\r\n", ""},
	} {
		found := read([]byte(c.mail), "mirror m1")
		if c.want != "" && found.kind != c.want {
			t.Errorf("%s: it is %q (%v), want %q", c.name, found.kind, found.err, c.want)
		}
		if found.kind == kindMessage && (string(found.message.Body) != change || found.message.ID != "7c1e9f02.1042" || found.message.Topic.Module != "fedora") {
			t.Errorf("%s: %+v", c.name, found.message)
		}
		if found.kind == kindMangled && found.err == nil {
			t.Errorf("%s: it does not say why", c.name)
		}
	}
	if found := read([]byte(good), "master hub"); found.kind != kindOwn {
		t.Errorf("one's own: it is %q", found.kind)
	}
	if got := fmt.Sprint(read([]byte(bounceText), "").bounces); got != "[{other@b.test 5.1.1 smtp; 550 nobody here}]" {
		t.Errorf("bounces: %s", got)
	}
}

// FuzzRead: whatever comes is read without a panic, and what is taken has the digest that was sent with it.
func FuzzRead(f *testing.F) {
	f.Add([]byte(composed(f, change)))
	f.Add([]byte(composed(f, "x")))
	f.Add([]byte(bounceText))
	f.Add([]byte("From a\nSubject: x\n\nx"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		found := read(raw, "mirror m1")
		if (found.kind == kindMangled || found.kind == kindBroken) == (found.err == nil) {
			t.Errorf("%s with the error %v", found.kind, found.err)
		}
		if found.kind == kindMessage && capabilities("").Check(found.message) != nil {
			t.Errorf("taken: %+v", found.message)
		}
		if strings.ContainsAny(found.mailID, "\r\n") {
			t.Errorf("Message-Id %q", found.mailID)
		}
	})
}
