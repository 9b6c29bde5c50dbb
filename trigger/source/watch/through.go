package watch

import (
	"context"
	"errors"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/trigger"
	"github.com/mirrorbus/mirrorbus/trigger/source"
)

// Through has a hub, or whoever announces for sources, announce the changes of one module.
func Through(to source.Announcer, m event.Module) Announcer { return through{to, m} }

type through struct {
	to     source.Announcer
	module event.Module
}

// Announce implements Announcer.
func (t through) Announce(ctx context.Context, names []Name) (event.Serial, error) {
	list := make([]trigger.Name, len(names))
	for i, n := range names {
		list[i] = trigger.Name{Op: n.Op, Path: n.Path, From: n.From, As: n.As}
	}
	r := trigger.NewRequest(t.module, list)
	r.AsFound, r.Source = true, "watch"
	done, err := t.to.Publish(ctx, r)
	return done.Serial, err
}

// Scan implements Announcer.
func (t through) Scan(ctx context.Context, dirs []string, why string) (event.Serial, error) {
	r := trigger.ScanRequest{Module: t.module, Source: "watch: " + why}
	for _, d := range dirs {
		r.Dirs = append(r.Dirs, []byte(d))
	}
	var last trigger.Scanned
	err := t.to.Scan(ctx, r, func(s trigger.Scanned) error {
		last = s
		return nil
	})
	switch {
	case err != nil:
		return 0, err
	case !last.Done:
		return 0, fault.With(errors.New("the hub ended before its scan did"), fault.TryAgain, "see its log")
	case last.Published == nil:
		return 0, nil
	}
	return last.Published.Serial, nil
}
