package listener_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/listener"
)

// A master that knows nothing of all this, and nobody who pushes: the upstream is looked through when its time has come, and not before.
func TestAPlainUpstreamIsSyncedByItself(t *testing.T) {
	t.Parallel()
	p := newPlain(t)
	clock := time.Now()
	p.now = func() time.Time { return clock }
	a := p.mirror(func(m *listener.Module) { m.Pushed, m.SyncEvery = false, 2*time.Hour })
	p.must(a.Reconcile(t.Context(), pub))
	p.same(a, 0)
	p.release(2)
	p.must(os.Remove(filepath.Join(p.up, "pool/1")))
	clock = clock.Add(time.Hour)
	p.must(a.Reconcile(t.Context(), pub))
	if _, err := os.Stat(filepath.Join(p.dest, "pool/2")); err == nil {
		t.Error("looked through before its time")
	}
	clock = clock.Add(time.Hour + time.Minute)
	p.must(a.Reconcile(t.Context(), pub))
	p.same(a, 0)
	if s := p.status(a); s.State != listener.Current {
		t.Errorf("%+v", s)
	}
}

// Without the setting, and without pushes, such an upstream is an error: nobody has said that it may be looked through.
func TestAPlainUpstreamIsAnErrorUnlessItIsMeant(t *testing.T) {
	t.Parallel()
	p := newPlain(t)
	a := p.mirror(func(m *listener.Module) { m.Pushed = false })
	if err := a.Reconcile(t.Context(), pub); err == nil {
		t.Error("nothing is in the way")
	}
	if _, err := os.Stat(filepath.Join(p.dest, "pool/1")); err == nil {
		t.Error("it was looked through")
	}
}
