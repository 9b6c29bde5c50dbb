// Package event holds what travels: announcements, flips, heads and reports as signed lines of text, and path sets as canonical bytes.
//
// FORMAT.md in this folder is the normative description, written for other implementations; testdata holds vectors for them. Three rules run
// through the package: a line is verified before it is parsed, signed bytes are never rebuilt from parsed values, and every decoder has a
// byte cap that it applies before it allocates.
package event

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"regexp"
	"strconv"
)

// A Module names a unit of mirroring, as a section of rsyncd.conf does: 1 to 60 of [a-z0-9._-], the first a letter or a digit.
type Module string

var moduleName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,59}$`)

// ParseModule checks a module name.
func ParseModule(s string) (Module, error) {
	if !moduleName.MatchString(s) {
		return "", fmt.Errorf("module name %.70q: must be 1 to 60 of [a-z0-9._-] and begin with a letter or digit", s)
	}
	return Module(s), nil
}

// An Epoch tells one history of a module from another. It is random, made with the journal; a new one means: start from the manifest.
type Epoch string // 8 lower-case hexadecimal digits

var epochForm = regexp.MustCompile(`^[0-9a-f]{8}$`)

// ParseEpoch checks an epoch.
func ParseEpoch(s string) (Epoch, error) {
	if !epochForm.MatchString(s) {
		return "", fmt.Errorf("epoch %.20q: must be 8 lower-case hexadecimal digits", s)
	}
	return Epoch(s), nil
}

// A Serial counts the announcements of one module in one epoch: the first is 1, each next one greater. 0 means none yet.
type Serial uint64

// MaxSerial keeps a serial at 15 digits, so that a line fits an IRC message; at a thousand announcements a second it lasts 31,000 years.
const MaxSerial Serial = 999_999_999_999_999

// ParseSerial reads a serial in decimal, without sign or leading zeros.
func ParseSerial(s string) (Serial, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || Serial(n) > MaxSerial || strconv.FormatUint(n, 10) != s {
		return 0, fmt.Errorf("serial %.30q: must be a decimal number up to %d", s, MaxSerial)
	}
	return Serial(n), nil
}

// A Digest is a SHA-256. The zero Digest stands for "none" and is written "-".
type Digest [sha256.Size]byte

// Sum is the digest of b.
func Sum(b []byte) Digest { return sha256.Sum256(b) }

// IsZero tells whether d stands for "none".
func (d Digest) IsZero() bool { return d == Digest{} }

// String writes d as 43 characters of unpadded base64url, or "-".
func (d Digest) String() string {
	if d.IsZero() {
		return "-"
	}
	return base64.RawURLEncoding.EncodeToString(d[:])
}

// ParseDigest reads what String writes.
func ParseDigest(s string) (Digest, error) {
	var d Digest
	if s == "-" {
		return d, nil
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(b) != len(d) || len(s) != base64.RawURLEncoding.EncodedLen(len(d)) { // the library skips line ends
		return d, fmt.Errorf("digest %.50q: must be 43 characters of base64url", s)
	}
	return Digest(b), nil
}

// MarshalText and UnmarshalText let a Digest travel in JSON as String writes it.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (d *Digest) UnmarshalText(b []byte) (err error) {
	*d, err = ParseDigest(string(b))
	return err
}

// A Kind is what a line says.
type Kind string

// The kinds of lines.
const (
	Change  Kind = "change"  // an announcement: these paths of the module changed
	Flip    Kind = "flip"    // an announcement: only metadata changed, of content already distributed
	HeadIs  Kind = "head"    // the module is at serial N
	Reply   Kind = "report"  // a mirror is at serial N
	Ordered Kind = "command" // somebody asks a master to announce something
)

// Namespace is the SSHSIG namespace under which a line of this kind is signed, so that a key can be limited to some kinds.
func (k Kind) Namespace() string {
	switch k {
	case Change:
		return "announce@mirrorbus"
	case Flip:
		return "flip@mirrorbus"
	case HeadIs:
		return "head@mirrorbus"
	case Reply:
		return "report@mirrorbus"
	case Ordered:
		return "command@mirrorbus"
	}
	return ""
}

// Kinds lists the known kinds.
func Kinds() []Kind { return []Kind{Change, Flip, HeadIs, Reply, Ordered} }
