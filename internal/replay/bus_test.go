package replay_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/transports/amqp"
)

const vhost = "soak"

// The same holds with a RabbitMQ as the bus, which is killed and started again besides.
func TestSoakOverAMQP(t *testing.T) { soakOver(t, "amqp") }

// And with all five at the same time, whose servers are killed: no serial is applied twice because it came by several of them.
func TestSoakOverAll(t *testing.T) { soakOver(t, buses...) }

func soakOver(t *testing.T, buses ...string) {
	testenv.Need(t, "rsync")
	dir := t.TempDir()
	tree := filepath.Join(dir, "master", "tree")
	if err := os.MkdirAll(tree, 0o755); err != nil {
		t.Fatal(err)
	}
	makeTree(t, tree, 500)
	d := shortDay
	d.seed, d.lasts, d.falls, d.crowd = number(t, envSeed, 1), 15*time.Second, time.Duration(len(buses))*time.Second, 0
	w := newWorld(t, dir, tree, d.seed)
	w.over(buses...)
	w.play(d)
}

// buses are the transports that a soak may go by.
var buses = []string{"hub", "amqp", "ssh", "irc", "mail"}

// A server is one beside the daemons, which a transport needs.
type server struct {
	bus string
	killable
}

type killable interface {
	Kill()
	Start()
}

// A section is what configurations say of a transport: that of the master, and that of a mirror.
type section struct {
	master string
	mirror func(m *mirror) string
}

// over makes these buses the ones that everything goes by. Several are all on at the same time.
func (w *world) over(buses ...string) {
	w.t.Helper()
	var sections []section
	for _, name := range buses {
		switch name {
		case "hub":
		case "amqp":
			sections = append(sections, w.amqp())
		case "ssh":
			sections = append(sections, w.ssh())
		case "irc":
			sections = append(sections, w.irc())
		case "mail":
			sections = append(sections, w.mail())
		default:
			w.t.Fatalf("%s=%s: must be all, or one of %v", envBus, name, buses)
		}
	}
	w.buses = buses
	keep := slices.Contains(buses, "hub")
	master := ""
	for _, s := range sections {
		master += s.master
	}
	w.append(w.config(), master, keep)
	for _, m := range w.mirrors {
		text := ""
		for _, s := range sections {
			text += s.mirror(m)
		}
		w.append(m.config(), text, keep)
		m.agent.argv = append(m.agent.argv, "-v") // says by which transport it has heard what it knew
	}
}

// append adds sections to a configuration, and takes that of the hub away unless it is kept.
func (w *world) append(file, sections string, keep bool) {
	w.t.Helper()
	text, err := os.ReadFile(file)
	before, hub, found := strings.Cut(string(text), "[transport.hub]") // the last section
	if err != nil || !found {
		w.t.Fatalf("%s has no [transport.hub]: %v", file, err)
	}
	if keep {
		before += "[transport.hub]" + hub + "\n"
	}
	w.writeFile(file, before+sections)
}

func (w *world) writeFile(file, text string) {
	w.t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// amqp starts a RabbitMQ.
func (w *world) amqp() section {
	w.t.Helper()
	broker := testenv.StartRabbitMQ(w.t, testenv.RabbitMQOptions{})
	w.servers = append(w.servers, server{"amqp", broker})
	broker.VHost(vhost)
	b := amqp.DefaultMasterConfig().Broker
	b.Servers, b.VHost, b.User, b.Password = []string{broker.URL()}, vhost, broker.User, config.NewSecret(broker.Password)
	if err := amqp.Init(w.t.Context(), b, amqp.DefaultTopology()); err != nil {
		w.t.Fatal(err)
	}
	broker.Sync()
	secret := filepath.Join(w.dir, "broker.password")
	w.writeFile(secret, broker.Password+"\n")
	text := fmt.Sprintf("[transport.amqp]\nservers = [%q]\nvhost = %q\nuser = %q\npassword_file = %q\nretry_max = \"2s\"\n", broker.URL(), vhost, broker.User, secret)
	return section{text, func(*mirror) string { return text }}
}

// ssh starts an sshd for each mirror, with the forced command that takes what the master brings.
func (w *world) ssh() section {
	w.t.Helper()
	var keys, hosts, mirrors []string
	for _, m := range w.mirrors {
		s := testenv.StartSSHD(w.t, w.program+" receive -c "+m.config())
		known, err := os.ReadFile(s.KnownHosts)
		if err != nil {
			w.t.Fatal(err)
		}
		keys, hosts = append(keys, s.KeyFile), append(hosts, string(known))
		mirrors = append(mirrors, fmt.Sprintf("[[transport.ssh.mirror]]\nname = %q\naddress = %q\nuser = %q\n", m.name, fmt.Sprint("127.0.0.1:", s.Port), s.User))
	}
	known := filepath.Join(w.dir, "known_hosts")
	w.writeFile(known, strings.Join(hosts, ""))
	return section{fmt.Sprintf("[transport.ssh]\nretry_max = \"1s\"\nknown_hosts = %q\nkeys = %s\n%s", known, quoted(keys), strings.Join(mirrors, "")),
		func(m *mirror) string {
			return fmt.Sprintf("[transport.ssh]\nsocket = %q\n", filepath.Join(m.dir, "push"))
		}}
}

// irc starts an ngIRCd that lets everybody talk as fast as they like.
func (w *world) irc() section {
	w.t.Helper()
	ngircd := testenv.StartNgIRCd(w.t, testenv.IRCOptions{})
	w.servers = append(w.servers, server{"irc", ngircd})
	text := fmt.Sprintf("[transport.irc]\ntls = false\nservers = [\"127.0.0.1:%d\"]\nrate = 50\nburst = 50\n", ngircd.Port)
	return section{text + "news = false\n", func(*mirror) string { return text }}
}

// mail starts a Postfix that hands everybody's mail over by LMTP.
func (w *world) mail() section {
	w.t.Helper()
	names, to := []string{"hub"}, []string{}
	for _, m := range w.mirrors {
		names, to = append(names, m.name), append(to, m.name+"@lmtp.test")
	}
	postfix := testenv.StartPostfix(w.t, testenv.PostfixOptions{Sockets: names})
	w.servers = append(w.servers, server{"mail", postfix})
	text := func(name string, to ...string) string {
		return fmt.Sprintf("[transport.mail]\nsmtp = %q\ntls = \"none\"\nfrom = %q\nto = %s\nlmtp = %q\n", postfix.Addr(), name+"@lmtp.test", quoted(to), postfix.Socket(name))
	}
	return section{text("hub", to...), func(m *mirror) string { return text(m.name, "hub@lmtp.test") }}
}
