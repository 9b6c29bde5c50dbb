package mail

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"net/textproto"
	"strings"

	"github.com/mirrorbus/mirrorbus/transports"
)

// The bounds of a mail that is looked at.
const (
	maxMail  = 2 << 20 // bytes: the largest attachment, and what is around it
	maxDepth = 8       // multipart in multipart
	maxParts = 100
)

// What a mail can be. The counters have these names.
const (
	kindMessage   = "received"   // ours, and whole
	kindOwn       = "own"        // what we have sent ourselves
	kindBounce    = "bounces"    // a mail server says that it could not deliver
	kindMangled   = "mangled"    // it was ours, and was changed on the way
	kindAutomatic = "automatic"  // somebody's program has answered
	kindStranger  = "strangers"  // anything else that is a mail
	kindBroken    = "unreadable" // not even a mail
)

// A reading is what was found in a mail.
type reading struct {
	kind    string
	message transports.Message
	mailID  string // the Message-Id in its brackets, or ""
	from    string // whose address it says that it is from, or ""
	answers string // the Message-Id of what it says that it answers, or ""
	bounces []bounce
	err     error // why it is mangled, or unreadable
}

// A bounce is a recipient that was not reached for good.
type bounce struct{ to, why string }

// read finds out what a mail is. What is of self, a role and a name, is our own.
func read(raw []byte, self string) reading {
	if bytes.HasPrefix(raw, []byte("From ")) { // some deliver with the first line of a mailbox before the head
		_, raw, _ = bytes.Cut(raw, []byte("\n"))
	}
	one, err := mail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		return reading{kind: kindBroken, err: err}
	}
	s := search{self: self}
	head := textproto.MIMEHeader(one.Header)
	s.walk(head, one.Body, 0)
	found := s.verdict(head)
	found.mailID, found.answers = messageID(head.Get("Message-Id")), messageID(head.Get("In-Reply-To"))
	if from, err := mail.ParseAddress(head.Get("From")); err == nil {
		found.from = from.Address
	}
	return found
}

// messageID is one that may be written into a head of ours.
func messageID(text string) string {
	text = strings.TrimSpace(text)
	if len(text) > 250 || !strings.HasPrefix(text, "<") || !strings.HasSuffix(text, ">") || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return ""
	}
	return text
}

// A search goes through the parts of a mail.
type search struct {
	self  string
	parts int

	ours     *reading // the first attachment of ours, whole or not
	report   bool     // it is a delivery status
	bounces  []bounce
	deepness error
}

// verdict says what the mail is, from what was found in it.
func (s *search) verdict(head textproto.MIMEHeader) reading {
	answered := strings.ToLower(strings.TrimSpace(head.Get("Auto-Submitted")))
	precedence := strings.ToLower(strings.TrimSpace(head.Get("Precedence")))
	switch {
	case s.report:
		return reading{kind: kindBounce, bounces: s.bounces}
	case s.ours != nil:
		return *s.ours
	case s.deepness != nil:
		return reading{kind: kindBroken, err: s.deepness}
	case head.Get(fieldTopic) != "":
		return reading{kind: kindMangled, err: errors.New("its attachment is gone")}
	case answered != "" && answered != "no", strings.HasPrefix(precedence, "auto") || precedence == "bulk" || precedence == "junk", strings.TrimSpace(head.Get("Return-Path")) == "<>":
		return reading{kind: kindAutomatic}
	}
	return reading{kind: kindStranger}
}

// walk looks at one part and those in it.
func (s *search) walk(head textproto.MIMEHeader, body io.Reader, depth int) {
	s.parts++
	if depth > maxDepth || s.parts > maxParts {
		s.deepness = fmt.Errorf("more than %d parts, or more than %d in one another", maxParts, maxDepth)
		return
	}
	kind, params, err := mime.ParseMediaType(head.Get("Content-Type"))
	if err != nil && kind == "" {
		kind = "text/plain"
	}
	switch {
	case kind == "multipart/report" && strings.EqualFold(params["report-type"], "delivery-status"):
		s.report = true
		s.inside(params["boundary"], body, depth)
	case strings.HasPrefix(kind, "multipart/"):
		s.inside(params["boundary"], body, depth)
	case kind == "message/delivery-status" && s.report:
		s.bounces = append(s.bounces, status(body)...)
	case s.ours == nil && (kind == mediaType || head.Get(fieldDigest) != ""):
		found := s.attachment(head, body)
		s.ours = &found
	}
}

