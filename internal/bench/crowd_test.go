package bench_test

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/hub"
)

// The environment of the processes that play many peers.
const (
	envRole    = "MIRRORBUS_BENCH_ROLE"
	envAddress = "MIRRORBUS_BENCH_ADDRESS"
	envHostKey = "MIRRORBUS_BENCH_HOST_KEY"
	envCount   = "MIRRORBUS_BENCH_COUNT"
)

// TestPeers is the other process of line 6, in one of three roles. It prints "all TIME" when every peer is connected and "arrived ID TIME" when
// every peer has a message, in nanoseconds since 1970, and ends with its standard input.
func TestPeers(t *testing.T) {
	roles := map[string]func(context.Context, *tally) error{"subscribers": subscribers, "bare clients": bareClients, "bare server": bareServer}
	role := roles[os.Getenv(envRole)]
	if role == nil {
		t.Skip("only run by line 6 of the bench")
	}
	var n int
	if _, err := fmt.Sscan(os.Getenv(envCount), &n); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var input sync.WaitGroup
	all := newTally(n)
	input.Go(func() {
		defer cancel()
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
			all.asked <- in.Text()
		}
	})
	err := role(ctx, all)
	if ctx.Err() == nil {
		t.Error(err)
	}
	input.Wait()
}

// A tally counts what many peers meet.
type tally struct {
	n     int
	asked chan string // lines of standard input

	mu        sync.Mutex
	connected int
	arrived   map[string]int
	total     int
}

func newTally(n int) *tally { return &tally{n: n, asked: make(chan string), arrived: map[string]int{}} }

func (t *tally) connect(change int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.connected += change; t.connected == t.n && change > 0 {
		fmt.Println("all", time.Now().UnixNano())
	}
}

func (t *tally) arrive(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.arrived[id]++; t.arrived[id] == t.n {
		fmt.Println("arrived", id, time.Now().UnixNano())
	}
}

// heard counts a message that has no id: the server sends them one after the other.
func (t *tally) heard() {
	t.mu.Lock()
	t.total++
	full := t.total%t.n == 0
	id := fmt.Sprint(t.total / t.n)
	t.mu.Unlock()
	if full {
		fmt.Println("arrived", id, time.Now().UnixNano())
	}
}

// peerKey is the key of the i-th subscriber.
func peerKey(i int) (ssh.Signer, error) {
	seed := sha256.Sum256(fmt.Appendf(nil, "subscriber %d", i))
	return ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(seed[:]))
}

// subscribers are real clients of the hub in one process, each with its key and connection, kept as agents keep theirs.
func subscribers(ctx context.Context, all *tally) error {
	conf := *hub.DefaultClientConfig()
	conf.Address, conf.HostKey = os.Getenv(envAddress), os.Getenv(envHostKey)
	subs := []transports.Subscription{{Topic: transports.Topic{Kind: transports.Announce, Module: module}}}
	var parts sync.WaitGroup
	defer parts.Wait()
	for i := range all.n {
		key, err := peerKey(i)
		if err != nil {
			return err
		}
		c, err := hub.NewClient(conf, transports.Env{Signer: key})
		if err != nil {
			return err
		}
		s := &subscriber{all: all}
		parts.Go(func() {
			transports.Keep(ctx, c, subs, s, transports.KeepOptions{State: s.state}) //nolint:errcheck // it ends with ctx only
		})
	}
	<-ctx.Done()
	return nil
}

type subscriber struct {
	all *tally
	on  bool
}

func (s *subscriber) state(st transports.State) {
	if st.Connected != s.on {
		s.on = st.Connected
		s.all.connect(map[bool]int{true: 1, false: -1}[s.on])
	}
}

func (s *subscriber) Connected() {}

func (s *subscriber) Receive(_ context.Context, m transports.Message) error {
	if line := string(m.Body); strings.HasPrefix(line, "mirrorbus1 change ") {
		s.all.arrive(serialOf(line))
	}
	return nil
}

// serialOf is the serial that a line states.
func serialOf(line string) string {
	_, rest, _ := strings.Cut(line, " serial=")
	serial, _, _ := strings.Cut(rest, " ")
	return serial
}

// A peers is a running process of TestPeers.
type peers struct {
	*daemon
	in    io.WriteCloser
	lines chan string
	since time.Time // when it was started
}

// peers starts one. The crowd ends with the bench.
func (b *bench) peers(role, address, hostKey string) (*peers, error) {
	cmd := exec.Command(os.Args[0], "-test.run=^TestPeers$", "-test.timeout=0")
	cmd.Env = append(os.Environ(), envRole+"="+role, envAddress+"="+address, envHostKey+"="+hostKey, fmt.Sprint(envCount, "=", b.subscribers))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &peers{daemon: &daemon{name: role, cmd: cmd, exited: make(chan struct{})}, in: in, lines: make(chan string, 1000), since: time.Now()}
	go func() {
		for s := bufio.NewScanner(out); s.Scan(); {
			p.lines <- s.Text()
		}
		cmd.Wait() //nolint:errcheck // that it ended is what matters
		close(p.exited)
	}()
	b.Cleanup(func() {
		in.Close() //nolint:errcheck // tells it to end
		p.end(0)
	})
	return p, nil
}

// next waits for a line that begins with what, and returns the time it tells.
func (p *peers) next(ctx context.Context, what string) (time.Time, error) {
	bound := time.NewTimer(5 * time.Minute)
	defer bound.Stop()
	for {
		select {
		case line := <-p.lines:
			if rest, ok := strings.CutPrefix(line, what+" "); ok {
				var at int64
				_, err := fmt.Sscan(rest, &at)
				return time.Unix(0, at), err
			}
		case <-p.exited:
			return time.Time{}, fmt.Errorf("%s have ended, waiting for %q", p.name, what)
		case <-bound.C:
			return time.Time{}, fmt.Errorf("%s: no %q", p.name, what)
		case <-ctx.Done():
			return time.Time{}, context.Cause(ctx)
		}
	}
}

// trusted are the lines of an allowed_signers file that let so many subscribers in.
func trusted(n int) (string, error) {
	var out strings.Builder
	for i := range n {
		key, err := peerKey(i)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&out, "subscriber-%d namespaces=\"report@mirrorbus\" %s", i, ssh.MarshalAuthorizedKey(key.PublicKey()))
	}
	return out.String(), nil
}

// hostKeyOf makes a host key from a fixed seed, for the bare server.
func hostKeyOf() (ssh.Signer, error) { return peerKey(-1) }
