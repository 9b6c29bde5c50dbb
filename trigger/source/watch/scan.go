package watch

import (
	"context"
	"time"
)

// scanLoop has the tree scanned when that is due, until ctx ends. Names are announced meanwhile.
func (w *Watcher) scanLoop(ctx context.Context, at *place) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		wait, err := w.scanStep(ctx, at)
		if err != nil {
			return err
		}
		timer.Reset(max(wait, 0))
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-timer.C:
		case <-w.scan:
		}
	}
}

// scanStep makes the scan that is due, if any, and returns how long none will be.
func (w *Watcher) scanStep(ctx context.Context, at *place) (time.Duration, error) {
	now := w.now()
	if wait := w.scans.until.Sub(now); wait > 0 {
		return wait, nil
	}
	e, wait := w.errand(now)
	if e == nil {
		return wait, nil
	}
	if err := w.look(at); err != nil {
		w.scanned(*e, false)
		return 0, err
	}
	w.log.Info("scanning", "reason", e.why, "directories", e.dirs)
	serial, err := w.to.Scan(ctx, e.dirs, e.why)
	defer w.scanned(*e, err == nil)
	if err != nil {
		return 0, w.failed(ctx, &w.scans, "the tree is not scanned yet", err)
	}
	w.worked(&w.scans)
	if e.dirs == nil {
		w.in.madeUp()
	}
	done := w.now()
	w.mu.Lock()
	w.status.Scanned, w.status.ScanReason = done, e.why
	if serial > 0 {
		w.status.Serial, w.status.Announced = serial, done
	}
	w.mu.Unlock()
	w.log.Info("scanned", "reason", e.why, "serial", serial, "took", done.Sub(now).Round(time.Millisecond))
	return 0, nil
}

// errand takes the scan that is due, or returns when the next one is.
func (w *Watcher) errand(now time.Time) (*errand, time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.in.mu.Lock()
	defer w.in.mu.Unlock()
	every, why := w.o.ScanEvery, "once in a while"
	if w.status.Backend == Scanning {
		every, why = w.o.PollEvery, "nothing tells of changes"
	}
	e := w.in.scan
	w.in.scan = nil
	if e == nil && w.o.UntilIdle == 0 && !w.nextScan.IsZero() && !w.nextScan.After(now) {
		e = &errand{why: why}
	}
	if e == nil {
		wait := forever
		if !w.nextScan.IsZero() {
			wait = min(wait, w.nextScan.Sub(now))
		}
		return nil, wait
	}
	if e.dirs == nil {
		w.nextScan = now.Add(every)
	}
	w.scanning = true
	return e, 0
}

// scanned ends a scan. One that was not made is due again.
func (w *Watcher) scanned(e errand, made bool) {
	w.mu.Lock()
	w.in.mu.Lock()
	w.scanning = false
	switch {
	case made:
		w.made++
	case w.in.scan == nil:
		w.in.scan = &e
	default:
		w.in.need(e)
	}
	w.in.mu.Unlock()
	w.mu.Unlock()
	token(w.wake)
}
