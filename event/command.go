package event

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// An Order is what a Command asks for.
type Order string

// The orders.
const (
	SyncNow Order = "sync" // announce the paths as they are now; without any, say the head anew
	FlipNow Order = "flip" // announce that the paths' metadata changed
)

// Bounds of a Command.
const (
	MaxCommandPaths = 100
	MaxCommandTTL   = 24 * time.Hour
)

// A Command asks one master, once, within a short time, to announce something. Its signer is somebody whom that master lets do so.
type Command struct {
	Module Module
	Master string        // the name of the master that it is for; another one does nothing
	At     time.Time     // when it was signed, in whole seconds
	TTL    time.Duration // it is not to be obeyed later than this after At; whole seconds
	Nonce  string        // 16 lower-case hexadecimal digits: no two commands are the same
	Order  Order
	Paths  []string // any bytes but NUL, each with the prefix that publish takes
}

// Text is the part of the line that is signed.
func (c Command) Text() []byte {
	t := newText(Ordered).add("module", c.Module).add("to", c.Master).add("at", c.At).add("exp", int64(c.TTL/time.Second)).
		add("nonce", c.Nonce).add("do", c.Order)
	if len(c.Paths) > 0 {
		words := make([]string, len(c.Paths))
		for i, p := range c.Paths {
			words[i] = strings.ReplaceAll(escape(p), "%2F", "/")
		}
		t.add("paths", strings.Join(words, ","))
	}
	return t.b.Bytes()
}

func parseCommand(f fields) (Command, error) {
	var c Command
	for _, err := range []error{
		f.unknown(),
		field(f, "module", ParseModule, &c.Module),
		field(f, "to", ParsePrincipal, &c.Master),
		field(f, "at", parseTime, &c.At),
		field(f, "exp", parseSeconds, &c.TTL),
		field(f, "nonce", parseNonce, &c.Nonce),
		field(f, "do", parseOrder, &c.Order),
		optional(f, "paths", parsePaths, &c.Paths),
	} {
		if err != nil {
			return Command{}, err
		}
	}
	switch {
	case c.TTL > MaxCommandTTL:
		return Command{}, malformed("a command that holds for %v, at most %v", c.TTL, MaxCommandTTL)
	case c.Order == FlipNow && len(c.Paths) == 0:
		return Command{}, malformed("a flip of no path")
	}
	return c, nil
}

var nonceForm = regexp.MustCompile(`^[0-9a-f]{16}$`)

func parseNonce(s string) (string, error) {
	if !nonceForm.MatchString(s) {
		return "", fmt.Errorf("%.30q: must be 16 lower-case hexadecimal digits", s)
	}
	return s, nil
}

func parseOrder(s string) (Order, error) {
	if o := Order(s); o == SyncNow || o == FlipNow {
		return o, nil
	}
	return "", fmt.Errorf("%.20q is not known; orders are sync and flip", s)
}

func parsePaths(s string) ([]string, error) {
	words := strings.Split(s, ",")
	if len(words) > MaxCommandPaths {
		return nil, fmt.Errorf("%d paths, at most %d", len(words), MaxCommandPaths)
	}
	for i, w := range words {
		path, err := unescape(w)
		if err != nil {
			return nil, err
		}
		if path == "" || strings.Contains(path, "\x00") {
			return nil, errors.New("a path is empty, or holds a NUL byte")
		}
		words[i] = path
	}
	return words, nil
}
