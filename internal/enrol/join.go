package enrol

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/fault"
)

// Join is what a mirror must know of a master. All of it is public; what matters is that it comes from the master's administrator.
type Join struct {
	Hub     string   `json:"hub"`     // host:port
	HubKey  string   `json:"hub_key"` // the hub's host key, as an authorized_keys line
	Master  string   `json:"master"`  // principal that announces
	Key     string   `json:"key"`     // its key, as an authorized_keys line
	Modules []Module `json:"modules"`
}

const joinPrefix = "mirrorbus-join1."

// checkSize is how much of a SHA-256 ends a join word, so that a slip of the hand is noticed here and not as a key that nobody has.
const checkSize = 4

// String writes j as one word for a command line.
func (j Join) String() string {
	b, err := json.Marshal(j)
	if err != nil {
		return "" // strings and slices of strings always marshal
	}
	sum := sha256.Sum256(b)
	return joinPrefix + base64.RawURLEncoding.EncodeToString(append(b, sum[:checkSize]...))
}

// ParseJoin reads what String writes.
func ParseJoin(s string) (Join, error) {
	j, err := parseJoin(strings.TrimSpace(s))
	if err != nil {
		return Join{}, fault.With(fmt.Errorf("the join word is damaged: %w", err), fault.Usage,
			"copy it whole from what `mirrorbus init master` or `mirrorbus mirror join` printed")
	}
	return j, nil
}

func parseJoin(s string) (j Join, err error) {
	word, ok := strings.CutPrefix(s, joinPrefix)
	if !ok {
		return j, fmt.Errorf("it does not begin with %q", joinPrefix)
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(word)
	if err != nil || len(b) < checkSize {
		return j, errors.New("it is not base64url")
	}
	b, check := b[:len(b)-checkSize], b[len(b)-checkSize:]
	if sum := sha256.Sum256(b); !bytes.Equal(check, sum[:checkSize]) {
		return j, errors.New("a part is missing or changed")
	}
	if err := json.Unmarshal(b, &j); err != nil {
		return j, err
	}
	return j, j.check()
}

// check refuses what could not stand in a trust file or a configuration as what it claims to be.
func (j Join) check() error {
	_, _, err1 := net.SplitHostPort(j.Hub)
	_, err2 := event.ParsePrincipal(j.Master)
	_, err3 := parseKey(j.HubKey)
	_, err4 := parseKey(j.Key)
	errs := []error{err1, err2, err3, err4}
	for _, m := range j.Modules {
		_, err := event.ParseModule(m.Name)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
