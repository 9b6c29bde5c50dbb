package listener_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/listener"
	"github.com/mirrorbus/mirrorbus/listener/rsync"
)

// A mirror has captured an index and waits for an announcement. When that comes, the directory that the index was in is gone.
func TestADirectoryIsGoneWhoseIndexWasCaptured(t *testing.T) {
	r := newReleaser(t, 1, "whole")
	r.write(testenv.File("pool/whole/sub/repodata/list", "x"))
	r.announce(r.release()...)
	later := r.release() // its index is what the mirror finds, and is not announced yet
	a := r.meddled(func(string, rsync.Job) {})
	r.must(a.SyncNow(t.Context(), pub))
	r.must(errOrNil(a.Reconcile(t.Context(), pub)))
	if s := r.status(a); s.State == listener.Current || s.Error == "" {
		t.Fatalf("the mirror did not wait: %+v", s)
	}
	r.must(os.RemoveAll(filepath.Join(r.up, "pool/whole/sub")))
	r.announce(later...)
	r.settle(a, 3)
	r.same(a, 3)
}
