package transporttest

import (
	"context"
	"errors"
	"fmt"

	"go.uber.org/goleak"

	"github.com/mirrorbus/mirrorbus/transports"
)

// connectedOnce relies on the rules that watched knows.
func connectedOnce(ctx context.Context, w *world) error {
	master, mirror, err := w.pair(ctx)
	if err != nil {
		return err
	}
	return errors.Join(
		master.sendsExactly(ctx, announce("fedora"), numbered(3), mirror),
		mirror.sendsReport(ctx, master),
	)
}

// notConnected tries before the first Run and after it.
func notConnected(ctx context.Context, w *world) error {
	if w.h.Connectionless {
		return fmt.Errorf("%w: publish needs no connection", ErrNotApplicable)
	}
	master, err := w.open(transports.Master, "master")
	if err != nil {
		return err
	}
	mirror, err := w.open(transports.Mirror, "mirror")
	if err != nil {
		return err
	}
	refused := func(when string) error {
		for p, t := range map[*peer]transports.Topic{master: announce("fedora"), mirror: report("fedora")} {
			if err := p.Publish(ctx, message(t, when)); !errors.Is(err, transports.ErrNotConnected) {
				return fmt.Errorf("%s: publish %s: error is %w, want ErrNotConnected", p.name, when, asError(err))
			}
		}
		return nil
	}
	if err := refused("before run"); err != nil {
		return err
	}
	if err := master.connect(ctx, report("fedora")); err != nil {
		return err
	}
	if err := mirror.connect(ctx, announce("fedora")); err != nil {
		return err
	}
	if err := mirror.sendsReport(ctx, master); err != nil {
		return err
	}
	if err := errors.Join(mirror.leave(ctx), master.leave(ctx)); err != nil {
		return err
	}
	return refused("after run")
}

func cancelEndsRun(ctx context.Context, w *world) error {
	master, mirror, err := w.pair(ctx)
	if err != nil {
		return err
	}
	return errors.Join(mirror.leave(ctx), master.leave(ctx))
}

func cancelEndsReceive(ctx context.Context, w *world) error {
	master, err := w.join(ctx, transports.Master, "master", report("fedora"))
	if err != nil {
		return err
	}
	mirror, err := w.open(transports.Mirror, "mirror")
	if err != nil {
		return err
	}
	inside := make(chan struct{}, 1)
	mirror.on = func(ctx context.Context, _ transports.Message) error {
		select {
		case inside <- struct{}{}:
		default: // it is known that it is inside
		}
		<-ctx.Done() // it must be done when Run's is
		return context.Cause(ctx)
	}
	if err := mirror.connect(ctx, announce("fedora")); err != nil {
		return err
	}
	if err := master.publish(ctx, announce("fedora"), "x"); err != nil {
		return err
	}
	select {
	case <-inside:
		return mirror.leave(ctx)
	case <-ctx.Done():
		return fmt.Errorf("mirror: waiting for a message: %w", context.Cause(ctx))
	}
}

// noGoroutineLeft compares with what is there after a first round, as a server within this process may keep some of its own.
func noGoroutineLeft(ctx context.Context, w *world) error {
	if err := roundTrip(ctx, w, "1"); err != nil {
		return err
	}
	before := goleak.IgnoreCurrent()
	if err := roundTrip(ctx, w, "2"); err != nil {
		return err
	}
	return goleak.Find(before)
}

// roundTrip lets a master and a mirror come, talk and go.
func roundTrip(ctx context.Context, w *world, round string) error {
	master, mirror, err := w.pair(ctx)
	if err != nil {
		return err
	}
	if err := master.publish(ctx, announce("fedora"), "round "+round); err != nil {
		return err
	}
	if err := mirror.awaitBody(ctx, "round "+round); err != nil {
		return err
	}
	if err := mirror.sendsReport(ctx, master); err != nil {
		return err
	}
	return errors.Join(mirror.leave(ctx), master.leave(ctx))
}

