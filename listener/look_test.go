package listener_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/listener/rsync"
)

// A batch is made again and again because its index changes while it is captured. The directory that it brings as a whole was announced once, and is looked
// through for indexes once.
func TestADirectoryIsLookedThroughOnceForABatch(t *testing.T) {
	r := newReleaser(t, 20, "whole")
	looks, changes := 0, 5
	a := r.meddled(func(stage string, j rsync.Job) {
		if stage != "capture" {
			return
		}
		switch j.Way {
		case rsync.Survey:
			looks++
		case rsync.Aside:
			if changes > 0 {
				changes--
				r.announce(r.again())
			}
		}
	})
	r.send(a, r.announce(r.release()...))
	r.settle(a, r.serial)
	r.same(a, r.serial)
	if changes > 0 || looks != 1 {
		t.Errorf("looked through %d times, %d changes were not made", looks, changes)
	}
}

// One that is announced as a whole once more is looked through once more.
func TestADirectoryThatIsAnnouncedAgainIsLookedThroughAgain(t *testing.T) {
	r := newReleaser(t, 20, "whole")
	looks, changes := 0, 2
	a := r.meddled(func(stage string, j rsync.Job) {
		looks += map[bool]int{true: 1}[stage == "capture" && j.Way == rsync.Survey]
		if stage == "capture" && j.Way == rsync.Aside && changes > 0 {
			changes--
			r.announce(r.release()...)
		}
	})
	r.send(a, r.announce(r.release()...))
	r.settle(a, r.serial)
	r.same(a, r.serial)
	if changes > 0 || looks < 2 {
		t.Errorf("looked through %d times, %d changes were not made", looks, changes)
	}
}

// again writes the index as it is, as a compose does that has nothing new, and returns the record that tells it.
func (r *releaser) again() event.Record {
	r.t.Helper()
	path := filepath.Join(r.up, indexFile)
	text, err := os.ReadFile(path)
	r.must(err)
	r.must(os.WriteFile(path+".new", text, 0o644))
	r.must(os.Rename(path+".new", path))
	return r.rec(event.Write, indexFile)
}
