package amqp_test

import (
	"context"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/amqp"
	"github.com/mirrorbus/mirrorbus/transports/transporttest"
)

// mirrorsOfSuite are the names by which the conformance suite opens mirrors, for whom queues are made.
var mirrorsOfSuite = []string{"mirror", "one", "every", "quick", "slow", "mirror-1", "mirror-2", "mirror-3"}

func TestConformance(t *testing.T) {
	for _, kind := range []string{"stream", "quorum", "classic"} {
		t.Run(kind, func(t *testing.T) {
			node := testenv.SharedRabbitMQ(t)
			transporttest.Run(t, transporttest.Harness{
				Driver: amqp.Driver(), Bound: time.Minute,
				Start: func(_ context.Context, env transports.Env) (*transporttest.Bus, error) {
					topology := amqp.DefaultTopology()
					if kind != "stream" {
						topology.Inboxes = map[string]string{}
						for _, name := range mirrorsOfSuite {
							topology.Inboxes[name] = kind
						}
					}
					s := siteOn(t, node, topology)
					return &transporttest.Bus{
						Open: func(role transports.Role, name string) (transports.Transport, error) {
							return s.open(role, name, env, func(c *amqp.MirrorConfig) {
								if kind != "stream" {
									c.Queue = "own"
								}
							})
						},
						Stop:  func(context.Context) error { node.Sync(); node.Kill(); return nil },
						Start: func(context.Context) error { node.Start(); return nil },
						Close: func() error {
							if !node.Running() {
								node.Start()
							}
							node.DropVHost(s.vhost)
							return nil
						},
						Secrets: []string{node.Password},
					}, nil
				},
			})
		})
	}
}
