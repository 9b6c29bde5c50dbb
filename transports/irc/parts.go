package irc

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/mirrorbus/mirrorbus/transports"
)

// partLine is how a part of a body begins:
//
//	mirrorbus-part1 ID N/M KIND MODULE BASE64
//
// N counts from 1. ID is the digest of the whole, so parts of different messages, or of different senders, never become one.
const partLine = "mirrorbus-part1 "

// Bounds of what waits for its remaining parts.
const (
	maxParts      = 64 // of one message
	maxPartial    = 64 // messages, of all senders
	maxPerSender  = 4  // messages, of one
	partialExpiry = 2 * time.Minute
)

// partID names a message. 96 bits of a digest.
func partID(t transports.Topic, body []byte) string {
	sum := sha256.Sum256(append([]byte(t.String()+"\n"), body...))
	return base64.RawURLEncoding.EncodeToString(sum[:12])
}

// split is what is said for a message: its line as it is, or parts. Each is at most room bytes long.
func split(m transports.Message, room int) ([]string, error) {
	if line, ok := plainLine(m, room); ok {
		return []string{line}, nil
	}
	id := partID(m.Topic, m.Body)
	head := func(n, of int) string {
		return fmt.Sprintf("%s%s %d/%d %s %s ", partLine, id, n, of, m.Topic.Kind, m.Topic.Module)
	}
	size := base64.RawStdEncoding.DecodedLen(room - len(head(maxParts, maxParts)))
	if size <= 0 || len(m.Body) > size*maxParts {
		return nil, fmt.Errorf("%w: %d bytes in lines of %d", transports.ErrTooLarge, len(m.Body), room)
	}
	of := (len(m.Body) + size - 1) / size
	var lines []string
	for n := range of {
		piece := m.Body[n*size : min((n+1)*size, len(m.Body))]
		lines = append(lines, head(n+1, of)+base64.RawStdEncoding.EncodeToString(piece))
	}
	return lines, nil
}

// A part is one line of several.
type part struct {
	id    string
	n, of int
	topic transports.Topic
	data  []byte
}

// errPart is wrapped by what is wrong with a part.
var errPart = errors.New("malformed part of a message")

func parsePart(text string) (p part, err error) {
	words := strings.Split(strings.TrimPrefix(text, partLine), " ")
	if len(words) != 5 || len(words[0]) != 16 {
		return p, errPart
	}
	n, of, _ := strings.Cut(words[1], "/")
	p = part{id: words[0], topic: transports.Topic{Kind: transports.Kind(words[2]), Module: words[3]}}
	if p.n, err = strconv.Atoi(n); err != nil {
		return p, errPart
	}
	if p.of, err = strconv.Atoi(of); err != nil || p.of < 1 || p.of > maxParts || p.n < 1 || p.n > p.of {
		return p, errPart
	}
	if err := p.topic.Check(); err != nil {
		return p, fmt.Errorf("%w: %w", errPart, err)
	}
	if p.data, err = base64.RawStdEncoding.Strict().DecodeString(words[4]); err != nil || len(p.data) == 0 {
		return p, errPart
	}
	return p, nil
}

// A partial is a message of which parts are missing.
type partial struct {
	sender  string
	topic   transports.Topic
	id      string
	pieces  [][]byte
	missing int
	bytes   int
	since   time.Time
}

// parts puts messages together. What does not fit into its bounds is dropped, the oldest first, and counted.
type parts struct {
	waiting []*partial // the oldest first
	dropped func()
}

// take adds a part that a sender has said, and returns the body if it was the last that was missing.
func (ps *parts) take(sender string, p part, now time.Time) (body []byte, err error) {
	ps.expire(now)
	w := ps.find(sender, p, now)
	switch {
	case len(w.pieces) != p.of || w.topic != p.topic:
		ps.drop(w)
		return nil, fmt.Errorf("%w: it contradicts those before it", errPart)
	case w.pieces[p.n-1] != nil:
		if string(w.pieces[p.n-1]) == string(p.data) {
			return nil, nil // said twice
		}
		ps.drop(w)
		return nil, fmt.Errorf("%w: it contradicts one before it", errPart)
	case w.bytes+len(p.data) > maxBody:
		ps.drop(w)
		return nil, fmt.Errorf("%w: the whole is larger than %d bytes", errPart, maxBody)
	}
	w.pieces[p.n-1] = p.data
	w.bytes += len(p.data)
	if w.missing--; w.missing > 0 {
		return nil, nil
	}
	for _, piece := range w.pieces {
		body = append(body, piece...)
	}
	if partID(w.topic, body) != w.id {
		ps.drop(w)
		return nil, fmt.Errorf("%w: together they are not what they were said to be", errPart)
	}
	ps.remove(w)
	return body, nil
}

// find returns what a part belongs to, and makes room for it if it is the first.
func (ps *parts) find(sender string, p part, now time.Time) *partial {
	var own []*partial
	for _, w := range ps.waiting {
		if w.sender == sender && w.id == p.id {
			return w
		}
		if w.sender == sender {
			own = append(own, w)
		}
	}
	if len(own) >= maxPerSender {
		ps.drop(own[0])
	}
	if len(ps.waiting) >= maxPartial {
		ps.drop(ps.waiting[0])
	}
	w := &partial{sender: sender, topic: p.topic, id: p.id, pieces: make([][]byte, p.of), missing: p.of, since: now}
	ps.waiting = append(ps.waiting, w)
	return w
}

func (ps *parts) expire(now time.Time) {
	for len(ps.waiting) > 0 && now.Sub(ps.waiting[0].since) > partialExpiry {
		ps.drop(ps.waiting[0])
	}
}

// drop gives up what will not become whole.
func (ps *parts) drop(w *partial) {
	ps.remove(w)
	ps.dropped()
}

func (ps *parts) remove(w *partial) {
	for i, other := range ps.waiting {
		if other == w {
			ps.waiting = append(ps.waiting[:i:i], ps.waiting[i+1:]...)
			return
		}
	}
}
