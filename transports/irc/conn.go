package irc

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lrstanley/girc"
)

// maxHeard is the longest line in bytes that a server may send: 512, and 8191 of tags. One that sends more is none.
const maxHeard = 16 << 10

// maxSaid is the longest line in bytes that may be said, without its end.
const maxSaid = 510

// conn is the connection as the library sees it. It keeps the library's ways from doing harm:
//
//   - a write has a deadline, and so has the silence of the server: the library would wait without end for a peer that takes nothing;
//   - of what the library writes, only its registration passes. It would ask about each person that joins, which makes it deaf where hundreds do,
//     and answer what strangers ask, who could have it killed for talking too much;
//   - what does it no good does not reach it: an empty line, which ends it; questions by CTCP, which it would answer; the welcome, which starts a
//     timer in it that outlives the connection; and a line without end.
//
// What the session says goes out here, not through the library's queue, which holds lines back until the next connection or loses them silently.
type conn struct {
	net.Conn
	raw          net.Conn // below TLS
	writeTimeout time.Duration
	silence      time.Duration // after which the connection is dead
	withheld     *atomic.Uint64

	in    *bufio.Reader
	reads sync.Mutex // held while the library reads
	rest  []byte     // of the line that the library reads

	writes sync.Mutex
}

// Read implements net.Conn. It hands out whole lines.
func (c *conn) Read(b []byte) (int, error) {
	c.reads.Lock()
	defer c.reads.Unlock()
	for len(c.rest) == 0 {
		if err := c.Conn.SetReadDeadline(time.Now().Add(c.silence)); err != nil {
			return 0, err
		}
		line, err := c.in.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			return 0, fmt.Errorf("it sends a line of more than %d bytes: it is no IRC server", maxHeard)
		case errors.Is(err, os.ErrDeadlineExceeded):
			return 0, fmt.Errorf("it has said nothing for %v", c.silence)
		case err != nil:
			return 0, err
		}
		if e := girc.ParseEvent(string(line)); e != nil && girc.DecodeCTCP(e) == nil && e.Command != girc.RPL_WELCOME {
			c.rest = line
		}
	}
	n := copy(b, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// SetReadDeadline implements net.Conn: not the library's, which is of minutes.
func (c *conn) SetReadDeadline(time.Time) error { return nil }

// Write implements net.Conn, for the library: it writes a line at a time.
func (c *conn) Write(b []byte) (int, error) {
	for _, may := range []string{"PASS ", "NICK ", "USER "} {
		if bytes.HasPrefix(b, []byte(may)) {
			return c.send(b)
		}
	}
	if !bytes.HasPrefix(b, []byte("PONG ")) { // which the session has said already
		c.withheld.Add(1)
	}
	return len(b), nil
}

// say sends one line.
func (c *conn) say(line string) error {
	if !sayable(line) || len(line) > maxSaid {
		return fmt.Errorf("a line of %d bytes is too long for IRC, or holds a line end", len(line))
	}
	_, err := c.send([]byte(line + "\r\n"))
	return err
}

func (c *conn) send(b []byte) (int, error) {
	c.writes.Lock()
	defer c.writes.Unlock()
	if err := c.Conn.SetWriteDeadline(time.Now().Add(c.writeTimeout)); err != nil {
		return 0, err
	}
	n, err := c.Conn.Write(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("it has taken nothing for %v", c.writeTimeout)
	}
	return n, err
}

// Close implements net.Conn. It closes what is below TLS, which would wait for a peer that takes nothing.
func (c *conn) Close() error { return c.raw.Close() }

// settle waits until nobody reads any more; the connection is closed.
func (c *conn) settle() {
	c.reads.Lock()
	defer c.reads.Unlock()
}
