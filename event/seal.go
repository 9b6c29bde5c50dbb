package event

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"path"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/mirrorbus/mirrorbus/event/sshsig"
)

// ErrRefused is wrapped by every error that says a line is not from somebody who may say it: unsigned, wrongly signed, revoked, expired, or
// signed by a key that may not speak for this module or kind.
var ErrRefused = errors.New("refused")

func refused(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrRefused, fmt.Errorf(format, args...))
}

// A Texter is what can be sealed: an Announcement, a Head, a Report or a Command.
type Texter interface{ Text() []byte }

// Seal signs what m says and returns the line, without a newline. An ed25519 key gives the compact form.
func Seal(m Texter, key ssh.Signer) ([]byte, error) {
	text := m.Text()
	kind, _, err := parseFields(text)
	if err != nil {
		return nil, err
	}
	sig, err := sshsig.Sign(key, kind.Namespace(), text)
	if err != nil {
		return nil, fmt.Errorf("sign %s: %w", kind, err)
	}
	blob := sig.Marshal()
	id := sshsig.KeyID(key.PublicKey())
	if _, raw, ok := sshsig.Compact(sig); ok {
		blob = raw[:]
	}
	b64 := base64.RawURLEncoding
	line := fmt.Appendf(text, " key=%s sig=%s", b64.EncodeToString(id[:]), b64.EncodeToString(blob))
	if len(line) > MaxLine {
		return nil, malformed("line of %d bytes, at most %d; use a shorter key", len(line), MaxLine)
	}
	return line, nil
}

// Keys knows public keys. signers.File is one.
type Keys interface {
	// KeyByID returns the known keys with this id.
	KeyByID(id [8]byte) []ssh.PublicKey
}

// Trust knows whose keys they are, too. signers.Store is one.
type Trust interface {
	Keys
	// VerifyAs says whether sig over message in namespace was made by principal with a key that was good at that time.
	VerifyAs(principal string, sig *sshsig.Signature, message []byte, namespace string, at time.Time) error
}

// A Grant lets a principal announce some modules in some ways, or command that.
type Grant struct {
	Principal string
	Modules   []string // names, or patterns as of path.Match
	Kinds     []Kind
}

func (g Grant) covers(m Module, k Kind) bool {
	kind, module := false, false
	for _, have := range g.Kinds {
		kind = kind || have == k
	}
	for _, pattern := range g.Modules {
		ok, err := path.Match(pattern, string(m))
		module = module || (ok && err == nil)
	}
	return kind && module
}

// A Gate decides which lines may act: it verifies the signature, then reads the line, then asks whether this principal may say this.
type Gate struct {
	Trust  Trust
	Grants []Grant // for announcements, flips, heads and commands; a report speaks for the mirror that signs it
}

// A Sealed is a line that passed a Gate. Exactly one of its messages is set.
type Sealed struct {
	Line      []byte // as received; never rebuilt
	Digest    Digest // of what is signed in Line: one statement has one digest, though a third party can put some signatures in another form
	Kind      Kind
	Principal string

	Announcement *Announcement
	Head         *Head
	Report       *Report
	Command      *Command
}

// Open verifies a line and then reads it. at is when this process first saw it: a key must have been good then. The error Is ErrFormat or
// ErrRefused.
func (g Gate) Open(line []byte, at time.Time) (Sealed, error) {
	p, err := split(line)
	if err != nil {
		return Sealed{}, err
	}
	sig, err := p.verify(g.Trust)
	if err != nil {
		return Sealed{}, err
	}
	s, err := p.read()
	if err != nil {
		return Sealed{}, err
	}
	s.Principal, err = g.author(p, s, sig, at)
	return s, err
}

// author finds in whose name the line may stand.
func (g Gate) author(p parts, s Sealed, sig *sshsig.Signature, at time.Time) (string, error) {
	who, err := g.candidates(s)
	if err != nil {
		return "", err
	}
	var last error
	for _, principal := range who {
		if last = g.Trust.VerifyAs(principal, sig, p.text, p.kind.Namespace(), at); last == nil {
			return principal, nil
		}
	}
	return "", refused("%s of module %s by key %s: %w", p.kind, s.Module(), p.keyID(), last)
}

// candidates are the principals that could have said this.
func (g Gate) candidates(s Sealed) ([]string, error) {
	if s.Report != nil {
		return []string{s.Report.Mirror}, nil
	}
	var who []string
	for _, grant := range g.Grants {
		if grant.covers(s.Module(), s.Kind) {
			who = append(who, grant.Principal)
		}
	}
	if who == nil {
		return nil, refused("nobody is trusted with a %s of module %s here", s.Kind, s.Module())
	}
	return who, nil
}

