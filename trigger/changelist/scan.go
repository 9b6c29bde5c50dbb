package changelist

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/trigger"
)

// maxPart is the greatest length in bytes of a line, or of a name that ends with NUL. A path of 4096 bytes of which each is written as \#ooo, and a
// link's target likewise, are half of it.
const maxPart = 64 << 10

// A scanner reads lines, or what ends with NUL, holding one at a time.
type scanner struct {
	r    *bufio.Reader
	what string // it reads: lines, or words that end with NUL
	n    int    // of the one that was read last, from 1
	read int    // bytes
	most int    // of read
}

func newScanner(r io.Reader) *scanner {
	return &scanner{r: bufio.NewReaderSize(r, maxPart), what: "line", most: trigger.MaxList}
}

// next reads up to end, which is left out. The error is io.EOF at the end of the list.
func (s *scanner) next(end byte) (string, error) {
	b, err := s.r.ReadSlice(end)
	if len(b) > 0 {
		s.n++
	}
	s.read += len(b)
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return "", s.fault(fmt.Errorf("%.60q…: is longer than %d bytes", b, maxPart))
	case errors.Is(err, io.EOF) && len(b) > 0:
		return "", s.fault(fmt.Errorf("%.60q: %w", b, errCut))
	case errors.Is(err, io.EOF):
		return "", io.EOF
	case err != nil:
		return "", fmt.Errorf("after %s %d: %w", s.what, s.n, err)
	case s.read > s.most:
		return "", fmt.Errorf("the list is over %d bytes; announce directories instead (d:dir or r:dir)", s.most)
	}
	return string(b[:len(b)-1]), nil
}

func (s *scanner) line() (string, error) { return s.next('\n') }

// word reads up to a NUL.
func (s *scanner) word() (string, error) {
	s.what = "word"
	return s.next(0)
}

// fault says what is wrong with what was read last.
func (s *scanner) fault(err error) error { return fmt.Errorf("%s %d: %w", s.what, s.n, err) }

// changes are what a list says, each path once.
type changes struct {
	order []string
	ops   map[string]event.Op
	leaf  map[string]bool // what is now no directory
}

// add notes what one line says.
func (c *changes) add(op event.Op, path string) {
	if c.ops == nil {
		c.ops, c.leaf = map[string]event.Op{}, map[string]bool{}
	}
	was, again := c.ops[path]
	if !again {
		c.order = append(c.order, path)
	} else if op == event.Meta && was != event.Meta {
		if op = was; was == event.Gone { // and is there again
			op = event.Write
		}
	}
	c.ops[path] = op
}

// file is add for what is no directory.
func (c *changes) file(op event.Op, path string) {
	c.add(op, path)
	c.leaf[path] = true
}

// gone notes what is not there any more, unless the list says that something else has its name now: two may have changed their names.
func (c *changes) gone(path string) {
	if _, known := c.ops[path]; !known {
		c.add(event.Gone, path)
	}
}

// names are the changes in the order of the list. What was removed from a directory that is a file now went with the directory.
func (c *changes) names() []trigger.Name {
	names := make([]trigger.Name, 0, len(c.order))
	for _, path := range c.order {
		if op := c.ops[path]; op != event.Gone || !c.replaced(path) {
			names = append(names, trigger.Name{Op: op, Path: path})
		}
	}
	return names
}

func (c *changes) replaced(path string) bool {
	for i := range len(path) {
		if path[i] == '/' && c.leaf[path[:i]] && c.ops[path[:i]] != event.Gone {
			return true
		}
	}
	return false
}
