package transporttest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/mirrorbus/mirrorbus/transports"
)

func redelivered(ctx context.Context, w *world) error {
	master, mirror, err := refusal(ctx, w)
	if err != nil {
		return err
	}
	if err := mirror.connect(ctx, announce("fedora")); err != nil {
		return err
	}
	if err := mirror.awaitBody(ctx, "refuse this"); err != nil {
		return err
	}
	return mirror.sendsReport(ctx, master)
}

// awayAndBack looks at both directions, unless the master is the server and cannot be away.
func awayAndBack(ctx context.Context, w *world) error {
	master, mirror, err := w.pair(ctx)
	if err != nil {
		return err
	}
	if err := master.missedBy(ctx, mirror, announce("fedora")); err != nil {
		return err
	}
	if w.h.MasterServes {
		return nil
	}
	return mirror.missedBy(ctx, master, report("fedora"))
}

// missedBy publishes while the other is away and expects all of it to be there when it is back.
func (p *peer) missedBy(ctx context.Context, other *peer, t transports.Topic) error {
	if err := p.publish(ctx, t, "before"); err != nil {
		return err
	}
	if err := other.awaitBody(ctx, "before"); err != nil {
		return err
	}
	if err := other.leave(ctx); err != nil {
		return err
	}
	away := numbered(10)
	if err := p.publish(ctx, t, away...); err != nil {
		return err
	}
	if err := other.connect(ctx, t); err != nil {
		return err
	}
	return p.marksExactly(ctx, t, append(away, "before"), other)
}

// resumes connects twice with different positions, and expects what came after each before anything newer.
func resumes(ctx context.Context, w *world) error {
	master, err := w.join(ctx, transports.Master, "master", report("fedora"))
	if err != nil {
		return err
	}
	mirror, err := w.open(transports.Mirror, "mirror")
	if err != nil {
		return err
	}
	stored := numbered(6)
	have := "2"
	mirror.have = func() string { return have }
	w.store(announce("fedora"), stored[:4])
	if err := mirror.connect(ctx, announce("fedora")); err != nil {
		return err
	}
	if err := mirror.gets(ctx, "after position 2", stored[2:4]); err != nil {
		return err
	}
	if err := mirror.leave(ctx); err != nil {
		return err
	}
	have = "4"
	w.store(announce("fedora"), stored[4:])
	if err := mirror.connect(ctx, announce("fedora")); err != nil {
		return err
	}
	if err := master.publish(ctx, announce("fedora"), "newer"); err != nil {
		return err
	}
	return mirror.gets(ctx, "after position 4", slices.Concat(stored[2:], []string{"newer"}))
}

// store adds to what the publishers' backlog holds.
func (w *world) store(t transports.Topic, bodies []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, b := range bodies {
		w.missed = append(w.missed, message(t, b))
	}
}

// gets waits until p has received bodies, in this order, and nothing else.
func (p *peer) gets(ctx context.Context, what string, bodies []string) error {
	if err := p.awaitCount(ctx, len(bodies)); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if got := p.bodies(); !slices.Equal(got, bodies) {
		return fmt.Errorf("%s: %s: received %.200q, want %.200q", p.name, what, got, bodies)
	}
	return nil
}

// serverGone takes the server away twice: from a Run, which must end, and from a Keep, which must come back.
func serverGone(ctx context.Context, w *world) error {
	if !w.h.MasterServes && w.bus.Stop == nil {
		return fmt.Errorf("%w: the harness cannot stop the server", ErrNotApplicable)
	}
	master, mirror, err := w.pair(ctx)
	if err != nil {
		return err
	}
	if err := w.stop(ctx, master); err != nil {
		return err
	}
	if w.h.Called {
		err = w.uncalled(ctx, mirror)
	} else {
		_, err = mirror.ended(ctx)
	}
	if err != nil {
		return fmt.Errorf("the server has gone: %w", err)
	}
	if err := mirror.Publish(ctx, message(report("fedora"), "x")); !w.h.Connectionless && !errors.Is(err, transports.ErrNotConnected) {
		return fmt.Errorf("mirror: publish without the server: error is %w, want ErrNotConnected", asError(err))
	}
	before := mirror.connections()
	mirror.keep(ctx, announce("fedora"))
	if err := w.comesBack(ctx, "first return", before, master, mirror); err != nil {
		return err
	}
	before = mirror.connections()
	if err := w.stop(ctx, master); err != nil {
		return err
	}
	return w.comesBack(ctx, "second return", before, master, mirror)
}

// comesBack brings the server back and checks that messages flow as soon as the mirror has connected once more than before.
func (w *world) comesBack(ctx context.Context, what string, before int, master, mirror *peer) error {
	if err := w.restart(ctx, master); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	again := func() bool { return mirror.connections() > before || w.polled() } // who looks now and then may not notice at all
	if err := mirror.await(ctx, "the connection to come back", again); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return flows(ctx, w, what, master, mirror)
}

// flows checks that messages go both ways, where there are two.
func flows(ctx context.Context, w *world, body string, master, mirror *peer) error {
	if err := master.publish(ctx, announce("fedora"), body); err != nil {
		return err
	}
	if err := mirror.awaitBody(ctx, body); err != nil || w.polled() {
		return err
	}
	if err := mirror.publish(ctx, report("fedora"), body); err != nil {
		return err
	}
	return master.awaitBody(ctx, body)
}

// keep runs p under transports.Keep.
func (p *peer) keep(ctx context.Context, topics ...transports.Topic) {
	p.start(ctx, topics, func(ctx context.Context, subs []transports.Subscription) error {
		return transports.Keep(ctx, p.watched, subs, p, transports.KeepOptions{Min: 10 * time.Millisecond, Max: 200 * time.Millisecond})
	})
}

// stop takes the server away and waits until the master knows.
func (w *world) stop(ctx context.Context, master *peer) error {
	if w.h.MasterServes {
		return master.leave(ctx)
	}
	if err := w.bus.Stop(ctx); err != nil {
		return fmt.Errorf("stop the server: %w", err)
	}
	if _, err := master.ended(ctx); err != nil {
		return fmt.Errorf("the server has gone: %w", err)
	}
	return nil
}

// restart brings the server back and connects the master.
func (w *world) restart(ctx context.Context, master *peer) error {
	if !w.h.MasterServes {
		if err := w.bus.Start(ctx); err != nil {
			return fmt.Errorf("start the server again: %w", err)
		}
	}
	return master.connect(ctx, report("fedora"))
}

// uncalled waits until a mirror that goes on waiting to be called has noticed that the master has gone, and ends its Run.
func (w *world) uncalled(ctx context.Context, mirror *peer) error {
	for !errors.Is(mirror.Publish(ctx, message(report("fedora"), "x")), transports.ErrNotConnected) {
		select {
		case err := <-mirror.done:
			return fmt.Errorf("%s: a Run that waits to be called has ended: %w", mirror.name, asError(err))
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return mirror.leave(ctx)
}
