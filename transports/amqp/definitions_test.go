package amqp_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/transports/amqp"
)

// smallSite is a topology with everything that one can have.
func smallSite() (amqp.Topology, amqp.Users) {
	topology := amqp.DefaultTopology()
	topology.Inboxes = map[string]string{"beta": "quorum", "gamma": "classic"}
	topology.Embargoed = []string{"gamma"}
	users := amqp.Users{Master: "master", Mirrors: []string{"alpha", "beta", "gamma", "d.elta"}, Passwords: map[string]string{}}
	for _, name := range append(users.Mirrors, users.Master) {
		users.Passwords[name] = "password of " + name
	}
	return topology, users
}

// imported is a vhost of the shared node that was made by importing definitions.
func imported(t *testing.T, topology amqp.Topology, users amqp.Users) *site {
	t.Helper()
	s := &site{t: t, node: testenv.SharedRabbitMQ(t), vhost: fmt.Sprint("v", vhosts.Add(1)), marks: map[string]*marks{}}
	text, err := amqp.Definitions(s.vhost, topology, users)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "definitions.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	s.node.Ctl("import_definitions", file)
	s.node.VHost(s.vhost) // and the tests' own user
	return s
}

// connection is one as one of the users.
func (s *site) connection(user, password string) (*amqp091.Connection, error) {
	s.t.Helper()
	conn, err := amqp091.DialConfig(s.node.URL(), amqp091.Config{Vhost: s.vhost, SASL: []amqp091.Authentication{
		&amqp091.PlainAuth{Username: user, Password: password}}})
	if err == nil {
		s.t.Cleanup(func() { conn.Close() }) //nolint:errcheck // the broker may have closed it
	}
	return conn, err
}

// as is a channel of a connection as one of the users.
func (s *site) as(user, password string) (*amqp091.Channel, error) {
	s.t.Helper()
	conn, err := s.connection(user, password)
	if err != nil {
		return nil, err
	}
	return conn.Channel()
}

// What is imported is what amqp init makes, each user has its password, and none is in the file.
func TestDefinitionsAreImported(t *testing.T) {
	t.Parallel()
	topology, users := smallSite()
	users.Mirrors = append(users.Mirrors, "keyless") // alpha is one of other vhosts, too, which have a password
	s := imported(t, topology, users)
	conf := amqp.DefaultMasterConfig()
	s.fill(&conf.Broker)
	if err := amqp.Init(t.Context(), conf.Broker, topology); err != nil {
		t.Errorf("init finds something else: %v", err)
	}
	for user, password := range users.Passwords {
		if _, err := s.as(user, password); err != nil {
			t.Errorf("%s: %v", user, err)
		}
		if _, err := s.as(user, password+"x"); err == nil {
			t.Errorf("%s comes in with another password", user)
		}
	}
	for _, password := range []string{"", "password of keyless"} {
		if _, err := s.as("keyless", password); err == nil {
			t.Errorf("a user without a password comes in with %q", password)
		}
	}
	var topics []struct{ User, Exchange, Write, Read string }
	s.node.API(http.MethodGet, "/api/vhosts/"+s.vhost+"/topic-permissions", nil, &topics)
	if want := 2 * (1 + len(users.Mirrors)); len(topics) != want {
		t.Errorf("%d rules for topics, want %d: who has none may do everything", len(topics), want)
	}
	var queues []struct{ Name, Type string }
	s.node.API(http.MethodGet, "/api/queues/"+s.vhost, nil, &queues)
	types := map[string]string{}
	for _, q := range queues {
		types[q.Name] = q.Type
	}
	want := map[string]string{"mb.log": "stream", "mb.log.embargo": "stream", "mb.unrouted": "stream", "mb.dead": "quorum", "mb.report.in": "quorum",
		"inbox.beta": "quorum", "inbox.gamma": "classic"}
	if fmt.Sprint(types) != fmt.Sprint(want) {
		t.Errorf("queues %v, want %v", types, want)
	}
}

func TestDefinitionsHoldNoPassword(t *testing.T) {
	topology, users := smallSite()
	text, err := amqp.Definitions("mirrorbus", topology, users)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(text, []byte("password of")) {
		t.Error("a password is in the definitions")
	}
	var d struct {
		Users []struct {
			Name, Hashing string
			Hash          string `json:"password_hash"`
		}
	}
	if err := json.Unmarshal(text, &d); err != nil || len(d.Users) != 5 {
		t.Fatalf("%d users, %v", len(d.Users), err)
	}
	salts := map[string]bool{}
	for _, u := range d.Users {
		raw, err := base64.StdEncoding.DecodeString(u.Hash)
		if err != nil || len(raw) != 4+sha256.Size {
			t.Fatalf("%s has the hash %q", u.Name, u.Hash)
		}
		salts[string(raw[:4])] = true
		if sum := sha256.Sum256(append(raw[:4:4], users.Passwords[u.Name]...)); !bytes.Equal(sum[:], raw[4:]) {
			t.Errorf("%s: the hash is of another password", u.Name)
		}
	}
	if len(salts) != len(d.Users) {
		t.Error("two users have the same salt")
	}
}

func TestDefinitionsRefuse(t *testing.T) {
	for want, change := range map[string]func(*amqp.Topology, *amqp.Users){
		"must be 1 to 64 of":          func(_ *amqp.Topology, u *amqp.Users) { u.Mirrors[0] = "al.*pha" },
		`name "": must be`:            func(_ *amqp.Topology, u *amqp.Users) { u.Master = "" },
		"alpha is named twice":        func(_ *amqp.Topology, u *amqp.Users) { u.Master = "alpha" },
		"zeta has a queue of its own": func(t *amqp.Topology, _ *amqp.Users) { t.Inboxes["zeta"] = "quorum" },
		"zeta has a queue of":         func(t *amqp.Topology, _ *amqp.Users) { t.Embargoed = []string{"zeta"} },
		"must be quorum or classic":   func(t *amqp.Topology, _ *amqp.Users) { t.Inboxes["beta"] = "stream" },
		"0 replicas: must be":         func(t *amqp.Topology, _ *amqp.Users) { t.Replicas = 0 },
		`how long to keep: "30 days"`: func(t *amqp.Topology, _ *amqp.Users) { t.MaxAge = "30 days" },
		`how long to keep: ""`:        func(t *amqp.Topology, _ *amqp.Users) { t.MaxAge = "" },
	} {
		topology, users := smallSite()
		change(&topology, &users)
		if _, err := amqp.Definitions("mirrorbus", topology, users); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one that says %q", err, want)
		}
	}
	topology, users := smallSite()
	if _, err := amqp.Definitions("", topology, users); err == nil || !strings.Contains(err.Error(), "vhost") {
		t.Errorf("no vhost: %v", err)
	}
}
