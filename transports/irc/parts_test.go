package irc

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/transports"
)

var debian = transports.Topic{Kind: transports.Announce, Module: "debian"}

func message(body string) transports.Message {
	return transports.Message{Topic: debian, ID: "x", Body: []byte(body)}
}

// Only what is made from its line again byte by byte is said as a line.
func TestPlainLine(t *testing.T) {
	const line = "mirrorbus1 change module=debian serial=1"
	for body, plain := range map[string]bool{
		line: true, line + "\n": true, "mirrorbus1 flip module=debian\n": true, "mirrorbus1 head x=1 module=debian !y=2": true,
		line + "\n\n": false, line + " \n": false, line + " ": false, " " + line: false, line + "\r\n": false, line + "\nset": false, line + "\x01\n": false, line + "é\n": false,
		"mirrorbus1 report module=debian\n": false, "mirrorbus1 change module=fedora\n": false, "mirrorbus1 change\n": false, "mirrorbus1\n": false, "hello\n": false,
		"mirrorbus1 command module=debian": false, line + strings.Repeat("x", 400) + "\n": false,
	} {
		m := message(body)
		lines, err := split(m, 372)
		if err != nil {
			t.Fatal(err)
		}
		if got := len(lines) == 1 && strings.TrimPrefix(lines[0], " ") == strings.TrimSuffix(body, "\n"); got != plain {
			t.Errorf("%q: said as it is: %v, want %v", body, got, plain)
		}
	}
}

// A plain line comes out as it went in, with its line feed or without; a path set after it is not said.
func TestSaidLine(t *testing.T) {
	for _, body := range []string{"mirrorbus1 change module=debian serial=1", "mirrorbus1 change module=debian serial=1\n"} {
		text, ok := plainLine(message(body), 372)
		topic, back, ok2 := saidLine(text)
		if !ok || !ok2 || string(back) != body || topic != debian {
			t.Errorf("%q was said as %q and heard as %q", body, text, back)
		}
		if goesByReference([]byte(body)) {
			t.Errorf("%q has no path set", body)
		}
	}
	if !goesByReference([]byte("mirrorbus1 change module=debian\nset")) || goesByReference([]byte("two\nlines")) || goesByReference(nil) {
		t.Error("a path set is not known from other bytes")
	}
}

// Whatever is said fits, and becomes the body again in any order, said once or twice.
func TestSplitAndTake(t *testing.T) {
	for _, size := range []int{1, 200, 372, 1000, maxBody} {
		m := message(strings.Repeat("\x00\xff", size/2+1)[:size])
		lines, err := split(m, room("#a-channel-with-a-name-of-forty-characters"))
		if err != nil {
			t.Fatal(err)
		}
		ps := parts{dropped: func() { t.Error("a message was dropped") }}
		var got []byte
		for i := range lines {
			line := lines[len(lines)-1-i]
			if len(line) > room("#a-channel-with-a-name-of-forty-characters") {
				t.Errorf("a line of %d bytes", len(line))
			}
			p, err := parsePart(line)
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				body, err := ps.take("x", p, time.Now())
				if err != nil {
					t.Fatal(err)
				}
				if got = append(got, body...); body != nil {
					break
				}
			}
		}
		if !bytes.Equal(got, m.Body) || len(ps.waiting) != 0 {
			t.Errorf("%d bytes became %d, %d messages wait", size, len(got), len(ps.waiting))
		}
	}
	if _, err := split(message(strings.Repeat("x", 20000)), 372); err == nil {
		t.Error("20000 bytes were split")
	}
}

// What waits is bounded in number, for each sender and for all, in bytes, and in time.
func TestPartsAreBounded(t *testing.T) {
	var dropped int
	ps := parts{dropped: func() { dropped++ }}
	now := time.Now()
	take := func(sender string, n int, data string) error {
		_, err := ps.take(sender, part{id: fmt.Sprintf("%016d", n), n: 1, of: 2, topic: debian, data: []byte(data)}, now)
		return err
	}
	for n := range 10 {
		if err := take("one", n, "x"); err != nil {
			t.Fatal(err)
		}
	}
	if len(ps.waiting) != maxPerSender || dropped != 10-maxPerSender {
		t.Errorf("%d messages of one sender wait, %d were dropped", len(ps.waiting), dropped)
	}
	for n := range 200 {
		if err := take(fmt.Sprint(n), n, "x"); err != nil {
			t.Fatal(err)
		}
	}
	if len(ps.waiting) != maxPartial {
		t.Errorf("%d messages wait", len(ps.waiting))
	}
	if take("large", 1, strings.Repeat("x", maxBody+1)) == nil {
		t.Error("took more than a message may have")
	}
	now = now.Add(partialExpiry + time.Second)
	if err := take("later", 1, "x"); err != nil || len(ps.waiting) != 1 {
		t.Errorf("%d messages wait after a while; %v", len(ps.waiting), err)
	}
}

