package manifest

import (
	"math"
	"time"
)

// clockGrain covers that announcements are dated in whole seconds and that a file system's clock may lag a little.
const clockGrain = 2 * time.Second

// since is the time in nanoseconds from which on what was touched was touched after the announcement before.
func (ch Change) since() int64 {
	if ch.Before.IsZero() {
		return math.MinInt64
	}
	return ch.Before.Add(-clockGrain).UnixNano()
}

// late is the time in nanoseconds after which a touch is later than the announcement. A set that says nothing is looked at by nobody before the manifest is
// exported. An inode's times may lag behind the clock by some milliseconds; a mirror needs longer than that to look.
func (ch Change) late() int64 {
	if ch.At.IsZero() || ch.Set == nil {
		return math.MaxInt64
	}
	return ch.At.UnixNano() + int64(time.Millisecond)
}

// What was touched too late: see scanned.
const (
	lateInode   = 1
	lateEntries = 2
)

// note marks the row of a path.
func (a *applier) note(path string, late int) error {
	dir, name := split(path)
	id, err := dirID(a.ctx, a.tx, dir)
	if err != nil {
		return err
	}
	a.changed[id] = true
	_, err = a.tx.ExecContext(a.ctx, "UPDATE entry SET late = ? WHERE dir = ? AND name = ?", late, id, []byte(name))
	return err
}
