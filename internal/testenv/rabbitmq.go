package testenv

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// RabbitMQOptions describe a node. The zero value is a plain one.
type RabbitMQOptions struct {
	Conf    []string // further lines of rabbitmq.conf; with "ssl_options." among them the node also listens with TLS
	Plugins []string // further plugins
}

// A RabbitMQ is a node of its own: the port mapper, the cookie and every file are the test's. Its user may do everything.
type RabbitMQ struct {
	server
	Port    int // of AMQP
	TLSPort int // of AMQP over TLS, 0 if there is none
	Dir     string
	Node    string // the name of the node

	User, Password string

	admin  int // port of the management API
	cookie string
	epmd   *server
	mapper int // port of epmd
}

// rabbitBin is where a distribution's package has the programs themselves; those on PATH change to another user.
var rabbitBin = []string{"/usr/lib/rabbitmq/bin", "/usr/lib/rabbitmq/sbin", "/usr/local/sbin", "/opt/rabbitmq/sbin", "/opt/homebrew/sbin"}

func rabbitProgram(t testing.TB, name string) string {
	t.Helper()
	path := findRabbit(name)
	if path == "" {
		Missing(t, "program "+name+" of RabbitMQ is not installed")
	}
	return path
}

func findRabbit(name string) string {
	for _, dir := range rabbitBin {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path
		}
	}
	return ""
}

// HasRabbitMQ tells whether StartRabbitMQ can start one.
func HasRabbitMQ() bool { return findRabbit("rabbitmq-server") != "" }

// StartRabbitMQ starts a node and waits until it takes streams and quorum queues.
func StartRabbitMQ(t testing.TB, o RabbitMQOptions) *RabbitMQ {
	t.Helper()
	for tries := 1; ; tries++ { // another process may take a port first
		n := newRabbitMQ(t, o, nil)
		n.ready = n.whole
		err := n.start()
		if err == nil {
			return n
		}
		if tries == 3 || !strings.Contains(err.Error(), "could_not_start_listener") && !strings.Contains(err.Error(), "eaddrinuse") {
			t.Fatal(err)
		}
	}
}

// newRabbitMQ makes the files of a node, which can join another one.
func newRabbitMQ(t testing.TB, o RabbitMQOptions, with *RabbitMQ) *RabbitMQ {
	t.Helper()
	binary := rabbitProgram(t, "rabbitmq-server")
	n := &RabbitMQ{Dir: t.TempDir(), Port: FreePort(t), admin: FreePort(t), User: "test"}
	n.server = server{t: t, argv: []string{binary}, logFile: filepath.Join(n.Dir, "log"), limit: time.Minute}
	n.Node = fmt.Sprintf("n%d@localhost", n.Port)
	if with != nil {
		n.epmd, n.mapper, n.cookie, n.Password = with.epmd, with.mapper, with.cookie, with.Password
	} else {
		n.startMapper()
		n.cookie, n.Password = fmt.Sprint("cookie", n.Port), rand.Text()
	}
	n.files(o)
	n.server.env = n.environment()
	t.Cleanup(func() {
		if n.cmd != nil {
			n.Kill()
		}
	})
	return n
}

// startMapper starts the program by which nodes find each other.
func (n *RabbitMQ) startMapper() {
	n.t.Helper()
	n.mapper = FreePort(n.t)
	n.epmd = &server{t: n.t, argv: []string{Need(n.t, "epmd"), "-port", fmt.Sprint(n.mapper), "-address", "127.0.0.1"},
		logFile: filepath.Join(n.Dir, "epmd"), ready: func() error { return listens(n.mapper) }}
	if err := n.epmd.start(); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(n.epmd.Kill)
}

func listens(port int) error {
	c, err := net.DialTimeout("tcp", fmt.Sprint("127.0.0.1:", port), time.Second)
	if err != nil {
		return err
	}
	return c.Close()
}

func (n *RabbitMQ) path(name string) string { return filepath.Join(n.Dir, name) }

