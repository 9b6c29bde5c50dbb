package watch

import (
	"maps"
	"os"
	"sync/atomic"
	"testing"
)

// A name that comes into a new directory, is met there by who reads all of the directory above, and is gone before the new one is watched, does not stay known.
func TestNamesThatPassInNewDirectories(t *testing.T) {
	onEach(t, func(t *testing.T, backend string) {
		r := newRig(t)
		var stalled atomic.Bool
		r.watch(Options{Backend: backend, stalled: stalled.Load})
		r.mkdir("pool")
		r.sync()
		stalled.Store(true)
		r.mkdir("pool/new/deep")
		r.write("pool/new/deep/passing", "soon gone")
		r.m.set(func() { maps.Copy(r.m.known, tree(r.root, "pool")) })
		r.must(os.Remove(r.path("pool/new/deep/passing")))
		stalled.Store(false)
		r.sync()
		r.check()
	})
}
