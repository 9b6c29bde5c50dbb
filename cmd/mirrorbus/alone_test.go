package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mirrorbus/mirrorbus/internal/control"
	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/internal/statelock"
)

// A daemon that takes the state folder just before a command does, and answers a moment later, serves the command.
func TestDaemonThatHasJustStartedIsAskedAgain(t *testing.T) {
	dir, err := os.MkdirTemp("", "mb") // short enough for a socket
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary folder
	path := filepath.Join(dir, "s")
	ask := func() error { return control.NewClient(path).Do(t.Context(), "GET", "/", nil, nil) }
	inUse := fmt.Errorf("state: %w (process 7)", statelock.ErrInUse)

	err = orAlone(path, ask, func() error { return inUse })
	if !errors.Is(err, statelock.ErrInUse) || !strings.Contains(err.Error(), "no daemon answers on "+path) || fault.StatusOf(err) != fault.Unavailable {
		t.Errorf("no daemon: got %v", err)
	}
	other := errors.New("no such module")
	if err := orAlone(path, ask, func() error { return other }); err != other {
		t.Errorf("alone: got %v", err)
	}

	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	err = orAlone(path, ask, func() error {
		l, err := control.Listen(path)
		if err != nil {
			return err
		}
		go func() { served <- control.Serve(ctx, l, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})) }()
		return inUse
	})
	if err != nil {
		t.Errorf("a daemon that came up: got %v", err)
	}
	stop()
	if err := <-served; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
