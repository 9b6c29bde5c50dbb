package testenv_test

import (
	"fmt"
	"net/smtp"
	"strings"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
)

// TestPostfixKeepsWhatCannotBeDelivered: it starts, keeps mail for a socket that is not there, refuses at the door, and comes back with its queue.
func TestPostfixKeepsWhatCannotBeDelivered(t *testing.T) {
	p := testenv.StartPostfix(t, testenv.PostfixOptions{Sockets: []string{"away"}})
	send := func(to string) error {
		return smtp.SendMail(p.Addr(), nil, "a@example.test", []string{to}, []byte("Subject: x\r\n\r\nx\r\n"))
	}
	if err := send("x@nobody.test"); err == nil || !strings.HasPrefix(err.Error(), "550 ") {
		t.Errorf("nobody.test: %v", err)
	}
	if err := send("x@later.test"); err == nil || !strings.HasPrefix(err.Error(), "450 ") {
		t.Errorf("later.test: %v", err)
	}
	if err := send("away@lmtp.test"); err != nil {
		t.Fatal(err)
	}
	waits := func() error {
		if q := p.Queue(); !strings.Contains(q, "away@lmtp.test") {
			return fmt.Errorf("the queue is %s\n%s", q, p.Log())
		}
		return nil
	}
	testenv.WaitFor(t, 10*time.Second, waits)
	p.Stop()
	p.Start()
	testenv.WaitFor(t, 10*time.Second, waits)
	p.Purge()
	if waits() == nil {
		t.Error("there is mail after Purge")
	}
}
