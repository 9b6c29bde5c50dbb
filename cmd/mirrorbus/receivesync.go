package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/control"
	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/internal/statelock"
	"github.com/mirrorbus/mirrorbus/listener"
	"github.com/mirrorbus/mirrorbus/listener/daemon"
	"github.com/mirrorbus/mirrorbus/listener/forced"
)

// told is a push that does not say what has changed, and how it is to be answered.
type told struct {
	forced.Told
	from        string
	wait, alone bool
}

// notDone gives the error of such a push the status that runmirrors does not take for success.
func notDone(order forced.Order, err error) error {
	if order.Verb != forced.Sync {
		return err
	}
	return fault.With(err, forced.NotDone, "")
}

// receiveSync hands such a push to the agent or, if none runs and it may, is the agent until all is done.
func (a *app) receiveSync(ctx context.Context, conf *listener.Config, t told) error {
	for {
		err := a.tell(ctx, daemon.Remote(string(conf.Socket)), t)
		if !t.alone || !control.IsDown(err) && !errors.Is(err, daemon.ErrCutOff) {
			return fault.With(err, forced.NotDone, "")
		}
		err = a.alone(ctx, conf, func(ctx context.Context, d *daemon.Daemon) error { return a.tellAlone(ctx, conf, d, t) })
		if !errors.Is(err, statelock.ErrInUse) {
			return fault.With(err, forced.NotDone, "")
		}
		select { // somebody else has become the agent, and is about to listen, or about to end
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// tell hands the push over, and waits for what becomes of it.
func (a *app) tell(ctx context.Context, p daemon.Pusher, t told) error {
	ticket, err := p.Push(ctx, daemon.PushOrder{Archive: t.Archive, Whole: t.Whole, Hops: t.Hops, From: t.from})
	if err != nil {
		return err
	}
	fmt.Fprintf(a.out, "received %s push %d\n", ticket.Module, ticket.Number)
	if !t.wait {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, longestWork)
	defer cancel()
	return p.AwaitPush(ctx, ticket, func(n daemon.PushNews) error {
		word, rest := "waiting", n.Trouble
		if n.Done {
			word, rest = "done", fmt.Sprint("push ", ticket.Number)
		}
		_, err := fmt.Fprintln(a.out, word, ticket.Module, rest)
		return err
	})
}

// tellAlone is tell at an agent that has just been started for it, and that answers others as well. Everything that was handed over is done when it ends.
func (a *app) tellAlone(ctx context.Context, conf *listener.Config, d *daemon.Daemon, t told) error {
	socket, err := control.Listen(string(conf.Socket))
	if err != nil {
		return err
	}
	serving, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- control.Serve(serving, socket, d.Handler()) }()
	err = a.tell(ctx, d, t)
	if left := d.Rest(ctx, longestWork); left != nil {
		a.log().Warn("left for later", "error", left)
	}
	d.Told(ctx, lastWords)
	stop()
	if served := <-ended; !errors.Is(served, context.Canceled) {
		err = errors.Join(err, served)
	}
	if err == nil { // somebody may have handed over at the last moment
		err = d.Rest(ctx, longestWork)
	}
	return err
}