func (s *search) inside(boundary string, body io.Reader, depth int) {
	if boundary == "" {
		return
	}
	for parts := multipart.NewReader(body, boundary); s.deepness == nil; {
		part, err := parts.NextRawPart()
		if err != nil {
			return // what was found so far counts: a mail that was cut short has lost its attachment
		}
		s.walk(part.Header, part, depth+1)
	}
}

// attachment reads one of ours.
func (s *search) attachment(head textproto.MIMEHeader, body io.Reader) reading {
	mangled := func(format string, args ...any) reading {
		return reading{kind: kindMangled, err: fmt.Errorf(format, args...)}
	}
	if s.self != "" && head.Get(fieldFrom) == s.self {
		return reading{kind: kindOwn}
	}
	content, err := decoded(head.Get("Content-Transfer-Encoding"), body)
	if err != nil {
		return mangled("its attachment cannot be decoded: %w", err)
	}
	kind, module, _ := strings.Cut(strings.TrimSpace(head.Get(fieldTopic)), "/")
	m := transports.Message{Topic: transports.Topic{Kind: transports.Kind(kind), Module: module}, ID: strings.TrimSpace(head.Get(fieldID)), Body: content}
	if err := capabilities("").Check(m); err != nil {
		return mangled("its attachment: %w", err)
	}
	if want := strings.TrimSpace(head.Get(fieldDigest)); want != digest(content) {
		return mangled("its attachment, sent as %s, has other bytes than were sent", orElse(head.Get("Content-Transfer-Encoding"), "7bit"))
	}
	return reading{kind: kindMessage, message: m}
}

// decoded undoes a transfer encoding. It need not be the one that was sent: gateways choose another.
func decoded(encoding string, body io.Reader) ([]byte, error) {
	raw, err := io.ReadAll(body)
	if err != nil {
		return nil, err
	}
	switch strings.ToLower(strings.TrimSpace(encoding)) {
	case "base64":
		packed := make([]byte, 0, len(raw))
		for _, c := range raw {
			if c != ' ' && c != '\t' && c != '\r' && c != '\n' {
				packed = append(packed, c)
			}
		}
		return base64.StdEncoding.AppendDecode(nil, packed)
	case "quoted-printable":
		return io.ReadAll(quotedprintable.NewReader(bytes.NewReader(raw)))
	case "", "7bit", "8bit", "binary":
		return raw, nil
	}
	return nil, fmt.Errorf("transfer encoding %.40q is not known", encoding)
}

// status reads the recipients that a delivery status (RFC 3464) gives up.
func status(body io.Reader) (all []bounce) {
	raw, err := io.ReadAll(body)
	if err != nil {
		return nil
	}
	blocks := strings.Split(strings.ReplaceAll(string(raw), "\r\n", "\n"), "\n\n")
	for _, block := range blocks[:min(len(blocks), maxParts)] {
		one, err := mail.ReadMessage(strings.NewReader(strings.TrimLeft(block, "\n") + "\n\n"))
		if err != nil || !strings.EqualFold(strings.TrimSpace(one.Header.Get("Action")), "failed") {
			continue
		}
		_, to, ok := strings.Cut(one.Header.Get("Final-Recipient"), ";")
		if original, o, found := strings.Cut(one.Header.Get("Original-Recipient"), ";"); found && strings.EqualFold(strings.TrimSpace(original), "rfc822") {
			to, ok = o, true // as we know it
		}
		if ok {
			why := strings.TrimSpace(one.Header.Get("Status") + " " + one.Header.Get("Diagnostic-Code"))
			all = append(all, bounce{to: strings.TrimSpace(to), why: why})
		}
	}
	return all
}
