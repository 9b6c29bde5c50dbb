package amqp

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	amqp091 "github.com/rabbitmq/amqp091-go"
)

// Users are those who may log in to a vhost, besides its operator.
type Users struct {
	Master  string
	Mirrors []string

	// Passwords by user. Who has none logs in with a certificate.
	Passwords map[string]string
}

// Definitions are a topology and its users as RabbitMQ imports them: `rabbitmqctl import_definitions`, or load_definitions in rabbitmq.conf.
// They name a password by a salted hash only.
func Definitions(vhost string, t Topology, u Users) ([]byte, error) {
	if err := errors.Join(t.Check(), u.check(vhost, t)); err != nil {
		return nil, err
	}
	d := definitions{VHosts: []namedEntry{{vhost}}}
	for _, x := range t.exchanges() {
		d.Exchanges = append(d.Exchanges, exchangeEntry{x.name, vhost, x.kind, true, false, false, orEmpty(x.args)})
	}
	for _, q := range t.queues() {
		d.Queues = append(d.Queues, queueEntry{q.name, vhost, true, false, orEmpty(q.args)})
	}
	for _, b := range t.bindings() {
		d.Bindings = append(d.Bindings, bindingEntry{b.exchange, vhost, b.queue, "queue", b.key, orEmpty(nil)})
	}
	d.add(u.Passwords, rightsOfMaster(u.Master, vhost))
	for _, mirror := range u.Mirrors {
		d.add(u.Passwords, t.rightsOfMirror(mirror, vhost))
	}
	text, err := json.MarshalIndent(d, "", "  ")
	return append(text, '\n'), err
}

// userName is what a principal may be called, see event/FORMAT.md.
var userName = regexp.MustCompile(`^[A-Za-z0-9._@-]{1,64}$`)

func (u Users) check(vhost string, t Topology) error {
	if vhost == "" || len(vhost) > 255 {
		return errors.New("the vhost must have a name of 255 bytes at most")
	}
	seen := map[string]bool{}
	for _, name := range append([]string{u.Master}, u.Mirrors...) {
		switch {
		case !userName.MatchString(name):
			return fmt.Errorf("name %.70q: must be 1 to 64 of [A-Za-z0-9._@-]", name)
		case seen[name]:
			return fmt.Errorf("%s is named twice: each mirror, and the master, has a user of its own", name)
		}
		seen[name] = true
	}
	for _, name := range append(t.inboxes(), t.Embargoed...) {
		if !slices.Contains(u.Mirrors, name) {
			return fmt.Errorf("%s has a queue of its own or hears of embargoed modules, and is none of the mirrors", name)
		}
	}
	return nil
}

// A rights is what a user may do in the vhost. What is no rule for an exchange of the topics would allow every topic, so there is one for each.
type rights struct {
	permission permissionEntry
	topics     []topicEntry
}

const nothing = "^$"

// exactly is the pattern of these names.
func exactly(names ...string) string {
	for i, n := range names {
		names[i] = regexp.QuoteMeta(n)
	}
	if len(names) == 1 {
		return "^" + names[0] + "$"
	}
	return "^(" + strings.Join(names, "|") + ")$"
}

func rightsOfMaster(name, vhost string) rights {
	return rights{
		permissionEntry{name, vhost, nothing, exactly(announceExchange), exactly(reportQueue)},
		[]topicEntry{
			{name, vhost, announceExchange, `^(` + announceWord + `|` + embargoWord + `)\.[^.]*$`, nothing},
			{name, vhost, reportExchange, nothing, nothing},
		},
	}
}

func (t Topology) rightsOfMirror(name, vhost string) rights {
	reads := []string{logStream}
	if slices.Contains(t.Embargoed, name) {
		reads = append(reads, embargoStream)
	}
	if t.Inboxes[name] != "" {
		reads = append(reads, inboxPrefix+name)
	}
	self := "{username}" // the broker puts in the name, and takes a dot in it for any character
	if quoted := regexp.QuoteMeta(name); quoted != name {
		self = quoted
	}
	return rights{
		permissionEntry{name, vhost, nothing, exactly(reportExchange), exactly(reads...)},
		[]topicEntry{
			{name, vhost, reportExchange, `^` + reportWord + `\.` + self + `\.[^.]*$`, nothing},
			{name, vhost, announceExchange, nothing, nothing},
		},
	}
}

func (d *definitions) add(passwords map[string]string, r rights) {
	name := r.permission.User
	d.Users = append(d.Users, userEntry{name, passwordHash(passwords[name]), "rabbit_password_hashing_sha256", []string{}})
	d.Permissions = append(d.Permissions, r.permission)
	d.TopicPermissions = append(d.TopicPermissions, r.topics...)
}

// passwordHash is a password as the broker keeps it: four bytes of salt, and SHA-256 of salt and password. An empty one lets nobody in by password.
func passwordHash(password string) string {
	if password == "" {
		return ""
	}
	salt := make([]byte, 4)
	rand.Read(salt) //nolint:errcheck // it never fails
	sum := sha256.Sum256(append(slices.Clone(salt), password...))
	return base64.StdEncoding.EncodeToString(append(salt, sum[:]...))
}

func orEmpty(args amqp091.Table) amqp091.Table {
	if args == nil {
		return amqp091.Table{}
	}
	return args
}

// definitions is the form of the file.
type definitions struct {
	VHosts           []namedEntry      `json:"vhosts"`
	Users            []userEntry       `json:"users"`
	Permissions      []permissionEntry `json:"permissions"`
	TopicPermissions []topicEntry      `json:"topic_permissions"`
	Exchanges        []exchangeEntry   `json:"exchanges"`
	Queues           []queueEntry      `json:"queues"`
	Bindings         []bindingEntry    `json:"bindings"`
}

type namedEntry struct {
	Name string `json:"name"`
}

type userEntry struct {
	Name         string   `json:"name"`
	PasswordHash string   `json:"password_hash"`
	Hashing      string   `json:"hashing_algorithm"`
	Tags         []string `json:"tags"`
}

type permissionEntry struct {
	User      string `json:"user"`
	VHost     string `json:"vhost"`
	Configure string `json:"configure"`
	Write     string `json:"write"`
	Read      string `json:"read"`
}

type topicEntry struct {
	User     string `json:"user"`
	VHost    string `json:"vhost"`
	Exchange string `json:"exchange"`
	Write    string `json:"write"`
	Read     string `json:"read"`
}

type exchangeEntry struct {
	Name       string        `json:"name"`
	VHost      string        `json:"vhost"`
	Type       string        `json:"type"`
	Durable    bool          `json:"durable"`
	AutoDelete bool          `json:"auto_delete"`
	Internal   bool          `json:"internal"`
	Arguments  amqp091.Table `json:"arguments"`
}

type queueEntry struct {
	Name       string        `json:"name"`
	VHost      string        `json:"vhost"`
	Durable    bool          `json:"durable"`
	AutoDelete bool          `json:"auto_delete"`
	Arguments  amqp091.Table `json:"arguments"`
}

type bindingEntry struct {
	Source          string        `json:"source"`
	VHost           string        `json:"vhost"`
	Destination     string        `json:"destination"`
	DestinationType string        `json:"destination_type"`
	RoutingKey      string        `json:"routing_key"`
	Arguments       amqp091.Table `json:"arguments"`
}