func (n *RabbitMQ) files(o RabbitMQOptions) {
	n.t.Helper()
	for _, dir := range []string{"home", "mnesia", "logs", "conf.d"} {
		if err := os.Mkdir(n.path(dir), 0o700); err != nil {
			n.t.Fatal(err)
		}
	}
	lines := []string{
		"default_user = " + n.User, "default_pass = " + n.Password, fmt.Sprint("listeners.tcp.1 = 127.0.0.1:", n.Port), "loopback_users = none", "disk_free_limit.absolute = 50MB", "log.file.level = warning",
		"vm_memory_high_watermark.absolute = 4GB", "management.tcp.ip = 127.0.0.1", fmt.Sprint("management.tcp.port = ", n.admin),
		"management.disable_stats = true", "raft.wal_max_size_bytes = 16000000",
	}
	if strings.Contains(strings.Join(o.Conf, "\n"), "ssl_options.") {
		n.TLSPort = FreePort(n.t)
		lines = append(lines, fmt.Sprint("listeners.ssl.1 = 127.0.0.1:", n.TLSPort))
	}
	writeFile(n.t, n.path("rabbitmq.conf"), strings.Join(append(lines, o.Conf...), "\n")+"\n")
	writeFile(n.t, n.path("enabled_plugins"), "["+strings.Join(append([]string{"rabbitmq_management"}, o.Plugins...), ",")+"].")
	writeFile(n.t, n.path("env.conf"), "")
	writeFile(n.t, n.path("home/.erlang.cookie"), n.cookie)
	if err := os.Chmod(n.path("home/.erlang.cookie"), 0o400); err != nil {
		n.t.Fatal(err)
	}
}

func (n *RabbitMQ) environment() []string {
	return []string{
		"HOME=" + n.path("home"), "RABBITMQ_NODENAME=" + n.Node, fmt.Sprint("RABBITMQ_DIST_PORT=", FreePort(n.t)), fmt.Sprint("ERL_EPMD_PORT=", n.mapper),
		"ERL_EPMD_ADDRESS=127.0.0.1", "RABBITMQ_MNESIA_BASE=" + n.path("mnesia"), "RABBITMQ_LOG_BASE=" + n.path("logs"),
		"RABBITMQ_LOGS=" + n.path("logs/node.log"), "RABBITMQ_PID_FILE=" + n.path("pid"), "RABBITMQ_CONF_ENV_FILE=" + n.path("env.conf"),
		"RABBITMQ_CONFIG_FILE=" + n.path("rabbitmq.conf"), "RABBITMQ_ENABLED_PLUGINS_FILE=" + n.path("enabled_plugins"),
		"RABBITMQ_ADVANCED_CONFIG_FILE=" + n.path("advanced.config"), "RABBITMQ_CONFIG_FILES=" + n.path("conf.d"),
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-kernel inet_dist_use_interface {127,0,0,1} +S 2:2", "RUNNING_UNDER_SYSTEMD=true",
	}
}

// Ctl runs rabbitmqctl and returns what it says.
func (n *RabbitMQ) Ctl(args ...string) string {
	n.t.Helper()
	return n.CtlReads("", args...)
}

