package amqp_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/amqp"
)

// TestExamine: the doctor sees a broker that is well, rights that are too wide, what waits where nothing should, and a topology that is not there;
// and it leaves nothing behind.
func TestExamine(t *testing.T) {
	t.Parallel()
	s := newSite(t, amqp.DefaultTopology())
	alpha := s.vhost + "-alpha" // users are the same in all vhosts
	conf := amqp.DefaultMirrorConfig()
	s.fill(&conf.Broker)
	look := func(role transports.Role, conf any) string {
		t.Helper()
		var lines []string
		for _, f := range amqp.Driver().Examine(t.Context(), role, conf, transports.Env{Self: alpha}) {
			line := []string{"good", "WARN", "BAD"}[f.Level] + " " + f.What
			if f.Err != nil {
				line += ": " + f.Err.Error()
				if f.Remedy == "" {
					t.Errorf("no remedy: %s", line)
				}
			}
			lines = append(lines, line)
		}
		t.Logf("%s", strings.Join(lines, "\n"))
		return strings.Join(lines, "\n")
	}
	has := func(said string, want ...string) {
		t.Helper()
		for _, w := range want {
			if !strings.Contains(said, w) {
				t.Errorf("it does not say %q", w)
			}
		}
	}
	said := look(transports.Mirror, conf)
	has(said, "RabbitMQ 3.", "mb.log: about 0 messages", "WARN", "may change the topology, may announce, may report for other mirrors, may hear of modules",
		"mb.report.in: nobody reads it, 0 messages wait")

	s.user(alpha, "secret of alpha", "^mb\\.report$", "^mb\\.log$")
	s.node.API(http.MethodPut, "/api/topic-permissions/"+s.vhost+"/"+alpha, map[string]any{"exchange": "mb.report", "write": `^report\.{username}\.[^.]*$`, "read": "^$"}, nil)
	conf.User, conf.Password = alpha, config.NewSecret("secret of alpha")
	said = look(transports.Mirror, conf)
	has(said, "rights: no more than it needs")
	if strings.Contains(said, "may ") {
		t.Error("rights that are right are said to be too wide")
	}

	master := amqp.DefaultMasterConfig()
	s.fill(&master.Broker)
	s.send("mb.announce", "news.of.nobody", nil)
	testenv.WaitFor(t, 30*time.Second, func() error { // the broker counts late
		if said = look(transports.Master, master); !strings.Contains(said, "mb.unrouted: 1 messages") {
			return errors.New("it does not say that one message was read by nobody")
		}
		return nil
	})
	has(said, "WARN", "mb.report.in: nobody reads it, 0 messages", "mb.log: about 0 messages", "mb.dead: about 0 messages")

	s.node.VHost(s.vhost + "-empty")
	master.VHost = s.vhost + "-empty"
	has(look(transports.Master, master), "BAD", "mirrorbus amqp init")
	master.VHost = "no-such"
	has(look(transports.Master, master), "BAD", "no such vhost")
}
