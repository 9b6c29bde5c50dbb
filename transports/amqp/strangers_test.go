package amqp_test

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/transports/amqp"
)

// serve does with each connection to a free port what handle does, until the test ends.
func serve(t *testing.T, conf *tls.Config, handle func(net.Conn)) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if conf != nil {
		l = tls.NewListener(l, conf)
	}
	t.Cleanup(func() { l.Close() }) //nolint:errcheck // it ends the loop
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { c.Close() }) //nolint:errcheck // it may be closed
			go handle(c)
		}
	}()
	return l.Addr().String()
}

func says(text string) func(net.Conn) {
	return func(c net.Conn) { c.Write([]byte(text)) } //nolint:errcheck // whoever reads sees
}

const badRequest = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"

// shows is the configuration of a server that shows a certificate.
func shows(t *testing.T, pair testenv.Certificate) *tls.Config {
	t.Helper()
	cert, err := tls.LoadX509KeyPair(pair.Cert, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{cert}}
}

// at makes a process dial another server.
func at(url string) func(*amqp.Broker) { return func(b *amqp.Broker) { b.Servers = []string{url} } }

// What answers and is no broker is told by what it says.
func TestNoBroker(t *testing.T) {
	t.Parallel()
	web := httptest.NewServer(http.NotFoundHandler())
	defer web.Close()
	ca := testenv.NewAuthority(t)
	secret := serve(t, shows(t, ca.Issue("web", 2*time.Hour, "127.0.0.1")), says(badRequest))
	quickly := func(url string) func(*amqp.Broker) {
		return func(b *amqp.Broker) {
			b.Servers, b.DialTimeout = []string{url}, config.Duration{Duration: time.Second}
		}
	}
	s := newSite(t, amqp.DefaultTopology())
	for _, b := range []bad{
		{name: "nobody listens", conf: at(fmt.Sprint("amqp://127.0.0.1:", testenv.FreePort(t))), says: "connection refused", temporary: true},
		{name: "a web server that waits for a whole line", conf: quickly("amqp://" + web.Listener.Addr().String()), says: "no answer within 1s; see that the port is that of a RabbitMQ", temporary: true},
		{name: "a web server", conf: at("amqp://" + serve(t, nil, says(badRequest))), says: `this is no AMQP server, it says "HTTP/1.1 400 Bad Request"`},
		{name: "a web server in place of TLS", conf: at("amqps://" + web.Listener.Addr().String()), says: "it does not speak TLS on this port"},
		{
			name: "a web server with TLS", says: `this is no AMQP server, it says "HTTP/1.1 400 Bad Request"`,
			conf: func(b *amqp.Broker) { b.Servers, b.CA = []string{"amqps://" + secret}, config.Path(ca.File) },
		},
		{name: "an SSH server", conf: at("amqp://" + serve(t, nil, says("SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"))), says: `it says "SSH-2.0-OpenSSH_9.2p1 Debian-2"`},
		{name: "an SSH server in place of TLS", conf: at("amqps://" + serve(t, nil, says("SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"))), says: "it does not speak TLS on this port"},
		{name: "AMQP 1.0", conf: at("amqp://" + serve(t, nil, says("AMQP\x00\x01\x00\x00"))), says: "another version of AMQP than 0-9-1"},
		{name: "control characters", conf: at("amqp://" + serve(t, nil, says("\x1b[2J\x1b]0;owned\x07\r\nx"))), says: `it says "\x1b[2J\x1b]0;owned\a"`},
		{name: "silence", conf: quickly("amqp://" + serve(t, nil, says(""))), says: "no answer within 1s", temporary: true},
		{name: "silence in place of TLS", conf: quickly("amqps://" + serve(t, nil, says(""))), says: "no answer within 1s", temporary: true},
		{name: "a half greeting", conf: quickly("amqp://" + serve(t, nil, says("\x01\x00\x00\x00\x00"))), says: "no answer within 1s", temporary: true},
		{name: "hangs up", conf: at("amqp://" + serve(t, nil, func(c net.Conn) { c.Close() })), says: "if this port is for TLS, write amqps://", temporary: true},
		{name: "TLS spoken to a plain port", conf: at(strings.Replace(s.node.URL(), "amqp:", "amqps:", 1)), says: "it does not speak TLS on this port; the port for TLS is 5671 usually"},
	} {
		t.Run(b.name, func(t *testing.T) { b.check(t, s) })
	}
}

