package deploy

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/amqp"
)

// The definitions are what the command of the README prints.
func TestRabbitDefinitions(t *testing.T) {
	page := read(t, "rabbitmq/README.md")
	line := regexp.MustCompile(`(?m)^mirrorbus (amqp definitions .*) > definitions.json$`).FindStringSubmatch(page)
	if line == nil {
		t.Fatal("the README has no command that prints definitions")
	}
	program := filepath.Join(t.TempDir(), "mirrorbus")
	if out, err := exec.Command("go", "build", "-o", program, "../cmd/mirrorbus").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	out, err := exec.Command(program, strings.Fields(line[1])...).Output()
	if err != nil {
		t.Fatal(err)
	}
	if string(out) != read(t, "rabbitmq/definitions.json") {
		t.Errorf("rabbitmq/definitions.json is not what mirrorbus %s prints", line[1])
	}
	for _, m := range regexp.MustCompile(`\]\(([^)#]+)\)`).FindAllStringSubmatch(page, -1) {
		if _, err := os.Stat(filepath.Join("rabbitmq", m[1])); err != nil {
			t.Errorf("link: %v", err)
		}
	}
}

// A node takes the configuration as it stands, but for folders, ports and the plain port that the tests use, and reads the definitions at its
// start. Then those who have certificates work with it, and the commands of the README do too.
func TestRabbitConfiguration(t *testing.T) {
	ca := testenv.NewAuthority(t)
	broker := ca.Issue("broker", 2*time.Hour, "127.0.0.1")
	definitions, err := filepath.Abs("rabbitmq/definitions.json")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("/etc/rabbitmq/tls/ca.pem", ca.File, "/etc/rabbitmq/tls/broker.pem", broker.Cert, "/etc/rabbitmq/tls/broker.key", broker.Key,
		"/etc/rabbitmq/definitions.json", definitions).Replace(read(t, "rabbitmq/rabbitmq.conf"))
	var conf []string
	load := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "load_definitions"):
			load = line // at the second start: a node that has it at its first makes no user for the tests
		case !slices.Contains([]string{"listeners.tcp = none", "listeners.ssl.default = 5671"}, line):
			conf = append(conf, line)
		}
	}
	if load == "" || len(conf) != strings.Count(text, "\n")-3 {
		t.Fatalf("rabbitmq.conf has other lines than this test knows: %q", conf)
	}
	plugins := strings.Split(strings.Trim(strings.TrimSpace(read(t, "rabbitmq/enabled_plugins")), "[]."), ",")
	node := testenv.StartRabbitMQ(t, testenv.RabbitMQOptions{Conf: conf, Plugins: plugins})
	node.Stop()
	file, err := os.OpenFile(filepath.Join(node.Dir, "rabbitmq.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteString(load + "\n"); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	node.Start()
	testenv.WaitFor(t, time.Minute, func() error { // its ports open last
		c, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", node.TLSPort))
		if err == nil {
			err = c.Close()
		}
		return err
	})

	fill := func(b *amqp.Broker, user string) {
		mine := ca.Issue(user, 2*time.Hour)
		b.Servers, b.CA = []string{fmt.Sprint("amqps://127.0.0.1:", node.TLSPort)}, config.Path(ca.File)
		b.Certificate, b.ClientKey = config.Path(mine.Cert), config.Path(mine.Key)
	}
	master := amqp.DefaultMasterConfig()
	fill(&master.Broker, "master")
	hub := connect(t, transports.Master, "master", master, nil)
	heard := make(chan string, 10)
	for _, name := range []string{"alpha", "beta", "gamma"} {
		mirror := amqp.DefaultMirrorConfig()
		fill(&mirror.Broker, name)
		connect(t, transports.Mirror, name, mirror, heard)
	}
	topic := transports.Topic{Kind: transports.Announce, Module: "fedora"}
	if err := hub.Publish(t.Context(), transports.Message{Topic: topic, ID: "1", Body: []byte("news")}); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		select {
		case body := <-heard:
			if body != "news" {
				t.Errorf("heard %q", body)
			}
		case <-time.After(time.Minute):
			t.Fatal("not every mirror has heard")
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^rabbitmqctl (.*)$`).FindAllStringSubmatch(read(t, "rabbitmq/README.md"), -1) {
		node.Ctl(words(m[1])...)
	}
	for command, want := range map[string]string{
		"list_permissions -p mirrorbus":       `delta	^$	^mb\.report$	^mb\.log$`,
		"list_topic_permissions -p mirrorbus": "delta	mb.report	^report\\.{username}\\.[^.]*$	^$",
		"list_user_limits --user delta":       "16",
	} {
		if out := node.Ctl(words(command)...); !strings.Contains(out, want) {
			t.Errorf("rabbitmqctl %s: %s", command, out)
		}
	}
}

// words splits a command line with single quotes as a shell does.
func words(line string) (all []string) {
	for _, m := range regexp.MustCompile(`'([^']*)'|[^' ]+`).FindAllStringSubmatch(line, -1) {
		if strings.HasPrefix(m[0], "'") {
			all = append(all, m[1])
			continue
		}
		all = append(all, m[0])
	}
	return all
}

// connect runs one end of the bus until the test ends.
func connect(t *testing.T, role transports.Role, name string, conf any, heard chan<- string) transports.Transport {
	t.Helper()
	tr, err := transports.Registry{amqp.Driver()}.Open(role, "amqp", conf, transports.Env{Self: name})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	connected, ended := make(chan struct{}), make(chan error, 1)
	kind := transports.Announce
	if role == transports.Master {
		kind = transports.Report
	}
	subs := []transports.Subscription{{Topic: transports.Topic{Kind: kind, Module: "fedora"}}}
	go func() { ended <- tr.Run(ctx, subs, &ear{connected: connected, heard: heard}) }()
	t.Cleanup(func() { cancel(); <-ended })
	select {
	case <-connected:
	case err := <-ended:
		ended <- err
		t.Fatalf("%s: %v", name, err)
	}
	return tr
}

// An ear is a Receiver that passes on what it hears.
type ear struct {
	connected chan struct{}
	heard     chan<- string
}

func (e *ear) Connected() { close(e.connected) }
func (e *ear) Receive(_ context.Context, m transports.Message) error {
	e.heard <- string(m.Body)
	return nil
}
