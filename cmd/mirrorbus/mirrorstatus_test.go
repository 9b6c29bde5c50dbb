package main

import (
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/listener"
)

func TestRunningShowsRateAndWhatIsLeft(t *testing.T) {
	now := time.Date(2026, 11, 20, 19, 0, 0, 0, time.UTC)
	r := listener.Running{Stage: "content", Through: 7, Since: now.Add(-20 * time.Second), Items: 1000, Bytes: 40 << 20, Expect: 4000}
	want := "content up to 7: 1,000 changes, 40 MiB, 2.0 MiB/s, for 20s, about 1m0s left"
	if got := running(now, r); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	r.Expect = 0
	if got, want := running(now, r), "content up to 7: 1,000 changes, 40 MiB, 2.0 MiB/s, for 20s"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
