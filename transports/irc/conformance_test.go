package irc_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/irc"
	"github.com/mirrorbus/mirrorbus/transports/transporttest"
)

func bus(server *testenv.IRCServer, env transports.Env) *transporttest.Bus {
	return &transporttest.Bus{
		Open:    opener(func() *testenv.IRCServer { return server }, env),
		Stop:    func(context.Context) error { server.Stop(); return nil },
		Start:   func(context.Context) error { server.Start(); return nil },
		Secrets: []string{secret},
	}
}

func TestConformance(t *testing.T) {
	transporttest.Run(t, transporttest.Harness{
		Driver: irc.Driver(), Bulk: 50, Wary: true,
		Start: func(_ context.Context, env transports.Env) (*transporttest.Bus, error) {
			return bus(testenv.StartNgIRCd(t, testenv.IRCOptions{Password: secret}), env), nil
		},
	})
}

// InspIRCd takes a second to let each user in, so the checks run beside each other; but for the one that looks at all goroutines of the process.
func TestConformanceInspIRCd(t *testing.T) {
	t.Parallel()
	for _, c := range transporttest.Checks() {
		if c.Name == "no goroutine left" || c.Needs != nil && !c.Needs(irc.Driver().Capabilities(transports.Mirror)) {
			continue
		}
		t.Run(strings.ReplaceAll(c.Name, " ", "-"), func(t *testing.T) {
			t.Parallel()
			err := c.Run(t.Context(), transporttest.Harness{
				Driver: irc.Driver(), Bulk: 30, Wary: true,
				Start: func(_ context.Context, env transports.Env) (*transporttest.Bus, error) {
					return bus(testenv.StartInspIRCd(t, testenv.IRCOptions{Password: secret}), env), nil
				},
			})
			if errors.Is(err, transporttest.ErrNotApplicable) {
				t.Skip(err)
			}
			must(t, err)
		})
	}
}