// Module is the module that the line is about.
func (s Sealed) Module() Module {
	switch {
	case s.Announcement != nil:
		return s.Announcement.Module
	case s.Head != nil:
		return s.Head.Module
	case s.Report != nil:
		return s.Report.Module
	case s.Command != nil:
		return s.Command.Module
	}
	return ""
}

// Read reads a line without verifying it: for showing it to people, never for acting on it.
func Read(line []byte) (Sealed, error) {
	p, err := split(line)
	if err != nil {
		return Sealed{}, err
	}
	return p.read()
}

// Signature rebuilds the SSHSIG signature of a line and the text it is over, so that ssh-keygen -Y verify can judge it. keys are those that
// may have made it.
func Signature(line []byte, known Keys) (*sshsig.Signature, []byte, error) {
	p, err := split(line)
	if err != nil {
		return nil, nil, err
	}
	sig, err := p.verify(known)
	return sig, p.text, err
}

// parts of a line.
type parts struct {
	line []byte
	text []byte // what is signed
	kind Kind
	id   [8]byte
	sig  []byte // 64 bytes of ed25519, or a whole SSHSIG blob
}

func (p parts) keyID() string { return base64.RawURLEncoding.EncodeToString(p.id[:]) }

// split takes a line apart without believing any of it.
func split(line []byte) (parts, error) {
	if len(line) > MaxLine {
		return parts{}, malformed("line of %d bytes, at most %d", len(line), MaxLine)
	}
	i := bytes.LastIndex(line, []byte(" key="))
	if i < 0 {
		return parts{}, refused("the line is not signed: %w", malformed("no key= and sig= at its end"))
	}
	p := parts{line: line, text: line[:i:i]}
	id, sig, ok := bytes.Cut(line[i+len(" key="):], []byte(" sig="))
	rawID, err := decodeWord(id)
	if !ok || err != nil || len(rawID) != len(p.id) {
		return parts{}, malformed("key= must be 11 characters of base64url, then sig=")
	}
	p.id = [8]byte(rawID)
	if p.sig, err = decodeWord(sig); err != nil {
		return parts{}, malformed("sig= must be base64url")
	}
	words := bytes.SplitN(p.text, []byte(" "), 3)
	if string(words[0]) != Magic || len(words) < 2 {
		return parts{}, malformed("line begins with %.30q, not with %s and a kind", p.text, Magic)
	}
	if p.kind = Kind(words[1]); p.kind.Namespace() == "" {
		return parts{}, malformed("kind %.20q is not known to this version", p.kind)
	}
	return p, nil
}

// decodeWord reads base64url in its one form. The library would skip line ends anywhere in it.
func decodeWord(b []byte) ([]byte, error) {
	if bytes.ContainsAny(b, "\r\n") {
		return nil, errors.New("line end in base64url")
	}
	return base64.RawURLEncoding.Strict().AppendDecode(nil, b)
}

func (p parts) read() (Sealed, error) {
	kind, f, err := parseFields(p.text)
	if err != nil {
		return Sealed{}, err
	}
	s := Sealed{Line: p.line, Digest: Sum(p.text), Kind: kind}
	switch kind {
	case Change, Flip:
		var a Announcement
		a, err = parseAnnouncement(kind, f)
		s.Announcement = &a
	case HeadIs:
		var h Head
		h, err = parseHead(f)
		s.Head = &h
	case Reply:
		var r Report
		r, err = parseReport(f)
		s.Report = &r
	case Ordered:
		var c Command
		c, err = parseCommand(f)
		s.Command = &c
	}
	return s, err
}

// verify finds the SSHSIG signature that the line carries or stands for, and checks that its key made it. Whose key that is remains to be asked.
func (p parts) verify(known Keys) (*sshsig.Signature, error) {
	if len(p.sig) != 64 {
		sig, err := sshsig.Parse(p.sig)
		if err != nil {
			return nil, malformed("sig=: %v", err)
		}
		if sshsig.KeyID(sig.Key) != p.id {
			return nil, malformed("key= is not the id of the key in sig=")
		}
		if err := sig.Verify(p.kind.Namespace(), p.text); err != nil {
			return nil, refused("%s line: %w", p.kind, err)
		}
		return sig, nil
	}
	err := fmt.Errorf("key %s is not known here; add it to the trust file if it should be", p.keyID())
	for _, key := range known.KeyByID(p.id) {
		if key.Type() != ssh.KeyAlgoED25519 {
			continue
		}
		sig := sshsig.Expand(key, p.kind.Namespace(), [64]byte(p.sig))
		if err = sig.Verify(p.kind.Namespace(), p.text); err == nil {
			return sig, nil
		}
	}
	return nil, refused("%s line: %w", p.kind, err)
}
