package amqp_test

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/amqp"
)

// federation joins an edge broker to a cluster with the commands of deploy/rabbitmq/FEDERATION.md.
func federation(t *testing.T, c *cluster) {
	edge := siteOn(t, testenv.StartRabbitMQ(t, testenv.RabbitMQOptions{Plugins: []string{"rabbitmq_federation"}}), amqp.DefaultTopology())
	for where, s := range map[string]*site{"hub": c.site, "edge": edge} {
		for _, args := range commands(t, where) {
			for i := range args {
				args[i] = placed(args[i], s, c, edge)
			}
			s.node.Ctl(args...)
		}
	}
	linked(t, edge, "mb.announce")
	linked(t, c.site, "mb.report")
	far := edge.member(&member{role: transports.Mirror, name: "far"}).run()
	far.await(0)

	first := numbered("first", 20)
	c.master.put(first...)
	far.gets(first...)
	far.put("report-1")
	c.master.getsAll("report-1")

	edge.node.Sync()
	edge.node.Kill()
	away := numbered("away", 50)
	c.master.put(away...)
	c.mirrors[0].getsAll(away...)
	edge.node.Start()
	far.await(1)
	// An edge that was killed may confirm, while it starts, what the link brings before it has found its log, and not write it. So what comes again is
	// what is announced from now on; what was lost the serial tells the mirror, which looks at its upstream when it connects.
	again := 0
	testenv.WaitFor(t, patience, func() error {
		again++
		c.master.put(fmt.Sprintf("again-%04d", again))
		if got := far.received(); !strings.HasPrefix(got[len(got)-1], "again-") {
			return fmt.Errorf("the last of %d is %s", len(got), got[len(got)-1])
		}
		return nil
	})
	came := 0
	for _, id := range firsts(far.received()) {
		came += map[bool]int{true: 1}[strings.HasPrefix(id, "away-")]
	}
	t.Logf("%d of %d that were announced while the edge was away came to its mirror", came, len(away))
	far.put("report-2")
	c.master.getsAll("report-2")

	// The edge's log is a log like every other: a mirror that was away reads on where it was.
	far.stop()
	more := numbered("more", 30)
	c.master.put(more...)
	c.mirrors[0].getsAll(more...)
	far.run()
	far.getsAll(more...)
	if _, permanent := far.said(""); permanent {
		t.Errorf("the mirror has given up:\n\t%s", far.errors())
	}
}

// linked waits until a site has its link for an exchange.
func linked(t *testing.T, s *site, exchange string) {
	t.Helper()
	testenv.WaitFor(t, patience, func() error {
		said := s.node.Ctl("federation_status")
		if !strings.Contains(said, exchange) || !strings.Contains(said, "running") {
			return fmt.Errorf("no link for %s: %s", exchange, said)
		}
		return nil
	})
}

var block = regexp.MustCompile("(?ms)^```sh\n# on the (\\w+)\n(.*?)^```")

// commands are the rabbitmqctl command lines of FEDERATION.md for one side.
func commands(t *testing.T, where string) (all [][]string) {
	t.Helper()
	text, err := os.ReadFile("../../deploy/rabbitmq/FEDERATION.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range block.FindAllStringSubmatch(string(text), -1) {
		if b[1] != where {
			continue
		}
		for line := range strings.Lines(strings.ReplaceAll(b[2], "\\\n", " ")) {
			if args := words(line); len(args) > 1 && args[0] == "rabbitmqctl" {
				all = append(all, args[1:])
			}
		}
	}
	if len(all) < 4 {
		t.Fatalf("FEDERATION.md has %d commands for the %s, want at least 4", len(all), where)
	}
	return all
}

// words splits a command line at spaces outside of single quotes.
func words(line string) (all []string) {
	for i, part := range strings.Split(strings.TrimSpace(line), "'") {
		if i%2 == 1 {
			all = append(all, part)
			continue
		}
		all = append(all, strings.Fields(part)...)
	}
	return all
}

// placed puts this test's addresses and names in place of those of the examples.
func placed(arg string, here *site, hub *cluster, edge *site) string {
	if arg == "mirrorbus" {
		return here.vhost
	}
	return strings.NewReplacer(
		"amqps://edge:EDGEPASSWORD@hub1.example.org/mirrorbus", "amqp://edge:EDGEPASSWORD@127.0.0.1:"+fmt.Sprint(hub.nodes[0].Port)+"/"+hub.vhost,
		"amqps://edge:EDGEPASSWORD@hub2.example.org/mirrorbus", "amqp://edge:EDGEPASSWORD@127.0.0.1:"+fmt.Sprint(hub.nodes[1].Port)+"/"+hub.vhost,
		"amqps://hub:HUBPASSWORD@edge.example.org/mirrorbus", "amqp://hub:HUBPASSWORD@127.0.0.1:"+fmt.Sprint(edge.node.Port)+"/"+edge.vhost,
	).Replace(arg)
}
