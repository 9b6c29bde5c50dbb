package listener

import (
	"context"
	"fmt"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/listener/pace"
	"github.com/mirrorbus/mirrorbus/listener/plan"
)

// Confirm allows the deletions that a module is held for.
func (a *Agent) Confirm(ctx context.Context, name event.Module) error {
	w, err := a.worker(name)
	if err != nil {
		return err
	}
	ok, err := a.inbox.Confirm(ctx, name, string(pace.Held))
	if err != nil {
		return fmt.Errorf("confirm module %s: %w", name, err)
	}
	if !ok {
		return fault.With(fmt.Errorf("confirm module %s: it is not held", name), fault.Usage, "see mirrorbus status "+string(name))
	}
	w.poke()
	return nil
}

// Release takes a module out of quarantine. It is then compared with the upstream's manifest.
func (a *Agent) Release(ctx context.Context, name event.Module) error {
	w, err := a.worker(name)
	if err != nil {
		return err
	}
	ok, err := a.inbox.Release(ctx, name)
	if err != nil {
		return fmt.Errorf("release module %s: %w", name, err)
	}
	if !ok {
		return fault.With(fmt.Errorf("release module %s: it is not in quarantine", name), fault.Usage, "see mirrorbus status "+string(name))
	}
	w.poke()
	return nil
}

// SyncNow makes the next attempt due now, looks at the upstream's head, and returns at once.
func (a *Agent) SyncNow(ctx context.Context, name event.Module) error {
	w, err := a.worker(name)
	if err != nil {
		return err
	}
	now := a.o.Now()
	if err := a.inbox.Retry(ctx, name, now); err != nil {
		return fmt.Errorf("sync module %s: %w", name, err)
	}
	w.wantLook(now)
	w.poke()
	return nil
}

// Plan makes the plan of what would be run for a module now. Nothing is fetched or changed. why says what the next step is if it is not a batch.
func (a *Agent) Plan(ctx context.Context, name event.Module) (p plan.Plan, why string, err error) {
	w, err := a.worker(name)
	if err != nil {
		return p, "", err
	}
	v, err := w.view(ctx)
	if err != nil {
		return p, "", err
	}
	act := w.pace.Decide(v)
	if act.Do != pace.Batch {
		if len(v.Todo) == 0 || !v.Todo[0].Set {
			return p, act.Why, nil
		}
		act.Through = v.Through
	}
	b, err := w.collect(ctx, v, act.Through)
	if err != nil || b == nil {
		return p, act.Why, err
	}
	if err := b.make(); err != nil {
		return p, act.Why, err
	}
	return b.plan, act.Why, nil
}
