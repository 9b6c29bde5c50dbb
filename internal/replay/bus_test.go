package replay_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/transports/amqp"
)

const vhost = "soak"

// The same holds with a RabbitMQ as the bus, which is killed and started again besides.
func TestSoakOverAMQP(t *testing.T) {
	testenv.Need(t, "rsync")
	dir := t.TempDir()
	tree := filepath.Join(dir, "master", "tree")
	if err := os.MkdirAll(tree, 0o755); err != nil {
		t.Fatal(err)
	}
	makeTree(t, tree, 500)
	d := shortDay
	d.seed, d.lasts, d.falls, d.crowd = number(t, envSeed, 1), 15*time.Second, time.Second, 0
	w := newWorld(t, dir, tree, d.seed)
	w.overAMQP()
	w.play(d)
}

// overAMQP gives the world a RabbitMQ, and takes the hub's own transport away from everybody.
func (w *world) overAMQP() {
	w.t.Helper()
	w.broker = testenv.StartRabbitMQ(w.t, testenv.RabbitMQOptions{})
	w.broker.VHost(vhost)
	b := amqp.DefaultMasterConfig().Broker
	b.Servers, b.VHost, b.User, b.Password = []string{w.broker.URL()}, vhost, w.broker.User, config.NewSecret(w.broker.Password)
	if err := amqp.Init(w.t.Context(), b, amqp.DefaultTopology()); err != nil {
		w.t.Fatal(err)
	}
	w.broker.Sync()
	secret := filepath.Join(w.dir, "broker.password")
	if err := os.WriteFile(secret, []byte(w.broker.Password+"\n"), 0o600); err != nil {
		w.t.Fatal(err)
	}
	section := fmt.Sprintf("[transport.amqp]\nservers = [%q]\nvhost = %q\nuser = %q\npassword_file = %q\n", w.broker.URL(), vhost, w.broker.User, secret)
	files := []string{w.config()}
	for _, m := range w.mirrors {
		files = append(files, m.config())
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		before, _, found := strings.Cut(string(text), "[transport.hub]") // the last section
		if err != nil || !found {
			w.t.Fatalf("%s has no [transport.hub]: %v", file, err)
		}
		if err := os.WriteFile(file, []byte(before+section), 0o644); err != nil {
			w.t.Fatal(err)
		}
	}
}

// breaking kills the broker at random moments and starts it again, until ctx ends. Afterwards it runs.
func (w *world) breaking(ctx context.Context, seed uint64, every time.Duration) (kills int) {
	rng := rand.New(rand.NewPCG(seed, 4))
	for ; ; kills++ {
		select {
		case <-ctx.Done():
			return kills
		case <-time.After(time.Duration(rng.Int64N(int64(2 * every)))):
		}
		w.broker.Kill()
		w.broker.Start()
	}
}

// bus is the transport that everything goes by.
func (w *world) bus() string {
	if w.broker != nil {
		return "amqp"
	}
	return "hub"
}

// checkLogs looks at what the agents have logged: each has heard of changes by the bus, and no serial was applied twice.
func (w *world) checkLogs() {
	w.t.Helper()
	for _, m := range w.mirrors {
		text, err := os.ReadFile(w.log("agent-" + m.name))
		if err != nil {
			w.t.Error(err)
			continue
		}
		heard, last := 0, int64(-1) // the first comparison is of serial 0
		for line := range strings.Lines(string(text)) {
			if strings.Contains(line, " msg=heard ") && strings.Contains(line, " transport="+w.bus()) {
				heard++
			}
			if !strings.Contains(line, " msg=applied ") {
				continue
			}
			n := serialIn(line)
			if n <= last {
				w.t.Errorf("%s has applied serial %d after %d: %s", m.name, n, last, line)
			}
			last = n
		}
		if heard == 0 || last < 1 {
			w.t.Errorf("%s has heard of %d changes by %s and applied up to serial %d", m.name, heard, w.bus(), last)
		}
	}
}

// serialIn is the serial that a line of a log is about, -1 if it names none.
func serialIn(line string) int64 {
	_, rest, _ := strings.Cut(line, " serial=")
	word, _, _ := strings.Cut(rest, " ")
	n, err := strconv.ParseInt(strings.TrimSpace(word), 10, 64)
	if err != nil {
		return -1
	}
	return n
}
