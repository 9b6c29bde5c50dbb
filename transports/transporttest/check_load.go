package transporttest

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/mirrorbus/mirrorbus/transports"
)

func concurrentPublish(ctx context.Context, w *world) error {
	master, mirror, err := w.pair(ctx)
	if err != nil {
		return err
	}
	sent := numbered(w.h.bulk())
	var down, up errgroup.Group
	for part := range slices.Chunk(sent, max(1, len(sent)/8)) {
		down.Go(func() error { return master.publish(ctx, announce("fedora"), part...) })
		if !w.polled() {
			up.Go(func() error { return mirror.publish(ctx, report("fedora"), part...) })
		}
	}
	if err := errors.Join(down.Wait(), up.Wait()); err != nil {
		return err
	}
	if err := master.marksExactly(ctx, announce("fedora"), sent, mirror); err != nil || w.polled() {
		return err
	}
	return mirror.marksExactly(ctx, report("fedora"), sent, master)
}

func slowReceiver(ctx context.Context, w *world) error {
	master, err := w.join(ctx, transports.Master, "master", report("fedora"))
	if err != nil {
		return err
	}
	slow, err := w.open(transports.Mirror, "slow")
	if err != nil {
		return err
	}
	holding := make(chan struct{}, 1)
	slow.on = func(ctx context.Context, _ transports.Message) error {
		select {
		case holding <- struct{}{}:
		default: // it is known that this one holds
		}
		<-ctx.Done()
		return context.Cause(ctx)
	}
	if err := slow.connect(ctx, announce("fedora")); err != nil {
		return err
	}
	quick, err := w.join(ctx, transports.Mirror, "quick", announce("fedora"))
	if err != nil {
		return err
	}
	if err := master.publish(ctx, announce("fedora"), "held"); err != nil {
		return err
	}
	select {
	case <-holding:
	case <-ctx.Done():
		return fmt.Errorf("slow: waiting for a message to hold: %w", context.Cause(ctx))
	}
	if err := master.publish(ctx, announce("fedora"), numbered(w.h.bulk())...); err != nil {
		return err
	}
	if err := quick.awaitCount(ctx, w.h.bulk()+1); err != nil {
		return err
	}
	return quick.sendsReport(ctx, master)
}

// sendsReport checks the way from a mirror to the master, where there is one.
func (p *peer) sendsReport(ctx context.Context, master *peer) error {
	if p.w.polled() {
		return nil
	}
	body := "a report of " + p.name
	if err := p.publish(ctx, report("fedora"), body); err != nil {
		return err
	}
	return master.awaitBody(ctx, body)
}
