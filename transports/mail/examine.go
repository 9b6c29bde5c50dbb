package mail

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/mirrorbus/mirrorbus/transports"
)

// Examine implements transports.Examiner: it looks at the mail server that takes our mail, asks it for each recipient, and knocks at our own door. Nothing is
// sent.
func (t *transport) Examine(ctx context.Context) []transports.Finding {
	found := t.examineServer(ctx)
	if t.post.LMTP != "" {
		found = append(found, t.examineDoor(ctx))
	}
	if t.post.IMAP != "" {
		found = append(found, t.examineMailbox(ctx))
	}
	return found
}

func (t *transport) examineServer(ctx context.Context) []transports.Finding {
	began := time.Now()
	l, err := t.post.dial(ctx)
	if err != nil {
		return []transports.Finding{transports.Bad("mail server "+t.post.SMTP, "its text says what to change", err)}
	}
	defer l.close()
	found := []transports.Finding{transports.Good(fmt.Sprintf("mail server %s lets us in after %s", t.post.SMTP, time.Since(began).Round(time.Millisecond)))}
	defer l.bound(ctx)()
	if err = l.extend(); err == nil {
		err = l.Mail("<" + t.post.From + ">")
	}
	if err != nil {
		return append(found, transports.Bad("sender "+t.post.From, "use an address that the server lets this host send from", err))
	}
	for _, to := range t.post.To {
		err := l.extend()
		if err == nil {
			err = l.Rcpt("<" + to + ">")
		}
		if err != nil {
			found = append(found, transports.Bad("recipient "+to, "see that the address is right, and that the server takes mail for it", err))
			continue
		}
		found = append(found, transports.Good("recipient "+to+" is taken"))
	}
	return found
}

// examineDoor tries whether the daemon listens where mail is handed over.
func (t *transport) examineDoor(ctx context.Context) transports.Finding {
	what := "door for mail " + t.post.LMTP
	c, err := new(net.Dialer).DialContext(ctx, doorNetwork(t.post.LMTP), t.post.LMTP)
	if err != nil {
		return transports.Warn(what, "see that the daemon runs", err)
	}
	if err := c.Close(); err != nil {
		return transports.Warn(what, "try again", err)
	}
	return transports.Good(what + ": the daemon listens")
}

// examineMailbox logs in and looks how much is there.
func (t *transport) examineMailbox(ctx context.Context) transports.Finding {
	what := fmt.Sprintf("mailbox %s of %s at %s", t.post.Mailbox, t.post.IMAPUser, t.post.IMAP)
	m, err := openMailbox(ctx, t, nil)
	if err != nil {
		return transports.Bad(what, "its text says what to change", err)
	}
	defer m.close()
	if !m.c.Caps().Has(imap.CapIdle) {
		return transports.Warn(what+" is open", "nothing: it is looked at every minute", errors.New("the server cannot tell when mail comes (IDLE)"))
	}
	return transports.Good(what + " is open")
}

func doorNetwork(at string) string {
	if strings.HasPrefix(at, "/") {
		return "unix"
	}
	return "tcp"
}
