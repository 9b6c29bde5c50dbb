package hub_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/hub"
	"github.com/mirrorbus/mirrorbus/transports/transporttest"
)

func TestConformance(t *testing.T) {
	transporttest.Run(t, transporttest.Harness{
		Driver: hub.Driver(), MasterServes: true,
		Start: func(_ context.Context, env transports.Env) (*transporttest.Bus, error) {
			r := newRig(t)
			r.conf.Listen = fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(t))
			private, err := os.ReadFile(string(r.conf.HostKey))
			return &transporttest.Bus{Open: r.opener(env), Secrets: []string{string(private)}}, err
		},
	})
}

// opener opens transports the way a process does.
func (r *rig) opener(lent transports.Env) func(transports.Role, string) (transports.Transport, error) {
	return func(role transports.Role, name string) (transports.Transport, error) {
		env := lent
		env.Self, env.Signer, env.PeerName = name, r.key(name), r.owner
		if role == transports.Master {
			return transports.Registry{hub.Driver()}.Open(role, "hub", &r.conf, env)
		}
		conf := r.clientConf()
		return transports.Registry{hub.Driver()}.Open(role, "hub", &conf, env)
	}
}
