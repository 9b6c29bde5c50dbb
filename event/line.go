package event

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Magic begins every line and carries the version of the format.
const Magic = "mirrorbus1"

// Caps in bytes, without a newline. A compact announcement or head stays within MaxCompact, which is what fits one IRC message under the
// longest prefix; a report, and a line signed by another kind of key than ed25519, may be longer.
const (
	MaxLine    = 4096
	MaxCompact = 372
)

// ErrFormat is wrapped by every error about the form of a line or a path set.
var ErrFormat = errors.New("malformed")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrFormat, fmt.Sprintf(format, args...))
}

// fields are the key=value words of a line, in order.
type fields struct {
	keys   []string
	values map[string]string
}

// parseFields splits "mirrorbus1 kind k=v k=v" (the part of a line that is signed).
func parseFields(text []byte) (Kind, fields, error) {
	f := fields{values: map[string]string{}}
	for _, c := range text {
		if c < 0x20 || c > 0x7e {
			return "", f, malformed("byte 0x%02x in a line: only printable ASCII may stand there", c)
		}
	}
	words := strings.Split(string(text), " ")
	if words[0] != Magic {
		return "", f, malformed("line begins with %.20q, not with %s", words[0], Magic)
	}
	if len(words) < 2 {
		return "", f, malformed("line has no kind")
	}
	for _, w := range words[2:] {
		key, value, ok := strings.Cut(w, "=")
		if !ok || key == "" || value == "" {
			return "", f, malformed("word %.40q: must be key=value", w)
		}
		if key == "key" || key == "sig" {
			return "", f, malformed("key %q before the end of the line: a line is signed once", key)
		}
		if _, twice := f.values[key]; twice {
			return "", f, malformed("key %.40q stands twice", key)
		}
		f.keys = append(f.keys, key)
		f.values[key] = value
	}
	return Kind(words[1]), f, nil
}

// unknown refuses keys that begin with "!" and that this version does not know: they say that ignoring them would be wrong.
func (f fields) unknown(known ...string) error {
	for _, key := range f.keys {
		if strings.HasPrefix(key, "!") && !slices.Contains(known, key) {
			return malformed("key %.40q is critical and not known to this version; upgrade mirrorbus", key)
		}
	}
	return nil
}

// field reads one value; a missing key is an error.
func field[T any](f fields, key string, parse func(string) (T, error), into *T) error {
	if _, ok := f.values[key]; !ok {
		return malformed("key %q is missing", key)
	}
	return optional(f, key, parse, into)
}

// optional reads one value if the key is there.
func optional[T any](f fields, key string, parse func(string) (T, error), into *T) error {
	s, ok := f.values[key]
	if !ok {
		return nil
	}
	v, err := parse(s)
	if err != nil {
		return malformed("key %q: %v", key, err)
	}
	*into = v
	return nil
}

const timeForm = "2006-01-02T15:04:05Z"

func parseTime(s string) (time.Time, error) {
	t, err := time.Parse(timeForm, s)
	if err != nil || t.Format(timeForm) != s {
		return time.Time{}, fmt.Errorf("time %.40q: must look like %s", s, timeForm)
	}
	return t, nil
}

// text builds the signed part of a line.
type text struct{ b bytes.Buffer }

func newText(k Kind) *text {
	t := &text{}
	t.b.WriteString(Magic + " " + string(k))
	return t
}

func (t *text) add(key string, value any) *text {
	if at, ok := value.(time.Time); ok {
		value = at.UTC().Format(timeForm)
	}
	fmt.Fprintf(&t.b, " %s=%v", key, value)
	return t
}
