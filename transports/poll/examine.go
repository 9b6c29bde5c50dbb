package poll

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/mirrorbus/mirrorbus/transports"
)

// Examine implements transports.Examiner: each place is looked at once.
func (m *mirror) Examine(ctx context.Context) []transports.Finding {
	defer m.web.rest()
	var subs []transports.Subscription
	for _, module := range m.modules {
		subs = append(subs, transports.Subscription{Topic: transports.Topic{Kind: transports.Announce, Module: module}})
	}
	all, err := m.choose(subs)
	if err != nil {
		return []transports.Finding{transports.Bad("places to look at", "its text says what to change", err)}
	}
	var found []transports.Finding
	for _, w := range all {
		bound, cancel := context.WithTimeout(ctx, m.conf.Timeout.Duration)
		began := time.Now()
		s, err := w.place.look(bound)
		cancel()
		if err != nil {
			found = append(found, transports.Bad(w.name, "its text says what to look at", err))
			continue
		}
		what := fmt.Sprintf("%s: %d signed lines after %s", w.name, len(s.bodies), time.Since(began).Round(time.Millisecond))
		if len(s.bodies) == 0 {
			found = append(found, transports.Warn(what, "nothing, if the master has announced nothing yet", nil))
			continue
		}
		found = append(found, transports.Good(what))
	}
	return found
}

// Examine implements transports.Examiner: it tries what mirrors would meet, the server, the folder and the key of the zone. Nothing is changed.
func (m *master) Examine(ctx context.Context) (found []transports.Finding) {
	if m.conf.Listen != "" {
		found = append(found, m.examineServer(ctx))
	}
	if m.conf.Write != "" {
		found = append(found, examineFolder(string(m.conf.Write)))
	}
	if m.conf.DNS.Zone != "" {
		found = append(found, m.conf.DNS.examine(ctx))
	}
	return found
}

func (m *master) examineServer(ctx context.Context) transports.Finding {
	at := m.conf.Listen
	for _, anywhere := range []string{"0.0.0.0:", "[::]:", ":"} {
		if port, ok := strings.CutPrefix(at, anywhere); ok {
			at = "localhost:" + port
		}
	}
	c, err := new(net.Dialer).DialContext(ctx, "tcp", at)
	if err != nil {
		return transports.Warn("web server "+at, "see that the daemon runs", err)
	}
	if err := c.Close(); err != nil {
		return transports.Warn("web server "+at, "try again", err)
	}
	return transports.Good("web server " + at + ": the daemon listens")
}

// examineFolder looks whether this process could write there. That of the daemon is its user's.
func examineFolder(dir string) transports.Finding {
	const remedy = "create it, and let the daemon's user write there"
	f, err := os.CreateTemp(dir, ".doctor-*")
	if err != nil {
		return transports.Bad("folder "+dir, remedy, err)
	}
	if err := f.Close(); err != nil {
		return transports.Bad("folder "+dir, remedy, err)
	}
	if err := os.Remove(f.Name()); err != nil {
		return transports.Bad("folder "+dir, remedy, err)
	}
	return transports.Good("folder " + dir + " can be written")
}

// examine asks the server something with our signature, which tells whether it knows the key.
func (c *DNSConfig) examine(ctx context.Context) transports.Finding {
	what := fmt.Sprintf("zone %s at %s", c.Zone, c.Server)
	question := new(dns.Msg)
	question.SetQuestion(dns.Fqdn(c.Zone), dns.TypeSOA)
	answer, err := c.ask(ctx, question)
	if err == nil && (answer.Rcode != dns.RcodeSuccess || !answer.Authoritative) {
		err = fmt.Errorf("it answers %s, and says that it is not in charge of the zone", dns.RcodeToString[answer.Rcode])
	}
	if err != nil {
		return transports.Bad(what, "its text says what to look at", err)
	}
	return transports.Good(what + ": the server knows the key " + c.Key)
}
