// Package words reads the words of a signed line, for transports that show people what they carry. A transport has no use for their meaning: what is said
// wrong is only read by people, and nothing is decided by it but whether a message says anything new.
package words

import (
	"bytes"
	"strings"
)

// MaxLine is the longest signed line in bytes.
const MaxLine = 4096

// magic is how every line begins.
const magic = "mirrorbus1 "

// Of returns the words of a signed line, by their keys; "" holds its kind. nil if the body does not begin with one.
func Of(body []byte) map[string]string {
	line, _, _ := bytes.Cut(body[:min(len(body), MaxLine)], []byte("\n"))
	fields := strings.Split(string(line), " ")
	if len(fields) < 2 || !IsLine(line) {
		return nil
	}
	said := map[string]string{"": fields[1]}
	for _, f := range fields[2:] {
		if key, value, ok := strings.Cut(f, "="); ok && key != "" {
			said[key] = value
		}
	}
	return said
}

// IsLine tells whether a text has the look of one signed line, without a line end.
func IsLine(text []byte) bool {
	return len(text) <= MaxLine && bytes.HasPrefix(text, []byte(magic)) && !bytes.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' })
}

// HasSet tells whether a body is a signed line with a path set after it.
func HasSet(body []byte) bool {
	end := bytes.IndexByte(body, '\n')
	return end >= 0 && end < len(body)-1 && bytes.HasPrefix(body, []byte(magic))
}
