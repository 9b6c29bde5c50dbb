package mail

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"

	gomail "github.com/wneessen/go-mail"

	"github.com/mirrorbus/mirrorbus/transports"
)

// What the attachment is, and the fields of its head. The topic stands in the head of the mail as well, so that one which has lost its attachment is known.
const (
	mediaType   = "application/vnd.mirrorbus.announce"
	fileEnd     = ".mirrorbus"
	fieldTopic  = "Mirrorbus-Topic"
	fieldID     = "Mirrorbus-Id"
	fieldDigest = "Mirrorbus-Digest" // SHA-256 of the attachment, base64url: tells who changed it, the way or the sender
	fieldFrom   = "Mirrorbus-From"   // the role and name of the sender, so that it knows its own
)

func digest(body []byte) string {
	sum := sha256.Sum256(body)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func (t *transport) self() string { return string(t.role) + " " + t.env.Self }

// compose makes the mail of a message for one recipient.
func (t *transport) compose(m transports.Message, to string) ([]byte, error) {
	one := gomail.NewMsg(gomail.WithNoDefaultUserAgent())
	if err := one.From(t.post.From); err != nil {
		return nil, fmt.Errorf("from %s: %w", t.post.From, err)
	}
	if err := one.To(to); err != nil {
		return nil, fmt.Errorf("to %s: %w", to, err)
	}
	one.Subject(subject(m))
	one.SetMessageIDWithValue(t.mailID(m))
	one.SetDate()
	root := fmt.Sprintf("<%s.thread.mirrorbus@%s>", dashed(m.Topic.Module), t.threadDomain(m.Topic))
	submitted, last := "auto-generated", ""
	if m.Topic.Kind == transports.Report {
		submitted, last = "auto-replied", t.lastHeard(m.Topic.Module)
	}
	for field, value := range map[string]string{
		"References": strings.TrimSpace(root + " " + last), "In-Reply-To": orElse(last, root), "List-Id": fmt.Sprintf("<%s.mirrorbus.%s>", dashed(m.Topic.Module), t.post.domain()),
		"Auto-Submitted": submitted, "Precedence": "list", fieldTopic: m.Topic.String(),
	} {
		one.SetGenHeader(gomail.Header(field), value)
	}
	one.SetBodyString(gomail.TypeTextPlain, text(m))
	one.AttachReadSeeker(m.Topic.Module+fileEnd, bytes.NewReader(m.Body), gomail.WithFileContentType(mediaType), func(f *gomail.File) {
		f.Header.Set(fieldTopic, m.Topic.String())
		f.Header.Set(fieldID, m.ID)
		f.Header.Set(fieldDigest, digest(m.Body))
		f.Header.Set(fieldFrom, t.self())
	})
	var out bytes.Buffer
	if _, err := one.WriteTo(&out); err != nil {
		return nil, fmt.Errorf("write the mail: %w", err)
	}
	return out.Bytes(), nil
}

func orElse(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// mailID is the Message-Id of a message, without its brackets: the same for each attempt and for each recipient.
func (t *transport) mailID(m transports.Message) string {
	id := fmt.Sprintf("%s.%s.%s", dashed(m.ID), dashed(m.Topic.Module), m.Topic.Kind)
	if m.Topic.Kind == transports.Report {
		id += "." + dashed(t.env.Self) // mirrors count for themselves
	}
	return id + ".mirrorbus@" + t.post.domain()
}

// threadDomain is that of the master, on both sides: so the mails of a module are one thread.
func (t *transport) threadDomain(topic transports.Topic) string {
	if t.role == transports.Master {
		return t.post.domain()
	}
	return t.post.To[0][strings.LastIndexByte(t.post.To[0], '@')+1:]
}

// dashed is a name as it may stand between the dots of a Message-Id.
func dashed(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' {
			return r
		}
		return '-'
	}, orElse(name, "-"))
}
