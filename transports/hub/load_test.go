package hub_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/hub"
)

// raw is a connection of an authenticated peer that keeps to no rule.
func (r *rig) raw(name string) *ssh.Client {
	r.t.Helper()
	c, err := ssh.Dial("tcp", r.conf.Listen, &ssh.ClientConfig{
		User: "x", HostKeyCallback: ssh.FixedHostKey(r.host.PublicKey()), Timeout: bound,
		Auth: []ssh.AuthMethod{ssh.PublicKeys(r.key(name))},
	})
	must(r.t, err)
	r.t.Cleanup(func() {
		c.Close() //nolint:errcheck // the hub may have closed it
		c.Wait()  //nolint:errcheck // as above
	})
	return c
}

// command starts a command and leaves its output to the test.
func command(t testing.TB, c *ssh.Client, command string) (ch ssh.Channel, requests chan *ssh.Request) {
	t.Helper()
	ch, in, err := c.OpenChannel("session", nil)
	must(t, err)
	requests = make(chan *ssh.Request, 10)
	go func() {
		defer close(requests)
		for req := range in {
			requests <- req
		}
	}()
	ok, err := ch.SendRequest("exec", true, ssh.Marshal(struct{ Line string }{command}))
	if err != nil || !ok {
		t.Fatalf("exec %s: %v, %v", command, ok, err)
	}
	return ch, requests
}

func TestStormOfClientsGetsIn(t *testing.T) {
	r := newRig(t)
	r.conf.AcceptRate, r.conf.AcceptBurst, r.conf.MaxUnauthenticated = 100, 20, 40
	s := r.serve()
	ctx, cancel := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	defer clients.Wait()
	defer cancel()
	all := make([]*client, 200)
	for i := range all {
		c := r.client(fmt.Sprint("mirror", i))
		all[i] = c
		clients.Go(func() {
			options := transports.KeepOptions{Min: 50 * time.Millisecond, Max: time.Second}
			transports.Keep(ctx, c, []transports.Subscription{{Topic: debian}}, &c.inbox, options) //nolint:errcheck // it ends with ctx
		})
	}
	for _, c := range all {
		c.awaitConnected(t)
	}
	s.publish(t, msg(debian, "m1", "x"))
	for _, c := range all {
		c.awaitID(t, "m1")
	}
}

func TestSlowSubscriberIsClosedAndOthersAreNot(t *testing.T) {
	for _, tt := range []struct {
		name string
		tune func(*hub.ServerConfig)
	}{
		{"queue over its limit", func(c *hub.ServerConfig) { c.QueueSize = 4 << 20 }},
		{"nothing taken for too long", func(c *hub.ServerConfig) { c.WriteTimeout = span(2 * time.Second) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			tt.tune(&r.conf)
			s := r.serve()
			good := r.client("good").connect(t)
			_, requests := command(t, r.raw("slow"), "subscribe v1 announce/debian") // nobody reads
			await(t, "subscription", func() bool {
				return slices.ContainsFunc(s.Peers(), func(p hub.Peer) bool { return p.Name == "slow" && p.Subscribed })
			})
			body := strings.Repeat("x", 1<<20)
			for i := range 12 {
				s.publish(t, msg(debian, numbered(i), body))
				good.awaitID(t, numbered(i))
			}
			await(t, "end of the slow one", func() bool { return slices.Equal(s.names(), []string{"good"}) })
			var end struct {
				Signal string
				Core   bool
				Text   string
				Lang   string
			}
			must(t, ssh.Unmarshal((<-requests).Payload, &end))
			if !strings.HasPrefix(end.Text, "slow: ") {
				t.Errorf("the slow one was told %q", end.Text)
			}
			if !strings.Contains(r.log.String(), `msg="peer gone" peer=slow`) {
				t.Errorf("log: %s", r.log.String())
			}
		})
	}
}

func TestManyChannelsAreRefused(t *testing.T) {
	r := newRig(t)
	s := r.serve()
	good := r.client("good").connect(t)
	hostile := r.raw("hostile")
	opened, last := 0, error(nil)
	for range 10_000 {
		if _, _, err := hostile.OpenChannel("session", nil); err == nil {
			opened++
		} else {
			last = err
		}
	}
	if opened != 4 || last == nil {
		t.Errorf("%d channels were opened, last error %v", opened, last)
	}
	await(t, "end of the hostile one", func() bool { return slices.Equal(s.names(), []string{"good"}) })
	if !strings.Contains(r.log.String(), "too many requests for what the hub does not do") {
		t.Errorf("log: %s", r.log.String())
	}
	s.publish(t, msg(debian, "m1", "x"))
	good.awaitID(t, "m1")
}

