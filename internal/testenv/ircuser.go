package testenv

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// ircBound is when a test gives up to wait for an IRC server.
const ircBound = 20 * time.Second

// An IRCUser is a bare connection to an IRC server: the other people on the network.
type IRCUser struct {
	Nick string

	t    testing.TB
	conn net.Conn

	mu    sync.Mutex
	lines []string
	ended bool
}

// DialIRC connects and registers; the user and real name are the nick.
func DialIRC(t testing.TB, port int, nick, password string) *IRCUser {
	t.Helper()
	u := connectIRC(t, port, nick, password)
	u.Await(" 001 " + nick)
	return u
}

// DialIRCs connects many, who come at the same time. Their nicks begin with prefix.
func DialIRCs(t testing.TB, port int, prefix string, n int) (all []*IRCUser) {
	t.Helper()
	for i := range n {
		all = append(all, connectIRC(t, port, fmt.Sprint(prefix, i), ""))
	}
	for _, u := range all {
		u.Await(" 001 " + u.Nick)
	}
	return all
}

func connectIRC(t testing.TB, port int, nick, password string) *IRCUser {
	t.Helper()
	conn, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", port))
	if err != nil {
		t.Fatal(err)
	}
	return newIRCUser(t, conn, nick, password)
}

func newIRCUser(t testing.TB, conn net.Conn, nick, password string) *IRCUser {
	t.Helper()
	u := &IRCUser{Nick: nick, t: t, conn: conn}
	done := make(chan struct{})
	go func() {
		defer close(done)
		u.read()
	}()
	t.Cleanup(func() {
		conn.Close() //nolint:errcheck // the test is over
		<-done
	})
	if password != "" {
		u.Send("PASS " + password)
	}
	u.Send("NICK "+nick, "USER "+nick+" 0 * :"+nick)
	return u
}

func (u *IRCUser) read() {
	in := bufio.NewReader(u.conn)
	for {
		line, err := in.ReadString('\n')
		line = strings.TrimRight(line, "\r\n")
		if token, ok := strings.CutPrefix(line, "PING "); ok {
			fmt.Fprintf(u.conn, "PONG %s\r\n", token) //nolint:errcheck // reading notices
		}
		u.mu.Lock()
		if line != "" {
			u.lines = append(u.lines, line)
		}
		u.ended = err != nil
		u.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// Send sends lines.
func (u *IRCUser) Send(lines ...string) {
	u.t.Helper()
	for _, line := range lines {
		if _, err := fmt.Fprintf(u.conn, "%s\r\n", line); err != nil {
			u.t.Fatalf("%s: send %.80q: %v", u.Nick, line, err)
		}
	}
}

// Lines are all that the server has sent so far.
func (u *IRCUser) Lines() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]string(nil), u.lines...)
}

// Count is how many lines hold text.
func (u *IRCUser) Count(text string) int {
	n := 0
	for _, line := range u.Lines() {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

// Await waits for a line that holds text, and returns the first.
func (u *IRCUser) Await(text string) string {
	u.t.Helper()
	return u.AwaitCount(1, text)
}

// AwaitCount waits until n lines hold text, and returns the nth.
func (u *IRCUser) AwaitCount(n int, text string) (found string) {
	u.t.Helper()
	WaitFor(u.t, ircBound, func() error {
		have := 0
		all := u.Lines()
		for _, line := range all {
			if strings.Contains(line, text) {
				if have++; have == n {
					found = line
					return nil
				}
			}
		}
		return fmt.Errorf("%s has heard %d of %d lines with %q; the last are:\n%s", u.Nick, have, n, text, strings.Join(all[max(0, len(all)-10):], "\n"))
	})
	return found
}

// AwaitEnd waits until the server has ended the connection.
func (u *IRCUser) AwaitEnd() {
	u.t.Helper()
	WaitFor(u.t, ircBound, func() error {
		u.mu.Lock()
		defer u.mu.Unlock()
		if !u.ended {
			return fmt.Errorf("%s is still connected", u.Nick)
		}
		return nil
	})
}

// Leave leaves the network, if the server has not ended the connection already.
func (u *IRCUser) Leave() {
	u.t.Helper()
	fmt.Fprint(u.conn, "QUIT\r\n") //nolint:errcheck // then it has gone
	u.AwaitEnd()
}

// Join joins a channel and makes sure that the server has done so.
func (u *IRCUser) Join(channel string) {
	u.t.Helper()
	before := u.Count(" 366 ")
	u.Send("JOIN " + channel)
	u.AwaitCount(before+1, " 366 ")
}

// Oper makes the user an operator of the server.
func (u *IRCUser) Oper() {
	u.t.Helper()
	u.Send("OPER oper operpass")
	u.Await(" 381 ")
}