// Parts that together are not what they were said to be are no message.
func TestPartsMustBeTheWhole(t *testing.T) {
	lines, err := split(message(strings.Repeat("x", 400)), 372)
	if err != nil || len(lines) != 2 {
		t.Fatal(len(lines), err)
	}
	dropped := 0
	ps := parts{dropped: func() { dropped++ }}
	for i, line := range lines {
		p, err := parsePart(line)
		if err != nil {
			t.Fatal(err)
		}
		p.data[0] ^= 1
		if body, err := ps.take("x", p, time.Now()); body != nil || (err == nil) != (i == 0) {
			t.Errorf("part %d: took %q, %v", i, body, err)
		}
	}
	if dropped != 1 || len(ps.waiting) != 0 {
		t.Errorf("%d were dropped, %d wait", dropped, len(ps.waiting))
	}
}

func FuzzParsePart(f *testing.F) {
	f.Add(partLine + "0123456789abcdef 1/2 announce debian eHg")
	f.Add(partLine)
	f.Fuzz(func(t *testing.T, text string) {
		p, err := parsePart(text)
		if err == nil && (p.n < 1 || p.n > p.of || p.of > maxParts || len(p.data) == 0 || p.topic.Check() != nil) {
			t.Errorf("%q became %+v", text, p)
		}
		if topic, ok := lineTopic(text); ok && topic.Check() != nil {
			t.Errorf("%q is on %v", text, topic)
		}
	})
}

// G9: a credential is said in pieces of 400 without a byte lost; one whose last piece is full is followed by an empty one.
func TestG9LongCredentials(t *testing.T) {
	for size := range 1000 {
		chunks := saslChunks(bytes.Repeat([]byte{7}, size))
		last := chunks[len(chunks)-1]
		got, err := base64.StdEncoding.DecodeString(strings.TrimSuffix(strings.Join(chunks, ""), "+"))
		if err != nil || len(got) != size || len(last) >= 400 {
			t.Fatalf("%d bytes became %d in %d pieces, the last of %d; %v", size, len(got), len(chunks), len(last), err)
		}
	}
}

// pipe is a connection to a peer in this process.
func pipe(t *testing.T) (c *conn, other net.Conn) {
	a, b := net.Pipe()
	t.Cleanup(func() {
		a.Close() //nolint:errcheck // it has no more to say
		b.Close() //nolint:errcheck // likewise
	})
	return &conn{Conn: a, raw: a, writeTimeout: 50 * time.Millisecond, silence: time.Minute, withheld: new(atomic.Uint64), in: bufio.NewReaderSize(a, maxHeard)}, b
}

// What ends the library, or what it would answer, does not reach it.
func TestConnKeepsLinesFromTheLibrary(t *testing.T) {
	c, other := pipe(t)
	go func() {
		fmt.Fprint(other, "\r\n\n:\r\n:x 001 me :hello\r\n:a!b@c PRIVMSG me :\x01VERSION\x01\r\n:x 002 me :there\r\nPING :y\r\n") //nolint:errcheck // reading notices
	}()
	want := ":x 002 me :there\r\nPING :y\r\n"
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Errorf("read %q, %v", got, err)
	}
}

// What the library says beside its registration goes nowhere; and a peer that takes nothing does not hold anybody (G2).
func TestConnWrites(t *testing.T) {
	c, other := pipe(t)
	for _, line := range []string{"WHO x %tacuhnr,1\r\n", "NOTICE x :\x01ERRMSG\x01\r\n", "MODE #x\r\n", "PONG x\r\n"} {
		if n, err := c.Write([]byte(line)); n != len(line) || err != nil {
			t.Errorf("%q: wrote %d, %v", line, n, err)
		}
	}
	if n := c.withheld.Load(); n != 3 {
		t.Errorf("%d lines were withheld", n)
	}
	for _, line := range []string{"a\r\nQUIT", "a\nb", "a\x00", strings.Repeat("x", 511)} {
		if c.say(line) == nil {
			t.Errorf("said %.20q", line)
		}
	}
	if err := c.say("PING :x"); err == nil || !strings.Contains(err.Error(), "it has taken nothing for 50ms") {
		t.Errorf("say returned %v", err)
	}
	other.Close() //nolint:errcheck // nothing is read any more
}