// CtlReads runs rabbitmqctl with a text as its standard input.
func (n *RabbitMQ) CtlReads(text string, args ...string) string {
	n.t.Helper()
	cmd := exec.Command(rabbitProgram(n.t, "rabbitmqctl"), append([]string{"--quiet", "--node", n.Node}, args...)...)
	cmd.Env, cmd.Stdin = append(os.Environ(), n.server.env...), strings.NewReader(text)
	out, err := cmd.CombinedOutput()
	if err != nil {
		n.t.Fatalf("rabbitmqctl %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// Eval has the node evaluate Erlang, which ends with a dot, and returns the result as Erlang writes it. rabbitmqctl can do that, too, and needs most of a
// second of a processor to start.
func (n *RabbitMQ) Eval(code string) string {
	n.t.Helper()
	program, err := exec.LookPath("erl_call")
	if err != nil {
		return strings.TrimSpace(n.Ctl("eval", code))
	}
	cmd := exec.Command(program, "-sname", n.Node, "-c", n.cookie, "-h", "eval"+rand.Text(), "-e")
	cmd.Env, cmd.Stdin = append(os.Environ(), n.server.env...), strings.NewReader(code+"\n")
	out, err := cmd.CombinedOutput()
	result, good := strings.CutPrefix(string(out), "{ok, ")
	if err != nil || !good {
		n.t.Fatalf("erl_call: %s: %v: %s", code, err, out)
	}
	return strings.TrimSuffix(strings.TrimSpace(result), "}")
}

// Sync has the node write down which queues it has. It does so by itself every half second, and a quorum queue that was made just before the node
// is killed can never be read again.
func (n *RabbitMQ) Sync() {
	n.t.Helper()
	n.Eval("[dets:sync(T) || T <- dets:all()].")
}

// Freeze stops the node as a host does that hangs: connections stay, and nothing answers. Thaw lets it go on.
func (n *RabbitMQ) Freeze() { n.signal(syscall.SIGSTOP) }

// Thaw lets a node go on that Freeze has stopped.
func (n *RabbitMQ) Thaw() { n.signal(syscall.SIGCONT) }

func (n *RabbitMQ) signal(sig syscall.Signal) {
	n.t.Helper()
	if err := syscall.Kill(-n.PID(), sig); err != nil {
		n.t.Fatal(err)
	}
}

// answers tells whether the management API does.
func (n *RabbitMQ) answers() error { return n.api(http.MethodGet, "/api/whoami", nil, nil) }

// whole tells whether the node takes streams and quorum queues: a port that is open says little. A stream that could not be made may leave its
// name behind, which is of no use any more, so each attempt has its own.
func (n *RabbitMQ) whole() error {
	for _, kind := range []string{"stream", "quorum"} {
		probe := "/api/queues/%2F/mirrorbus-probe-" + kind + rand.Text()
		if err := n.api(http.MethodPut, probe, map[string]any{"durable": true, "arguments": map[string]any{"x-queue-type": kind}}, nil); err != nil {
			return err
		}
		if err := n.api(http.MethodDelete, probe, nil, nil); err != nil {
			return err
		}
	}
	return nil
}

// API asks the management API; path begins with /api/. The test fails if that is refused.
func (n *RabbitMQ) API(method, path string, body, answer any) {
	n.t.Helper()
	if err := n.api(method, path, body, answer); err != nil {
		n.t.Fatal(err)
	}
}

func (n *RabbitMQ) api(method, path string, body, answer any) (err error) {
	var text []byte
	if body != nil {
		if text, err = json.Marshal(body); err != nil {
			return err
		}
	}
	req, err := http.NewRequest(method, fmt.Sprintf("http://127.0.0.1:%d%s", n.admin, path), bytes.NewReader(text))
	if err != nil {
		return err
	}
	req.Close = true // nothing of a connection stays, for tests that count goroutines
	req.SetBasicAuth(n.User, n.Password)
	req.Header.Set("Content-Type", "application/json")
	resp, err := (&http.Client{Timeout: 10 * time.Second}).Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // nothing was written
	said, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return err
	case resp.StatusCode >= 300:
		return fmt.Errorf("%s %s: %s: %.300s", method, path, resp.Status, said)
	case answer != nil:
		return json.Unmarshal(said, answer)
	}
	return nil
}

// VHost makes a vhost that User may do everything in.
func (n *RabbitMQ) VHost(name string) {
	n.t.Helper()
	n.API(http.MethodPut, "/api/vhosts/"+url.PathEscape(name), map[string]any{}, nil)
	n.API(http.MethodPut, "/api/permissions/"+url.PathEscape(name)+"/"+n.User, map[string]any{"configure": ".*", "write": ".*", "read": ".*"}, nil)
}

// DropVHost deletes a vhost and all in it.
func (n *RabbitMQ) DropVHost(name string) {
	n.t.Helper()
	n.API(http.MethodDelete, "/api/vhosts/"+url.PathEscape(name), nil, nil)
}

// URL is the address of the node without TLS.
func (n *RabbitMQ) URL() string { return fmt.Sprint("amqp://127.0.0.1:", n.Port) }