func runsAgain(ctx context.Context, w *world) error {
	master, mirror, err := w.pair(ctx)
	if err != nil {
		return err
	}
	if err := errors.Join(mirror.leave(ctx), master.leave(ctx)); err != nil {
		return err
	}
	if err := master.connect(ctx, report("fedora")); err != nil {
		return err
	}
	if err := mirror.connect(ctx, announce("fedora")); err != nil {
		return err
	}
	if err := mirror.sendsReport(ctx, master); err != nil {
		return err
	}
	return master.sendsExactly(ctx, announce("fedora"), numbered(3), mirror)
}

// errRefused is what the suite's receivers return for a message that they do not take.
var errRefused = errors.New("refused by the check")

// refusing makes p refuse the given body as long as it is connected for the first time.
func (p *peer) refusing(body string) {
	p.on = func(_ context.Context, m transports.Message) error {
		if p.connections() == 1 && string(m.Body) == body {
			return errRefused
		}
		return nil
	}
}

func refusalEndsRun(ctx context.Context, w *world) error {
	_, _, err := refusal(ctx, w)
	return err
}

// refusal lets a mirror take one message and refuse the next, and waits for its Run to end.
func refusal(ctx context.Context, w *world) (master, mirror *peer, err error) {
	if master, err = w.join(ctx, transports.Master, "master", report("fedora")); err != nil {
		return nil, nil, err
	}
	if mirror, err = w.open(transports.Mirror, "mirror"); err != nil {
		return nil, nil, err
	}
	mirror.refusing("refuse this")
	if err := mirror.connect(ctx, announce("fedora")); err != nil {
		return nil, nil, err
	}
	if err := master.publish(ctx, announce("fedora"), "take this"); err != nil {
		return nil, nil, err
	}
	if err := mirror.awaitBody(ctx, "take this"); err != nil {
		return nil, nil, err
	}
	if err := master.publish(ctx, announce("fedora"), "refuse this"); err != nil {
		return nil, nil, err
	}
	result, err := mirror.ended(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("after a refused message: %w", err)
	}
	if !errors.Is(result, errRefused) {
		return nil, nil, fmt.Errorf("mirror: run returned %w after its receiver had returned %q", asError(result), errRefused)
	}
	return master, mirror, nil
}

// nothingBack tries to send a report where there is no way back.
func nothingBack(ctx context.Context, w *world) error {
	_, mirror, err := w.pair(ctx)
	if err != nil {
		return err
	}
	err = mirror.Publish(ctx, message(report("fedora"), "x"))
	if !errors.Is(err, errors.ErrUnsupported) || !transports.IsPermanent(err) {
		return fmt.Errorf("mirror: publish of a report: error is %w, want a permanent one that Is ErrUnsupported", asError(err))
	}
	return nil
}

// noSecret provokes errors; that none holds a secret is looked at when the world ends.
func noSecret(ctx context.Context, w *world) error {
	if len(w.bus.Secrets) == 0 {
		return fmt.Errorf("%w: the harness names no secret", ErrNotApplicable)
	}
	master, mirror, err := refusal(ctx, w)
	if err != nil {
		return err
	}
	huge := make([]byte, w.h.Driver.Capabilities(transports.Master).MaxBody+1)
	for _, try := range []error{
		master.Publish(ctx, message(announce("fedora"), string(huge))),
		master.Publish(ctx, transports.Message{}),
	} {
		if try == nil {
			return errors.New("master: a message that breaks the rules was published")
		}
	}
	if !w.h.Connectionless && !w.polled() && mirror.Publish(ctx, message(report("fedora"), "x")) == nil {
		return errors.New("mirror: published without a connection")
	}
	if !w.h.MasterServes && w.bus.Stop == nil {
		return nil
	}
	if err := w.stop(ctx, master); err != nil {
		return err
	}
	if mirror.connect(ctx, announce("fedora")) == nil {
		return errors.New("mirror: connected while the server was away")
	}
	return nil
}
