package testenv_test

import (
	"io"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
)

// echo is a server that sends back what it gets, until the test ends.
func echo(t *testing.T) (port int) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() }) //nolint:errcheck // it was only listening
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				io.Copy(c, c) //nolint:errcheck // it ends with the connection
				c.Close()     //nolint:errcheck // as above
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr).Port
}

func TestProxyCounts(t *testing.T) {
	p := testenv.StartProxy(t, echo(t))
	c, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(p.Port))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // nothing was written that matters
	before := p.Traffic()
	for range 3 {
		if _, err := c.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := p.Traffic().Minus(before), (testenv.Traffic{Up: 15, Down: 15, Turns: 2}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestProxyCutsHangsAndDrops(t *testing.T) {
	p := testenv.StartProxy(t, echo(t))
	dial := func() net.Conn {
		c, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(p.Port))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() }) //nolint:errcheck // it may have been cut
		return c
	}
	// said sends a word and returns what comes back in time.
	said := func(c net.Conn, word string, patience time.Duration) string {
		t.Helper()
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, word); err != nil {
			return ""
		}
		buf := make([]byte, len(word))
		n, _ := io.ReadFull(c, buf) //nolint:errcheck // how much came tells
		return string(buf[:n])
	}
	c := dial()
	if got := said(c, "hello", 10*time.Second); got != "hello" {
		t.Fatalf("passed on %q", got)
	}
	p.Hang(true)
	if got := said(c, "again", 50*time.Millisecond); got != "" {
		t.Errorf("while it hangs %q came", got)
	}
	p.Hang(false)
	if got := said(c, "xxxxx", 10*time.Second); got != "again" {
		t.Errorf("when it goes on %q came, want what was held up", got)
	}
	p.CutAfter(3)
	if got := said(dial(), "hello", 10*time.Second); got != "hel" {
		t.Errorf("cut after 3 bytes it was %q", got)
	}
	p.CutAfter(0)
	c = dial()
	p.Delay(20 * time.Millisecond)
	begun := time.Now()
	if got := said(c, "hello", 10*time.Second); got != "hello" || time.Since(begun) < 40*time.Millisecond {
		t.Errorf("%q after %v, want it held up twice", got, time.Since(begun))
	}
	p.Drop()
	if got := said(c, "hello", 10*time.Second); got != "" {
		t.Errorf("after it was dropped %q came", got)
	}
	if n := p.Accepted(); n != 3 {
		t.Errorf("%d connections were counted, want 3", n)
	}
}
