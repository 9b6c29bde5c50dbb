package wire

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mirrorbus/mirrorbus/transports"
)

const (
	// MaxLine is the most bytes of a line, its newline included. It is also the size of the readers' buffers.
	MaxLine = 512

	// MaxCommand is the most bytes of a command line: a thousand modules with long names and positions fit.
	MaxCommand = 128 << 10

	// maxHave is the most bytes of a position.
	maxHave = 256

	// MaxBody is the most bytes of a body.
	MaxBody = 8 << 20

	// maxTopics is the most topics of one subscription.
	maxTopics = 4096
)

// ErrFrame is wrapped by each error that says that the other side does not keep to the protocol.
var ErrFrame = errors.New("not the hub protocol")

// Encode makes the frame of m: a header line, the body, a newline.
func Encode(m transports.Message) []byte {
	head := fmt.Sprintf("msg %s %s %d\n", m.ID, m.Topic, len(m.Body))
	return slices.Concat([]byte(head), m.Body, []byte("\n"))
}

// Lines returns a reader for ReadLine.
func Lines(r io.Reader) *bufio.Reader { return bufio.NewReaderSize(r, MaxLine) }

// ReadLine reads a line and cuts its newline off. io.EOF is returned only between two lines.
func ReadLine(r *bufio.Reader) (string, error) {
	line, err := r.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return "", fmt.Errorf("%w: line of more than %d bytes", ErrFrame, MaxLine)
	case errors.Is(err, io.EOF) && len(line) > 0:
		return "", io.ErrUnexpectedEOF
	case err != nil:
		return "", err
	}
	return string(line[:len(line)-1]), nil
}

// ReadLongLine reads a line that may be as long as a command.
func ReadLongLine(r *bufio.Reader) (string, error) {
	var whole []byte
	for {
		part, err := r.ReadSlice('\n')
		whole = append(whole, part...)
		switch {
		case len(whole) > MaxCommand:
			return "", fmt.Errorf("%w: line of more than %d bytes", ErrFrame, MaxCommand)
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(whole) > 0:
			return "", io.ErrUnexpectedEOF
		case err != nil:
			return "", err
		default:
			return string(whole[:len(whole)-1]), nil
		}
	}
}

// ParseHeader reads a header line. The message has all but its body, which is size bytes, at most MaxBody.
func ParseHeader(line string) (m transports.Message, size int, err error) {
	f := strings.Split(line, " ")
	if len(f) != 4 || f[0] != "msg" {
		return m, 0, fmt.Errorf("%w: %.80q is no header line", ErrFrame, line)
	}
	if m.Topic, err = parseTopic(f[2]); err != nil {
		return m, 0, fmt.Errorf("%w: %w", ErrFrame, err)
	}
	size, err = strconv.Atoi(f[3])
	if err != nil || size < 1 || strconv.Itoa(size) != f[3] {
		return m, 0, fmt.Errorf("%w: %.40q is no body size", ErrFrame, f[3])
	}
	if size > MaxBody {
		return m, 0, fmt.Errorf("%w: %w: %d bytes, at most %d", ErrFrame, transports.ErrTooLarge, size, MaxBody)
	}
	m.ID = f[1]
	// The limits are checked with a body that stands for the one to come.
	if err := (transports.Capabilities{MaxBody: 1}).Check(transports.Message{Topic: m.Topic, ID: m.ID, Body: []byte{0}}); err != nil {
		return m, 0, fmt.Errorf("%w: %w", ErrFrame, err)
	}
	return m, size, nil
}

// ReadBody reads a body and the newline after it. Memory grows with what arrives, not with what was declared.
func ReadBody(r *bufio.Reader, size int, dog *Watchdog) ([]byte, error) {
	var frame []byte
	for len(frame) < size+1 {
		n := min(chunk, size+1-len(frame))
		frame = slices.Grow(frame, n)
		err := dog.Watch(func() error {
			_, err := io.ReadFull(r, frame[len(frame):len(frame)+n])
			return err
		})
		if err != nil {
			return nil, unexpected(err)
		}
		frame = frame[:len(frame)+n]
	}
	if frame[size] != '\n' {
		return nil, fmt.Errorf("%w: no newline after the body", ErrFrame)
	}
	return frame[:size:size], nil
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func parseTopic(s string) (transports.Topic, error) {
	kind, module, _ := strings.Cut(s, "/")
	t := transports.Topic{Kind: transports.Kind(kind), Module: module}
	return t, t.Check()
}

// A Want is a topic of a subscription and the subscriber's position on it.
type Want struct {
	Topic transports.Topic
	Have  string // "": from now on
}

// SubscribeCommand writes the command for subs. It asks each for its position.
func SubscribeCommand(subs []transports.Subscription) (string, error) {
	var b strings.Builder
	b.WriteString("subscribe v1")
	for _, s := range subs {
		if err := s.Topic.Check(); err != nil {
			return "", err
		}
		b.WriteString(" " + s.Topic.String())
		if s.Have == nil {
			continue
		}
		if have := s.Have(); len(have) > maxHave {
			return "", fmt.Errorf("position on %s has %d bytes, at most %d", s.Topic, len(have), maxHave)
		} else if have != "" {
			b.WriteString("@" + url.PathEscape(have))
		}
	}
	if b.Len() > MaxCommand {
		return "", fmt.Errorf("subscription to %d topics is too long for one connection", len(subs))
	}
	return b.String(), nil
}

// ParseWants reads what follows "subscribe v1".
func ParseWants(args []string) ([]Want, error) {
	if len(args) > maxTopics {
		return nil, fmt.Errorf("%d topics, at most %d", len(args), maxTopics)
	}
	wants := make([]Want, 0, len(args))
	seen := make(map[transports.Topic]bool, len(args))
	for _, arg := range args {
		topic, escaped, _ := strings.Cut(arg, "@")
		t, err := parseTopic(topic)
		if err != nil {
			return nil, err
		}
		have, err := url.PathUnescape(escaped)
		if err != nil || len(have) > maxHave {
			return nil, fmt.Errorf("position on %s: %.80q is over-long or badly escaped", t, escaped)
		}
		if seen[t] {
			return nil, fmt.Errorf("topic %s is named twice", t)
		}
		seen[t] = true
		wants = append(wants, Want{t, have})
	}
	return wants, nil
}

// ParseReady reads the line that says that a subscription stands, and returns how often the other side writes at least.
func ParseReady(line string) (time.Duration, error) {
	text, ok := strings.CutPrefix(line, "ready ")
	ms, err := strconv.ParseUint(text, 10, 31)
	if !ok || err != nil || ms == 0 {
		return 0, fmt.Errorf("%w: the answer to a subscription is %.80q", ErrFrame, line)
	}
	return time.Duration(ms) * time.Millisecond, nil
}
