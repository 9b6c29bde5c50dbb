// Package scan is the source that sees what changed by comparing the tree with the manifest. It needs nobody to tell it anything, so it serves for file systems
// whose changes the kernel does not tell (NFS), and for what a watcher may have missed. It costs one lstat for each name.
package scan

import (
	"context"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/trigger"
	"github.com/mirrorbus/mirrorbus/trigger/source"
)

// A Once is a source that scans once.
type Once struct {
	Module event.Module
	Dirs   []string                    // only these and what is below them; the whole module if empty
	Seen   func(trigger.Scanned) error // is told how far it is and what it found; may be nil
}

// Run implements source.Source.
func (o Once) Run(ctx context.Context, a source.Announcer) error {
	r := trigger.ScanRequest{Module: o.Module, Source: "scan"}
	for _, dir := range o.Dirs {
		r.Dirs = append(r.Dirs, []byte(dir))
	}
	seen := o.Seen
	if seen == nil {
		seen = func(trigger.Scanned) error { return nil }
	}
	return a.Scan(ctx, r, seen)
}
