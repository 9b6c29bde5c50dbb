package testenv

import (
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// A Proxy passes TCP connections on to a server and does to them what networks do: it cuts them, holds them up, or lets them hang.
type Proxy struct {
	Port int

	t        testing.TB
	server   string
	listener net.Listener
	parts    sync.WaitGroup

	mu       sync.Mutex
	open     map[net.Conn]bool
	closed   bool
	refuses  bool
	cut      int64         // bytes from the server after which each connection ends; 0 means never
	delay    time.Duration // of what either side sends
	resume   chan struct{} // closed unless nothing is to be passed on
	accepted int
	traffic  Traffic
	answered bool // the server was the last to send
}

// Traffic is what has passed a proxy.
type Traffic struct {
	Up, Down int64 // bytes to the server, and from it
	Turns    int   // how often the client spoke after the server had: round trips, where there is one connection at a time
}

// Minus is what has passed since.
func (t Traffic) Minus(before Traffic) Traffic {
	return Traffic{t.Up - before.Up, t.Down - before.Down, t.Turns - before.Turns}
}

// StartProxy starts a proxy for the server on a port of 127.0.0.1, until the test ends.
func StartProxy(t testing.TB, port int) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{Port: l.Addr().(*net.TCPAddr).Port, t: t, server: fmt.Sprint("127.0.0.1:", port), listener: l, open: map[net.Conn]bool{}, resume: make(chan struct{})}
	close(p.resume)
	p.parts.Go(p.accept)
	t.Cleanup(func() {
		p.mu.Lock()
		p.closed = true
		p.mu.Unlock()
		l.Close() //nolint:errcheck // it was only listening
		p.Hang(false)
		p.Drop()
		p.parts.Wait()
	})
	return p
}

// URL returns the rsync:// address of a module behind the proxy.
func (p *Proxy) URL(module string) string {
	return fmt.Sprintf("rsync://127.0.0.1:%d/%s/", p.Port, module)
}

// Accepted is how many connections there have been.
func (p *Proxy) Accepted() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.accepted
}

// Traffic is what has passed until now.
func (p *Proxy) Traffic() Traffic {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.traffic
}

// count takes n bytes into the traffic. The caller has the lock.
func (p *Proxy) count(n int64, fromServer bool) {
	switch {
	case n == 0:
		return
	case fromServer:
		p.traffic.Down += n
	default:
		p.traffic.Up += n
		if p.answered {
			p.traffic.Turns++
		}
	}
	p.answered = fromServer
}

// CutAfter ends each connection, also those that stand, once the server has sent so many bytes over it; 0 means never.
func (p *Proxy) CutAfter(bytes int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = bytes
}

// Delay holds up what either side sends by d.
func (p *Proxy) Delay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

// Hang leaves connections open and passes nothing on, as after a cable was pulled; Hang(false) goes on where it stopped.
func (p *Proxy) Hang(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.resume:
		if on {
			p.resume = make(chan struct{})
		}
	default:
		if !on {
			close(p.resume)
		}
	}
}

// Drop ends all connections that stand.
func (p *Proxy) Drop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.open {
		c.Close() //nolint:errcheck // to end it is the point
	}
}

// Refuse ends all connections that stand, and each new one at once, as long as it is on.
func (p *Proxy) Refuse(on bool) {
	p.mu.Lock()
	p.refuses = on
	p.mu.Unlock()
	if on {
		p.Drop()
	}
}

func (p *Proxy) isRefusing() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.refuses
}

func (p *Proxy) accept() {
	for {
		outer, err := p.listener.Accept()
		if err != nil {
			return
		}
		if p.isRefusing() {
			outer.Close() //nolint:errcheck // to end it is the point
			continue
		}
		inner, err := net.Dial("tcp", p.server)
		if err != nil {
			outer.Close() //nolint:errcheck // the server does not answer, so neither does this
			continue
		}
		if !p.keep(outer, inner) {
			return
		}
		var both sync.WaitGroup
		both.Go(func() { p.pass(inner, outer, false) })
		both.Go(func() { p.pass(outer, inner, true) })
		p.parts.Go(func() {
			both.Wait()
			p.forget(outer, inner)
		})
	}
}

// keep notes a connection, and tells whether the proxy still runs.
func (p *Proxy) keep(both ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.accepted++
	for _, c := range both {
		p.open[c] = true
		if p.closed || p.refuses {
			c.Close() //nolint:errcheck // the test is over, or it came between asking and keeping
		}
	}
	return !p.closed
}

func (p *Proxy) forget(both ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range both {
		c.Close() //nolint:errcheck // both ways have ended
		delete(p.open, c)
	}
}

// pass copies one way until it ends; then the other side learns that nothing more comes.
func (p *Proxy) pass(to, from net.Conn, fromServer bool) {
	buf := make([]byte, 16<<10)
	var sent int64
	for {
		n, err := from.Read(buf)
		cut, more := p.wait(sent, int64(n), fromServer)
		if _, werr := to.Write(buf[:more]); err == nil {
			err = werr
		}
		sent += more
		if cut {
			to.Close()   //nolint:errcheck // to end it is the point
			from.Close() //nolint:errcheck // as above
			return
		}
		if err != nil {
			if c, ok := to.(*net.TCPConn); ok && err == io.EOF {
				c.CloseWrite() //nolint:errcheck // it may have ended already
				return
			}
			to.Close()   //nolint:errcheck // it is over
			from.Close() //nolint:errcheck // as above
			return
		}
	}
}

// wait holds n bytes up as it was told to, and says how many of them may pass and whether the connection ends then.
func (p *Proxy) wait(sent, n int64, fromServer bool) (cut bool, more int64) {
	p.mu.Lock()
	delay, resume := p.delay, p.resume
	p.mu.Unlock()
	<-resume
	if delay > 0 && n > 0 {
		<-time.After(delay)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count(n, fromServer)
	if fromServer && p.cut > 0 && sent+n >= p.cut {
		return true, max(p.cut-sent, 0)
	}
	return false, n
}
