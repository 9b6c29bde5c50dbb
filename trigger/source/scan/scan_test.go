package scan_test

import (
	"context"
	"testing"

	"github.com/mirrorbus/mirrorbus/internal/control"
	"github.com/mirrorbus/mirrorbus/trigger/source"
	"github.com/mirrorbus/mirrorbus/trigger/source/scan"
	"github.com/mirrorbus/mirrorbus/trigger/source/sourcetest"
)

// A running is a scan that is made when somebody waits for it.
type running struct {
	source.Source
	to source.Announcer
}

func (r running) Sync(ctx context.Context) error { return r.Run(ctx, r.to) }
func (running) Stop()                            {}

func TestSource(t *testing.T) {
	sourcetest.Run(t, sourcetest.Harness{Start: func(_ *testing.T, m sourcetest.Master) sourcetest.Running {
		return running{scan.Once{Module: sourcetest.Module}, source.Remote{Client: control.NewClient(m.Socket)}}
	}})
}

// In the hub itself, without a socket.
func TestSourceInTheHub(t *testing.T) {
	sourcetest.Run(t, sourcetest.Harness{Start: func(_ *testing.T, m sourcetest.Master) sourcetest.Running {
		return running{scan.Once{Module: sourcetest.Module}, m.Hub}
	}})
}
