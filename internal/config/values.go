package config

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

// A Duration is a span of time as in Go, with days: "90s", "1h30m", "7d", "1d12h". It is never negative. Being a struct, it cannot be filled from
// a bare number whose unit nobody knows.
type Duration struct{ time.Duration }

const day = 24 * time.Hour

// UnmarshalText reads a duration.
func (d *Duration) UnmarshalText(text []byte) error {
	s, days := string(text), time.Duration(0)
	if before, after, found := strings.Cut(s, "d"); found {
		n, err := strconv.ParseUint(before, 10, 32)
		if err != nil {
			return badDuration(string(text))
		}
		if n > uint64(math.MaxInt64/day) {
			return fmt.Errorf("%.40q is out of range", text)
		}
		days, s = time.Duration(n)*day, after
	}
	rest := time.Duration(0)
	if s != "" || days == 0 && !strings.HasSuffix(string(text), "d") {
		var err error
		if rest, err = time.ParseDuration(s); err != nil {
			return badDuration(string(text))
		}
	}
	if rest < 0 || days > math.MaxInt64-rest {
		return fmt.Errorf("%.40q is out of range", text)
	}
	d.Duration = days + rest
	return nil
}

func badDuration(s string) error {
	return fmt.Errorf(`%.40q is no duration: write a number and its unit, as in "30s", "5m", "1h30m" or "7d"`, s)
}

// MarshalText writes d as UnmarshalText reads it.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// String writes d without units that are zero.
func (d Duration) String() string {
	if d.Duration == 0 {
		return "0s"
	}
	s, rest := "", d.Duration
	if rest >= day {
		s, rest = fmt.Sprintf("%dd", rest/day), rest%day
	}
	if rest == 0 {
		return s
	}
	text := rest.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return s + text
}

// A Size is a number of bytes: a bare integer, or a string with a unit. "10k", "10M" and "10G" count in thousands, as "10MB" does, and "10KiB",
// "10MiB", "10GiB" in 1024s.
type Size uint64

// UnmarshalText reads a size.
func (s *Size) UnmarshalText(text []byte) error {
	n, err := parseBytes(string(text))
	if err != nil {
		return fmt.Errorf(`%.40q is no size: write a number and its unit, as in "500k", "10M" or "1GiB"`, text)
	}
	*s = Size(n)
	return nil
}

// MarshalText writes s exactly, in the largest unit that does.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

func (s Size) String() string { return exactBytes(uint64(s)) }

// A Rate is a number of bytes per second, written as a [Size] with or without "/s". 0 means no limit.
type Rate uint64

// UnmarshalText reads a rate.
func (r *Rate) UnmarshalText(text []byte) error {
	n, err := parseBytes(strings.TrimSuffix(string(text), "/s"))
	if err != nil {
		return fmt.Errorf(`%.40q is no rate: write bytes per second, as in "500k", "10M" or "10MiB/s"`, text)
	}
	*r = Rate(n)
	return nil
}

// MarshalText writes r as UnmarshalText reads it.
func (r Rate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

func (r Rate) String() string { return exactBytes(uint64(r)) + "/s" }

var bytesText = regexp.MustCompile(`^[0-9]+(\.[0-9]+)? ?([kKMGTPE](i?B|i)?|B)?$`)

// parseBytes takes less than the library does: no "1,5", which is 15 to it.
func parseBytes(s string) (uint64, error) {
	if !bytesText.MatchString(s) {
		return 0, errors.New("not a number of bytes")
	}
	return humanize.ParseBytes(s)
}

func exactBytes(n uint64) string {
	units := []struct {
		size uint64
		name string
	}{{1 << 40, "TiB"}, {1e12, "TB"}, {1 << 30, "GiB"}, {1e9, "GB"}, {1 << 20, "MiB"}, {1e6, "MB"}, {1 << 10, "KiB"}, {1e3, "kB"}}
	for _, u := range units {
		if n >= u.size && n%u.size == 0 {
			return strconv.FormatUint(n/u.size, 10) + u.name
		}
	}
	return strconv.FormatUint(n, 10) + "B"
}

// A Path is a file or folder. A relative one counts from the folder of the configuration file and is made whole by Decode.
// "${CREDENTIALS_DIRECTORY}", the folder of systemd's LoadCredential, is the one variable that is expanded; "~" is refused, for a daemon's home
// is not the operator's. "" stays "".
type Path string

const credentials = "${CREDENTIALS_DIRECTORY}"

func (p *Path) resolve(folder string) error {
	s := string(*p)
	if s == "" {
		return nil
	}
	if rest, found := strings.CutPrefix(s, credentials); found {
		base := os.Getenv("CREDENTIALS_DIRECTORY")
		if base == "" {
			return Fault("", "uses "+credentials+", which is not set", "it exists only in a systemd service with LoadCredential=")
		}
		s = base + rest
	}
	switch {
	case s[0] == '~':
		return Fault("", "begins with ~, which is not expanded", "write the whole path")
	case strings.Contains(s, "${"):
		return Fault("", "uses a variable that is not expanded", "only "+credentials+" at the start is; write the whole path")
	case strings.IndexByte(s, 0) >= 0:
		return Fault("", "holds a NUL byte", "")
	case !filepath.IsAbs(s):
		s = filepath.Join(folder, s)
	}
	*p = Path(filepath.Clean(s))
	return nil
}