func TestUnreadRequestsHoldNobodyUp(t *testing.T) {
	r := newRig(t)
	r.serve()
	c := r.raw("mirror")
	ch, _ := command(t, c, "subscribe v1 announce/debian")
	for range 50 {
		if _, err := ch.SendRequest("window-change", false, nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := c.SendRequest("keepalive@openssh.com", true, nil); err != nil {
		t.Errorf("keepalive: %v", err)
	}
	if _, err := ch.SendRequest("shell", true, nil); err != nil {
		t.Errorf("request: %v", err)
	}
}

func TestBadFramesEndThePublisher(t *testing.T) {
	r := newRig(t)
	s := r.serve()
	for name, input := range map[string]string{
		"over-long header":      strings.Repeat("x", 100_000),
		"body of two exabytes":  "msg r1 report/debian 2000000000000000000\nx",
		"body over the limit":   "msg r1 report/debian 8388609\nx",
		"no body":               "msg r1 report/debian 0\n\n",
		"negative body":         "msg r1 report/debian -1\nx\n",
		"number with a sign":    "msg r1 report/debian +1\nx\n",
		"number beyond 64 bits": "msg r1 report/debian 99999999999999999999\nx\n",
		"bad id":                "msg r/1 report/debian 1\nx\n",
		"bad topic":             "msg r1 report/../debian 1\nx\n",
		"another verb":          "gsm r1 report/debian 1\nx\n",
		"too many fields":       "msg r1 report/debian 1 2\nx\n",
	} {
		t.Run(name, func(t *testing.T) {
			ch, requests := command(t, r.raw("mirror"), "publish v1")
			if _, err := io.WriteString(ch, input); err != nil && err != io.EOF {
				t.Fatal(err)
			}
			said, err := io.ReadAll(ch.Stderr())
			must(t, err)
			if !strings.Contains(string(said), "not the hub protocol") {
				t.Errorf("it says %q", said)
			}
			if end := <-requests; end == nil || end.Type != "exit-status" || end.Payload[3] != 65 {
				t.Errorf("it ended with %v", end)
			}
		})
	}
	if got := s.ids(); len(got) != 0 {
		t.Errorf("the hub took %v", got)
	}
}

func TestHalfMessageEndsTheConnection(t *testing.T) {
	r := newRig(t)
	r.conf.WriteTimeout = span(50 * time.Millisecond)
	s := r.serve()
	ch, _ := command(t, r.raw("mirror"), "publish v1")
	_, err := io.WriteString(ch, "msg r1 report/debian 10\nhalf")
	must(t, err)
	await(t, "end", func() bool {
		return strings.Contains(r.log.String(), `reason="a message stopped half way"`) && len(s.Peers()) == 0
	})
}

func TestStrangersDoNotKeepOthersOut(t *testing.T) {
	r := newRig(t)
	r.conf.MaxUnauthenticated, r.conf.HandshakeTimeout = 5, span(10*time.Second) // so 20 of them would take 40 s
	r.serve()
	var slow []net.Conn
	for range 20 { // each sends a little and then nothing
		c, err := net.Dial("tcp", r.conf.Listen)
		must(t, err)
		defer c.Close() //nolint:errcheck // the hub may have closed it
		_, err = io.WriteString(c, "SSH-2.0-slo")
		must(t, err)
		slow = append(slow, c)
	}
	for range 3 {
		r.client("mirror").connect(t).stop(t)
	}
	must(t, slow[0].SetDeadline(time.Now().Add(bound)))
	if _, err := io.Copy(io.Discard, slow[0]); isTimeout(err) {
		t.Error("the connection that came first is still open")
	}
}

func isTimeout(err error) bool {
	e, ok := err.(net.Error) //nolint:errorlint // it comes from the connection as it is
	return ok && e.Timeout()
}

func TestSlowHandshakeIsEnded(t *testing.T) {
	r := newRig(t)
	r.conf.HandshakeTimeout = span(50 * time.Millisecond)
	r.serve()
	for _, start := range []string{"", "SSH-2.0-x\r\n", "SSH-2.0-x\r\n\x00\x00"} {
		c, err := net.Dial("tcp", r.conf.Listen)
		must(t, err)
		defer c.Close() //nolint:errcheck // the hub has closed it
		_, err = io.WriteString(c, start)
		must(t, err)
		must(t, c.SetDeadline(time.Now().Add(bound)))
		if _, err := io.Copy(io.Discard, c); isTimeout(err) {
			t.Errorf("after %q the connection stays open", start)
		}
	}
}

func TestGarbageInsteadOfSSH(t *testing.T) {
	r := newRig(t)
	r.serve()
	for _, garbage := range []string{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "\x16\x03\x01\x02\x00", strings.Repeat("\x00", 100_000), "SSH-1.0-old\r\n"} {
		c, err := net.Dial("tcp", r.conf.Listen)
		must(t, err)
		defer c.Close() //nolint:errcheck // the hub has closed it
		must(t, c.SetDeadline(time.Now().Add(bound)))
		io.WriteString(c, garbage)    //nolint:errcheck // the hub may hang up half way
		c.(*net.TCPConn).CloseWrite() //nolint:errcheck // as above
		first, err := bufio.NewReader(c).ReadString('\n')
		if first != "SSH-2.0-mirrorbus\r\n" {
			t.Errorf("%.20q: greeted with %q, %v", garbage, first, err)
		}
	}
	r.client("mirror").connect(t)
}
