package hub_test

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"os"
	osexec "os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/hub"
)

// Environment of the process that plays the mirrors.
const (
	envAddress = "HUB_BENCH_ADDRESS"
	envHostKey = "HUB_BENCH_HOST_KEY"
	envCount   = "HUB_BENCH_COUNT"
)

// BenchmarkBroadcast sends 500 bytes to all subscribers, who are in another process. Beside the time until Publish returns it gives what an idle
// subscriber costs the hub in memory, and when the middle and the last subscriber had the message.
func BenchmarkBroadcast(b *testing.B) {
	for _, count := range []int{100, 500} {
		b.Run(fmt.Sprint(count), func(b *testing.B) { benchmarkBroadcast(b, count) })
	}
}

func benchmarkBroadcast(b *testing.B, count int) {
	r := newRig(b)
	r.conf.AcceptRate, r.conf.AcceptBurst, r.conf.MaxUnauthenticated = 1000, 1000, 1000
	env := transports.Env{PeerName: func(key ssh.PublicKey) (string, error) { return ssh.FingerprintSHA256(key), nil }}
	h, err := hub.NewServer(r.conf, env)
	must(b, err)
	s := &server{Server: h, inbox: newInbox(), rig: r}
	s.start(b, h, &s.inbox)
	s.awaitConnected(b)
	memory, resident, goroutines := footprint(b)
	start := time.Now()
	lines := mirrors(b, h.Addr().String(), r.host.PublicKey(), count)
	expect(b, lines, "connected\n")
	storm := time.Since(start)
	await(b, "subscribers", func() bool { return len(s.Peers()) == count })
	memory2, resident2, goroutines2 := footprint(b)
	var middle, last time.Duration
	n := 0
	for b.Loop() {
		body := make([]byte, 500)
		binary.BigEndian.PutUint64(body, uint64(time.Now().UnixNano()))
		must(b, s.Publish(b.Context(), transports.Message{Topic: debian, ID: numbered(n), Body: body}))
		b.StopTimer()
		var m, l time.Duration
		if _, err := fmt.Fscanf(lines, "%d %d\n", &m, &l); err != nil {
			b.Fatal(err)
		}
		middle, last, n = middle+m, last+l, n+1
		b.StartTimer()
	}
	b.ReportMetric(float64(memory2-memory)/float64(count), "heap+stack-B/subscriber")
	b.ReportMetric(float64(resident2-resident)/float64(count), "rss-B/subscriber")
	b.ReportMetric(float64(goroutines2-goroutines)/float64(count), "goroutines/subscriber")
	b.ReportMetric(float64(storm.Milliseconds()), "ms-to-connect-all")
	b.ReportMetric(float64(middle.Microseconds())/float64(n), "µs-to-middle")
	b.ReportMetric(float64(last.Microseconds())/float64(n), "µs-to-last")
}

// footprint returns bytes in use by the program, its resident bytes and its goroutines.
func footprint(t testing.TB) (inUse, resident uint64, goroutines int) {
	t.Helper()
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	text, err := os.ReadFile("/proc/self/statm")
	must(t, err)
	pages, err := strconv.ParseUint(strings.Fields(string(text))[1], 10, 64)
	must(t, err)
	return m.HeapInuse + m.StackInuse, pages * uint64(os.Getpagesize()), runtime.NumGoroutine()
}

// mirrors starts the process of TestMirrorsOfBenchmark and returns its output.
func mirrors(b *testing.B, address string, hostKey ssh.PublicKey, count int) *bufio.Reader {
	b.Helper()
	cmd := osexec.Command(os.Args[0], "-test.run=^TestMirrorsOfBenchmark$", "-test.benchtime=1x")
	cmd.Env = append(os.Environ(), envAddress+"="+address, envHostKey+"="+string(ssh.MarshalAuthorizedKey(hostKey)), envCount+"="+fmt.Sprint(count))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(b, err)
	in, err := cmd.StdinPipe()
	must(b, err)
	must(b, cmd.Start())
	b.Cleanup(func() {
		in.Close()               //nolint:errcheck // tells it to end
		io.Copy(io.Discard, out) //nolint:errcheck // what it says at its end
		if err := cmd.Wait(); err != nil {
			b.Error(err)
		}
	})
	return bufio.NewReader(out)
}

// TestMirrorsOfBenchmark is the other process of BenchmarkBroadcast. For each message it prints when, in nanoseconds after it was sent, half of
// the mirrors and all of them had it. It ends with its standard input.
func TestMirrorsOfBenchmark(t *testing.T) {
	if os.Getenv(envAddress) == "" {
		t.Skip("only run by BenchmarkBroadcast")
	}
	count, err := strconv.Atoi(os.Getenv(envCount))
	must(t, err)
	conf := *hub.DefaultClientConfig()
	conf.Address, conf.HostKey = os.Getenv(envAddress), os.Getenv(envHostKey)
	ctx, cancel := context.WithCancel(t.Context())
	all := &crowd{connected: make(chan struct{}, count), latencies: make(chan time.Duration, count)}
	var parts sync.WaitGroup
	for range count {
		_, private, err := ed25519.GenerateKey(nil)
		must(t, err)
		signer, err := ssh.NewSignerFromKey(private)
		must(t, err)
		c, err := hub.NewClient(conf, transports.Env{Signer: signer, Log: slog.New(slog.DiscardHandler)})
		must(t, err)
		parts.Go(func() {
			if err := c.Run(ctx, []transports.Subscription{{Topic: debian}}, all); ctx.Err() == nil {
				t.Error(err)
				cancel()
			}
		})
	}
	for range count {
		select {
		case <-all.connected:
		case <-ctx.Done():
		}
	}
	fmt.Println("connected")
	parts.Go(func() { all.report(ctx, count) })
	io.Copy(io.Discard, os.Stdin) //nolint:errcheck // until it is closed
	cancel()
	parts.Wait()
}

// crowd receives for all mirrors.
type crowd struct {
	connected chan struct{}
	latencies chan time.Duration
}

func (c *crowd) Connected() { c.connected <- struct{}{} }

func (c *crowd) Receive(_ context.Context, m transports.Message) error {
	c.latencies <- time.Since(time.Unix(0, int64(binary.BigEndian.Uint64(m.Body))))
	return nil
}

func (c *crowd) report(ctx context.Context, count int) {
	for {
		var all []time.Duration
		for range count {
			select {
			case l := <-c.latencies:
				all = append(all, l)
			case <-ctx.Done():
				return
			}
		}
		slices.Sort(all)
		fmt.Printf("%d %d\n", all[count/2], all[count-1])
	}
}
