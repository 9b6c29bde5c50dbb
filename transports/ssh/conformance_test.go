package ssh_test

import (
	"context"
	"testing"

	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/ssh"
	"github.com/mirrorbus/mirrorbus/transports/transporttest"
)

func TestConformance(t *testing.T) {
	transporttest.Run(t, transporttest.Harness{
		Driver: ssh.Driver(), MasterServes: true, Called: true,
		Start: func(_ context.Context, env transports.Env) (*transporttest.Bus, error) {
			r := newRig(t)
			return &transporttest.Bus{Open: r.opener(env), Secrets: []string{r.secret}}, nil
		},
	})
}
