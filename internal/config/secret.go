package config

import (
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"strings"
)

// maxSecret is the largest file in bytes that a secret is read from.
const maxSecret = 64 << 10

// A Secret is a password or token. In the configuration it is the [Path] of a file, never the secret itself; Decode reads that file, refuses one
// that everybody may read, and cuts one newline off its end. However it is printed, logged or marshalled, it shows as "(secret)".
type Secret struct {
	path  Path
	value *string // a pointer, so that even fmt, let loose on a private field that holds a Secret, shows an address
}

// NewSecret returns a secret that was got in another way than from the configuration.
func NewSecret(value string) Secret { return Secret{value: &value} }

// ReadSecret reads a secret from the file that a command line names, as Decode does for a configuration.
func ReadSecret(path string) (Secret, error) {
	s := Secret{path: Path(path)}
	value, err := readSecret(path)
	if err == nil {
		s.value = &value
	}
	return s, err
}

// Reveal returns the secret itself, "" if there is none.
func (s Secret) Reveal() string {
	if s.value == nil {
		return ""
	}
	return *s.value
}

// IsZero tells whether no secret was given.
func (s Secret) IsZero() bool { return s.value == nil && s.path == "" }

// UnmarshalText takes the path of the secret's file.
func (s *Secret) UnmarshalText(text []byte) error {
	*s = Secret{path: Path(text)}
	return nil
}

func (s *Secret) resolve(folder string) error {
	if s.path == "" {
		return nil
	}
	if err := s.path.resolve(folder); err != nil {
		return err
	}
	value, err := readSecret(string(s.path))
	if err != nil {
		return err
	}
	s.value = &value
	return nil
}

func readSecret(path string) (string, error) {
	f, err := open(path)
	if err != nil {
		// Not with the path, which may be the secret itself written in the wrong place.
		return "", Fault("", "must name a file that holds the secret: "+reason(err), "put the secret in a file of mode 0600 and write that file's path here")
	}
	defer f.Close() //nolint:errcheck // nothing was written
	st, err := f.Stat()
	switch {
	case err != nil:
		return "", Fault("", "cannot be read: "+reason(err), "")
	case !st.Mode().IsRegular():
		return "", Fault("", fmt.Sprintf("names %s, which is not a regular file", path), "put the secret in a file")
	case st.Mode()&(fs.ModePerm&0o007) != 0:
		return "", Fault("", fmt.Sprintf("names %s, which everybody may read or write (mode %04o)", path, st.Mode().Perm()), "chmod o-rwx "+path)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	value := strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
	switch {
	case err != nil:
		return "", Fault("", "cannot be read: "+reason(err), "")
	case len(data) > maxSecret:
		return "", Fault("", fmt.Sprintf("names %s, which is larger than %d bytes: no secret is", path, maxSecret), "")
	case value == "":
		return "", Fault("", fmt.Sprintf("names %s, which is empty", path), "put the secret in that file")
	}
	return value, nil
}

const hidden = "(secret)"

// String hides the secret, as every other way to print it does. One that was not given is "".
func (s Secret) String() string {
	if s.IsZero() {
		return ""
	}
	return hidden
}

// GoString hides the secret from %#v.
func (s Secret) GoString() string { return s.String() }

// Format hides the secret from every other verb.
func (s Secret) Format(f fmt.State, _ rune) {
	io.WriteString(f, s.String()) //nolint:errcheck // fmt's own buffer takes everything
}

// MarshalText hides the secret from TOML and JSON.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue hides the secret from slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }
