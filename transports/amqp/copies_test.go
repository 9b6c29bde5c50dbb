package amqp_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/transports"
)

// copies have a message delivered under further keys, which brokers before 4.1 do not check.
var copies = map[string]amqp091.Table{
	"CC":  {"CC": []any{"report.beta.fedora"}},
	"BCC": {"BCC": []any{"report.beta.fedora"}},
}

// A mirror may have its report delivered under another's key besides. The master sees the key that it was sent under and so takes it for a report
// of its sender, twice at most; it never comes as another's, and nothing reaches the announcements.
func TestCopiesAreNoWayOut(t *testing.T) {
	t.Parallel()
	topology, users := smallSite()
	s := imported(t, topology, users)
	own, err := s.as("alpha", users.Passwords["alpha"])
	if err != nil {
		t.Fatal(err)
	}
	froms := &senders{}
	ctx := t.Context()
	master, err := s.open(transports.Master, "master", transports.Env{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- master.Run(ctx, hears(transports.Master), froms) }()
	for name, headers := range copies {
		err := publishing("mb.report", "report.alpha.fedora", amqp091.Publishing{Headers: headers, UserId: "alpha"})(own)
		if err != nil && !strings.Contains(err.Error(), "ACCESS_REFUSED") {
			t.Errorf("%s: %v", name, err)
		}
		if s.checksCopies() != (err != nil) {
			t.Errorf("%s: the broker answers %v", name, err)
		}
		if err != nil {
			if own, err = s.as("alpha", users.Passwords["alpha"]); err != nil {
				t.Fatal(err)
			}
		}
	}
	// A key of which nothing but copies is in order.
	if err := publishing("mb.report", "report.beta.fedora", amqp091.Publishing{Headers: amqp091.Table{"CC": []any{"report.alpha.fedora"}}})(own); err == nil {
		t.Error("a mirror can send under another's key")
	}
	s.sends("mb.report", "report.alpha.fedora", amqp091.Publishing{Body: []byte("last")})
	testenv.WaitFor(t, patience, func() error {
		select {
		case err := <-ended:
			t.Fatal(err)
		default:
		}
		if got := froms.all(); len(got) == 0 || !strings.HasSuffix(got[len(got)-1], "last") {
			return fmt.Errorf("got %q", got)
		}
		return nil
	})
	for _, from := range froms.all() {
		if !strings.HasPrefix(from, "alpha ") {
			t.Errorf("a report came as %q", from)
		}
	}
}

// checksCopies tells whether the broker checks the keys of CC and BCC.
func (s *site) checksCopies() bool {
	version := strings.TrimSpace(s.node.Ctl("version"))
	var major, minor int
	if _, err := fmt.Sscanf(version, "%d.%d", &major, &minor); err != nil {
		s.t.Fatalf("version %q: %v", version, err)
	}
	return major > 4 || major == 4 && minor >= 1
}

// senders is a Receiver that keeps whom each message came from, and its body.
type senders struct {
	mu  sync.Mutex
	got []string
}

func (*senders) Connected() {}
func (s *senders) Receive(_ context.Context, m transports.Message) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got = append(s.got, m.From+" "+string(m.Body))
	return nil
}

func (s *senders) all() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.got)
}
