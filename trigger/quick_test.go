package trigger_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/trigger"
	"github.com/mirrorbus/mirrorbus/trigger/journal"
)

// A mirror that applies a serial while the status is made is not ahead of its master.
func TestAQuickMirrorHasNotDiverged(t *testing.T) {
	m := newMaster(t)
	parts, err := trigger.OpenParts(t.Context(), &m.conf, m.logger())
	check(t, err)
	defer func() { check(t, parts.Close()) }()
	hub := trigger.NewHub(&m.conf, parts, m.logger())
	module := event.Module(m.conf.Modules[0].Name)

	// Many mirrors report at once, so that the status waits for the reports while the journal goes on.
	const serials, mirrors = 200, 8
	var newest atomic.Pointer[journal.Appended]
	var g errgroup.Group
	g.Go(func() error {
		for range serials {
			a, err := parts.Journal.Append(t.Context(), journal.Entry{Module: module, Kind: event.Change, Set: event.PathSet{{Op: event.Gone, Path: "a"}}})
			if err != nil {
				return err
			}
			newest.Store(&a)
		}
		return nil
	})
	for i := range mirrors {
		g.Go(func() error {
			for run := uint64(1); ; run++ {
				a := newest.Load()
				if a == nil {
					continue
				}
				err := parts.Collector.Put(t.Context(), event.Report{Module: module, Mirror: fmt.Sprintf("quick%d", i), Epoch: a.Announcement.Epoch, Run: run,
					Serial: a.Announcement.Serial, Applied: a.Announcement.Serial, Head: a.Digest, Outcome: event.Applied}, time.Now())
				if err != nil || a.Announcement.Serial == serials {
					return err
				}
			}
		})
	}
	worked := make(chan error, 1)
	go func() { worked <- g.Wait() }()
	for done := false; !done; {
		select {
		case err := <-worked:
			check(t, err)
			done = true
		default:
		}
		s, err := hub.Status(t.Context())
		check(t, err)
		for _, one := range s.Modules[0].Mirrors {
			if one.State == trigger.Diverged {
				t.Fatalf("the mirror at %d has diverged from the master at %d", one.Applied, s.Modules[0].Serial)
			}
		}
	}
}