// The certificates of a real broker, and ours, are judged.
func TestCertificates(t *testing.T) {
	t.Parallel()
	ca, other := testenv.NewAuthority(t), testenv.NewAuthority(t)
	of := ca.Issue("broker", 2*time.Hour, "127.0.0.1")
	node := testenv.StartRabbitMQ(t, testenv.RabbitMQOptions{Plugins: []string{"rabbitmq_auth_mechanism_ssl"}, Conf: []string{
		"ssl_options.cacertfile = " + ca.File, "ssl_options.certfile = " + of.Cert, "ssl_options.keyfile = " + of.Key,
		"ssl_options.verify = verify_peer", "ssl_options.fail_if_no_peer_cert = true", "ssl_cert_login_from = common_name",
		"auth_mechanisms.1 = PLAIN", "auth_mechanisms.2 = EXTERNAL",
	}})
	s := siteOn(t, node, amqp.DefaultTopology())
	s.user("alpha", "", `^mb\.report$`, `^mb\.log$`)
	url := fmt.Sprint("amqps://127.0.0.1:", node.TLSPort)
	with := func(pair testenv.Certificate, more func(b *amqp.Broker)) func(*amqp.Broker) {
		return func(b *amqp.Broker) {
			b.Servers, b.CA, b.User, b.Password = []string{url}, config.Path(ca.File), "alpha", config.Secret{}
			b.Certificate, b.ClientKey = config.Path(pair.Cert), config.Path(pair.Key)
			if more != nil {
				more(b)
			}
		}
	}
	good := ca.Issue("alpha", 2*time.Hour)
	expired := serve(t, shows(t, ca.Issue("old", time.Minute, "127.0.0.1")), says(""))
	for _, b := range []bad{
		{name: "another name", conf: with(good, func(b *amqp.Broker) { b.ServerName = "bus.example.org" }), says: "its certificate is for another name"},
		{name: "unknown authority", conf: with(good, func(b *amqp.Broker) { b.CA = config.Path(other.File) }), says: "not signed by anybody who is trusted"},
		{name: "the system's authorities", conf: with(good, func(b *amqp.Broker) { b.CA = "" }), says: "not signed by anybody who is trusted; name the right file in ca_file"},
		{name: "expired", conf: with(good, func(b *amqp.Broker) { b.Servers = []string{"amqps://" + expired} }), says: "has expired or is not yet valid"},
		{name: "no certificate of ours", conf: func(b *amqp.Broker) { b.Servers, b.CA = []string{url}, config.Path(ca.File) }, says: "it does not take our certificate (certificate required); see cert_file"},
		{name: "ours is of another authority", conf: with(other.Issue("alpha", 2*time.Hour), nil), says: "it does not take our certificate"},
		{name: "ours has expired", conf: with(ca.Issue("alpha", time.Minute), nil), says: "it does not take our certificate"},
		{name: "ours is of nobody that it knows", conf: with(ca.Issue("nobody", 2*time.Hour), nil), says: "refuses the user"},
		{name: "spoken to plainly", conf: with(good, func(b *amqp.Broker) { b.Servers = []string{"amqp://127.0.0.1:" + fmt.Sprint(node.TLSPort)} }), says: "it speaks TLS on this port: write amqps://"},
	} {
		t.Run(b.name, func(t *testing.T) { b.check(t, s) })
	}
	t.Run("as it should be", func(t *testing.T) {
		s.t = t
		m := s.member(&member{role: "mirror", name: "alpha", tune: with(ca.Issue("alpha", 2*time.Hour), nil)}).run()
		m.await(0)
	})
}
