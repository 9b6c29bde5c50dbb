package rsync

import (
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
)

// However early or late a connection is cut, the mirror has a file whole or not at all, and nothing is left beside it.
func TestACutConnection(t *testing.T) {
	w := newWorld(t)
	content := testenv.Noise(2 << 20)
	w.upstream(testenv.File("a/small", "x"), testenv.File("b/big", content), testenv.File("c/small", "x"))
	proxy := testenv.StartProxy(t, w.daemon.Port)
	w.cfg.Upstream.URL = proxy.URL("pub")
	job := Job{Mode: Content, Paths: []string{"a/small", "b/big", "c/small"}}
	for _, bytes := range []int64{1, 30, 60, 200, 1_000, 100_000, 1 << 20} {
		proxy.CutAfter(bytes)
		_, err := w.runner().Run(t.Context(), job)
		var class Class
		if e, ok := err.(*Error); ok {
			class = e.Class
		}
		if class != Interrupted && class != Unavailable || class.Retry() != Backoff {
			t.Errorf("cut after %d bytes: %v", bytes, err)
		}
		w.clean()
		if w.exists("b/big") {
			t.Errorf("cut after %d bytes: b/big is there", bytes)
		}
	}
	proxy.CutAfter(0)
	if res := w.run(job); res.Bytes > 3<<19 && w.cfg.Features.Resumes {
		t.Errorf("%d bytes of content came: all of it again", res.Bytes)
	}
	w.same()
}

// A connection over which nothing comes any more is given up, whether it stood before the transfer or in the middle of it.
func TestAHalfOpenConnection(t *testing.T) {
	w, job := slow(t)
	proxy := testenv.StartProxy(t, w.daemon.Port)
	w.cfg.Upstream.URL = proxy.URL("pub")
	w.cfg.Stall = 2 * time.Second
	done := make(chan error, 1)
	r := w.runner()
	go func() { _, err := r.Run(t.Context(), job); done <- err }()
	w.started()
	proxy.Hang(true)
	if e := w.failure(<-done, Timeout); e.Retry() != Backoff {
		t.Errorf("%+v", e)
	}
	w.noRsync(0)
	w.clean()
	w.fails(job, Timeout) // connected, and no greeting comes
	proxy.Hang(false)
	w.cfg.Upstream.BWLimitKiB = 0
	w.run(job)
	w.same()
}

// 256 kbit/s, and one packet in ten is lost each way: slow is not stalled.
func TestASlowLinkThatLosesPackets(t *testing.T) {
	network, ok := testenv.OwnNetwork(t)
	if !ok {
		return
	}
	w := newWorld(t)
	network.Slow(256)
	network.Lose(10, w.daemon.Port)
	w.cfg.Stall = time.Minute
	w.upstream(testenv.File("f", testenv.Noise(64<<10)))
	var signs atomic.Int64
	begun := time.Now()
	w.run(Job{Mode: Content, Paths: []string{"f"}, Progress: func(Progress) { signs.Add(1) }})
	w.same()
	if took := time.Since(begun); took < time.Second || signs.Load() < 2 {
		t.Errorf("done in %v with %d signs of progress, this test proves nothing", took, signs.Load())
	}
}

// A host that loses its power sends no reset.
func TestAnUpstreamThatFallsSilent(t *testing.T) {
	network, ok := testenv.OwnNetwork(t)
	if !ok {
		return
	}
	w, job := slow(t)
	w.cfg.Stall = 2 * time.Second
	w.cfg.Upstream.ConnectTimeout = 2 * time.Second
	done := make(chan error, 1)
	r := w.runner()
	go func() { _, err := r.Run(t.Context(), job); done <- err }()
	w.started()
	network.Silence(w.daemon.Port)
	w.failure(<-done, Timeout)
	w.clean()
	if e := w.fails(job, Timeout); e.Retry() != Backoff { // nor does it answer a connect
		t.Errorf("%+v", e)
	}
	if _, err := os.Stat(filepath.Join(w.dest, "big")); !os.IsNotExist(err) {
		t.Errorf("an unfinished file is in place: %v", err)
	}
	network.Heal()
	w.cfg.Upstream.BWLimitKiB = 0
	w.run(job)
	w.same()
}
