// Package envelope is what a message body and a journal file hold: a signed line, a line feed, and optionally the path set that the line names,
// as one Zstandard frame of its canonical form.
//
// Nothing here is trusted: the line is still to be verified by an event.Gate, and a path set counts only once its digest is the one in the
// verified line. All memory is bounded before it is taken, whatever a frame declares.
package envelope

import (
	"bytes"
	"fmt"

	"github.com/mirrorbus/mirrorbus/event"
)

// MaxSet is the largest compressed path set in bytes. event.MaxSetBytes of real path names come to about a tenth of it.
const MaxSet = 128 << 20

// MaxBody is the largest envelope in bytes.
const MaxBody = event.MaxLine + 1 + MaxSet

// Encode puts a line and a compressed path set (nil for none) into one body.
func Encode(line, set []byte) []byte {
	body := make([]byte, 0, len(line)+1+len(set))
	body = append(body, line...)
	body = append(body, '\n')
	return append(body, set...)
}

// Decode takes a body apart. Both results are parts of body; compressedSet is nil if the line travelled alone.
// The error Is event.ErrFormat.
func Decode(body []byte) (line, compressedSet []byte, err error) {
	head := body[:min(len(body), event.MaxLine+1)]
	end := bytes.IndexByte(head, '\n')
	switch {
	case end < 0 && len(body) > event.MaxLine:
		return nil, nil, fmt.Errorf("%w: envelope: no line feed in the first %d bytes", event.ErrFormat, event.MaxLine+1)
	case end < 0:
		line = body
	default:
		line, compressedSet = body[:end:end], body[end+1:]
	}
	switch {
	case len(line) == 0:
		return nil, nil, fmt.Errorf("%w: envelope: no line in it", event.ErrFormat)
	case len(compressedSet) > MaxSet:
		return nil, nil, fmt.Errorf("%w: envelope: path set of %d bytes, at most %d", event.ErrFormat, len(compressedSet), MaxSet)
	case len(compressedSet) == 0:
		compressedSet = nil
	}
	return line, compressedSet, nil
}

// PathSet reads a compressed path set and makes sure that it is the one that a verified line names.
func PathSet(compressed []byte, want event.Digest) (event.PathSet, error) {
	canonical, err := Decompress(compressed, event.MaxSetBytes)
	if err != nil {
		return nil, fmt.Errorf("path set %s: %w", want, err)
	}
	if got := event.Sum(canonical); got != want {
		return nil, fmt.Errorf("%w: path set: its digest is %s, the line names %s", event.ErrFormat, got, want)
	}
	return event.DecodePathSet(canonical)
}
