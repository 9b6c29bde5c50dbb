package signers

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// cutPrincipals takes the first word. Quotes may stand around it or around its end, and then it may hold blanks.
func cutPrincipals(line string) (word, rest string, err error) {
	const blanks = " \t\r\n"
	i := strings.IndexAny(line, blanks+`"`)
	if i < 0 {
		return "", "", errors.New("invalid line: a line is principals, options, key type, key")
	}
	word, rest = line[:i], line[i+1:]
	if line[i] == '"' {
		quoted, after, ok := strings.Cut(rest, `"`)
		if !ok {
			return "", "", errors.New("invalid line: the quote around the principals is not closed")
		}
		word, rest = word+quoted, after
	}
	return word, strings.TrimLeft(rest, blanks), nil
}

// cutOptions takes the options: up to the first blank outside quotes. ok is false if a quote is not closed.
func cutOptions(s string) (opts, rest string, ok bool) {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch {
		case !quoted && (s[i] == ' ' || s[i] == '\t'):
			return s[:i], s[i+1:], true
		case strings.HasPrefix(s[i:], `\"`):
			i++
		case s[i] == '"':
			quoted = !quoted
		}
	}
	return s, "", !quoted
}

// setOptions reads the options as ssh-keygen does: names in any case, empty ones allowed except the last, unknown ones an error.
func (e *Entry) setOptions(s string, loc *time.Location) error {
	for s != "" {
		rest, err := e.setOption(s, loc)
		if err != nil {
			return err
		}
		if rest == "" {
			break
		}
		if rest[0] != ',' {
			return fmt.Errorf("unknown key option at %.40q; known are cert-authority, namespaces=, valid-after=, valid-before=", rest)
		}
		if s = rest[1:]; s == "" {
			return errors.New("they end with a comma")
		}
	}
	if !e.After.IsZero() && !e.Before.IsZero() && !e.After.Before(e.Before) {
		return errors.New("valid-before is not after valid-after")
	}
	return nil
}

// setOption reads at most one option from the start of s and returns what follows it.
func (e *Entry) setOption(s string, loc *time.Location) (rest string, err error) {
	if rest, ok := cutFold(s, "cert-authority"); ok {
		e.Authority = true
		return rest, nil
	}
	if rest, ok := cutFold(s, "namespaces="); ok {
		if e.Namespaces != "" {
			return "", errors.New("namespaces= is there twice")
		}
		if e.Namespaces, rest, err = dequote(rest); err != nil {
			return "", fmt.Errorf("namespaces=: %w", err)
		}
		if e.Namespaces == "" {
			return "", errors.New("namespaces= is empty: the key could sign nothing")
		}
		return rest, nil
	}
	if rest, ok := cutFold(s, "valid-after="); ok {
		return setTime("valid-after", &e.After, rest, loc)
	}
	if rest, ok := cutFold(s, "valid-before="); ok {
		return setTime("valid-before", &e.Before, rest, loc)
	}
	return s, nil
}

func setTime(name string, t *time.Time, s string, loc *time.Location) (rest string, err error) {
	if !t.IsZero() {
		return "", fmt.Errorf("%s= is there twice", name)
	}
	value, rest, err := dequote(s)
	if err == nil {
		*t, err = parseTime(value, loc)
	}
	if err != nil {
		return "", fmt.Errorf("%s=: %w", name, err)
	}
	return rest, nil
}

func cutFold(s, prefix string) (string, bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return s, false
	}
	return s[len(prefix):], true
}

// dequote takes a quoted value from the start of s; a quote inside it is written \".
func dequote(s string) (value, rest string, err error) {
	if !strings.HasPrefix(s, `"`) {
		return "", "", errors.New("the value must be in double quotes")
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '"':
			return b.String(), s[i+1:], nil
		case strings.HasPrefix(s[i:], `\"`):
			i++
		}
		b.WriteByte(s[i])
	}
	return "", "", errors.New("the quote is not closed")
}

// startsWithKeyType tells a line with options from one without.
func startsWithKeyType(s string) bool {
	name, _, _ := cutBlank(s)
	return keyType(name) != ""
}

// parseKey reads a key type, a key in base64 and whatever follows it, the comment.
func parseKey(s string) (ssh.PublicKey, error) {
	name, rest, ok := cutBlank(s)
	if !ok || keyType(name) == "" {
		return nil, fmt.Errorf("no key where one is due: %.40q is not a key type", name)
	}
	b64, _, _ := cutBlank(strings.TrimLeft(rest, " \t"))
	blob, err := base64.StdEncoding.Strict().DecodeString(b64)
	if err != nil {
		return nil, fmt.Errorf("%s key is not base64", name)
	}
	key, err := ssh.ParsePublicKey(blob)
	if err != nil {
		return nil, fmt.Errorf("%s key: %w", name, err)
	}
	if key.Type() != keyType(name) {
		return nil, fmt.Errorf("the line says %s, the key is a %s key", name, key.Type())
	}
	return key, nil
}

func cutBlank(s string) (before, after string, found bool) {
	i := strings.IndexAny(s, " \t")
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}

// keyType is the type of the keys that a line may hold under name, "" for none. The names of the RSA signature algorithms also stand for RSA.
func keyType(name string) string {
	//lint:file-ignore SA1019 a DSA line must be recognised to be refused with the right words
	switch name {
	case ssh.KeyAlgoED25519, ssh.KeyAlgoSKED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoSKECDSA256,
		ssh.KeyAlgoRSA, ssh.InsecureKeyAlgoDSA,
		ssh.CertAlgoED25519v01, ssh.CertAlgoSKED25519v01, ssh.CertAlgoECDSA256v01, ssh.CertAlgoECDSA384v01, ssh.CertAlgoECDSA521v01,
		ssh.CertAlgoSKECDSA256v01, ssh.CertAlgoRSAv01, ssh.InsecureCertAlgoDSAv01:
		return name
	case ssh.KeyAlgoRSASHA256, ssh.KeyAlgoRSASHA512:
		return ssh.KeyAlgoRSA
	case ssh.CertAlgoRSASHA256v01, ssh.CertAlgoRSASHA512v01:
		return ssh.CertAlgoRSAv01
	}
	return ""
}
