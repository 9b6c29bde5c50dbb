package mail_test

import (
	"context"
	"testing"

	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/mail"
	"github.com/mirrorbus/mirrorbus/transports/transporttest"
)

// TestConformance: out by SMTP into Postfix, in by LMTP from it. That the mail server goes away ends no Run, so there is no Stop; see TestServerGoneAndBack.
func TestConformance(t *testing.T) {
	server := postfix(t)
	transporttest.Run(t, transporttest.Harness{
		Driver: mail.Driver(), Connectionless: true, Bulk: 20,
		Start: func(_ context.Context, env transports.Env) (*transporttest.Bus, error) {
			return &transporttest.Bus{Open: opener(server, env), Close: func() error { server.Purge(); return nil }}, nil
		},
	})
}
