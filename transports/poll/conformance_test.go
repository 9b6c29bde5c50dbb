package poll_test

import (
	"context"
	"testing"

	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/poll"
	"github.com/mirrorbus/mirrorbus/transports/transporttest"
)

// TestConformance: a master with its own web server, and mirrors that look at its feed.
func TestConformance(t *testing.T) {
	const password = "open sesame"
	transporttest.Run(t, transporttest.Harness{
		Driver: poll.Driver(), MasterServes: true, Connectionless: true, Bulk: 20,
		Start: func(_ context.Context, env transports.Env) (*transporttest.Bus, error) {
			master := masterConf(t)
			mirror := mirrorConf(poll.Places{Feed: feedOf(master)})
			mirror.User, mirror.Password = "mirror", config.NewSecret(password)
			return &transporttest.Bus{
				Secrets: []string{password},
				Open: func(role transports.Role, name string) (transports.Transport, error) {
					env := env
					env.Self = name
					if role == transports.Master {
						return transports.Registry{poll.Driver()}.Open(role, poll.Name, master, env)
					}
					return transports.Registry{poll.Driver()}.Open(role, poll.Name, mirror, env)
				},
			}, nil
		},
	})
}
