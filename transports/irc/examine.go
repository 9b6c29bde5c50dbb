package irc

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/mirrorbus/mirrorbus/transports"
)

// Examine implements transports.Examiner: it comes into the channel by each server for a moment, under another nick, and looks whether the login works and who
// vouches for accounts.
func (t *transport) Examine(ctx context.Context) (found []transports.Finding) {
	t.conf.Nick = otherNick(t.conf.Nick)
	for _, server := range t.conf.Servers {
		s := newSession(t, server, nil)
		began := time.Now()
		if err := s.enter(ctx); err != nil {
			found = append(found, transports.Bad(server, "its text says what to change", err))
			continue
		}
		what := fmt.Sprintf("%s lets us into %s after %s", server, strings.Join(s.names(), ", "), time.Since(began).Round(time.Millisecond))
		if t.conf.SASL != saslNone {
			what += ", logged in as " + t.conf.Account
		}
		s.close()
		found = append(found, transports.Good(what))
		if !t.conf.TLS {
			found = append(found, transports.Warn(server+": without TLS", "write tls = true if the server has it: who is on the way can keep announcements back", nil))
		}
	}
	return found
}
