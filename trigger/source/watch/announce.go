package watch

import (
	"context"
	"fmt"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/fault"
)

// token puts a token into a channel that holds one.
func token(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// A pause is how long is waited after something did not go.
type pause struct {
	until time.Time
	long  time.Duration
	said  string // the error that was logged
}

const (
	shortestPause = 200 * time.Millisecond
	longestPause  = 5 * time.Second // a hub that is back is noticed so soon
)

func (p *pause) failed(now time.Time) {
	p.long = min(max(2*p.long, shortestPause), longestPause)
	p.until = now.Add(p.long)
}

// forever is longer than anything waits.
const forever = time.Hour

// announceLoop announces what is due until ctx ends.
func (w *Watcher) announceLoop(ctx context.Context, at *place) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-timer.C:
		case <-w.wake:
		}
		next, err := w.step(ctx, at)
		if err != nil {
			return err
		}
		timer.Reset(max(next, 0))
	}
}

// step announces what is due and returns how long nothing will be.
func (w *Watcher) step(ctx context.Context, at *place) (time.Duration, error) {
	now := w.now()
	if wait := w.names.until.Sub(now); wait > 0 {
		return wait, nil
	}
	asks := w.takeReady()
	w.in.mu.Lock()
	due, some := w.in.set.due(now)
	w.in.mu.Unlock()
	if len(asks) > 0 || some && !due.After(now) {
		refused, err := w.flush(ctx, at, len(asks) > 0, w.catchUpReader)
		if err != nil {
			w.putBack(asks)
			return 0, w.failed(ctx, &w.names, "names are not announced, and wait", err)
		}
		w.worked(&w.names)
		if w.unsure() { // what they wait for may be held back
			w.waitForScan(asks)
			return 0, nil
		}
		answer(asks, refused)
		return 0, nil
	}
	wait := forever
	if some {
		wait = due.Sub(now)
	}
	if w.o.UntilIdle > 0 {
		idle, err := w.idle(now)
		return min(wait, idle), err
	}
	return wait, nil
}

func (w *Watcher) unsure() bool {
	w.in.mu.Lock()
	defer w.in.mu.Unlock()
	return w.in.unsure
}

// idle is how long nothing must happen from now on for the watcher to end, or errIdle. Names that the hub will not have keep it from ending well.
func (w *Watcher) idle(now time.Time) (time.Duration, error) {
	w.mu.Lock()
	busy := w.scanning
	w.mu.Unlock()
	w.in.mu.Lock()
	defer w.in.mu.Unlock()
	refused, first := 0, ""
	for path, it := range w.in.set.held {
		if it.tries > 0 {
			refused, first = refused+1, path
		}
	}
	if busy || w.in.scan != nil || refused < len(w.in.set.items) {
		return w.o.UntilIdle, nil
	}
	if wait := w.o.UntilIdle - now.Sub(w.in.last); wait > 0 {
		return wait, nil
	}
	if refused > 0 {
		return 0, fmt.Errorf("%d names could not be announced, for one %.200q", refused, first)
	}
	return 0, errIdle
}

// failed notes what did not go, and says it if that is new. It is an error only where nobody wants to wait.
func (w *Watcher) failed(ctx context.Context, p *pause, what string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if isAway(err) || w.o.UntilIdle > 0 && fault.StatusOf(err) == fault.Unavailable {
		return err
	}
	p.failed(w.now())
	w.mu.Lock()
	again := p.said == err.Error()
	p.said, w.status.Trouble = err.Error(), err.Error()
	w.mu.Unlock()
	if !again {
		w.log.Warn(what, "error", err, "hint", fault.HintOf(err))
	}
	return nil
}

// worked notes that it went.
func (w *Watcher) worked(p *pause) {
	w.mu.Lock()
	again := p.said != ""
	*p = pause{}
	if w.names.said == "" && w.scans.said == "" && w.refused() == 0 {
		w.status.Trouble = ""
	}
	w.mu.Unlock()
	if again {
		w.log.Info("the hub announces again")
	}
}

// refused is how many names wait that the hub would not have.
func (w *Watcher) refused() (n int) {
	w.in.mu.Lock()
	defer w.in.mu.Unlock()
	for _, it := range w.in.set.held {
		if it.tries > 0 {
			n++
		}
	}
	return n
}

// flush announces what is not held back, or everything; read has all read that is queued. What could not be announced waits on; refused is why the hub will
// not have a name of it.
func (w *Watcher) flush(ctx context.Context, at *place, everything bool, read func(context.Context) error) (refused, err error) {
	if err := w.look(at); err != nil {
		return nil, err
	}
	b, hot, err := w.collect(ctx, at, everything, read)
	if err != nil {
		return nil, err
	}
	now := w.now()
	w.in.mu.Lock()
	over := at.over
	w.in.mu.Unlock()
	j := judge{timing: w.o.Timing, rules: w.o.Rules, now: now, force: everything,
		at:     func(path string) look { return lookAt(at.root, path) },
		walk:   func(dir string, each func(string, bool)) { below(at.root, w.o.Rules, dir, each) },
		hidden: func(path string) bool { return contains(over, path) },
	}
	j.run(b.entries())
	for i := range j.names {
		j.names[i] = b.name(j.names[i])
	}
	w.in.mu.Lock()
	for _, e := range j.held {
		w.in.set.back(now, e, e.until)
	}
	w.in.mu.Unlock()
	for _, path := range hot {
		w.log.Warn("hot file: it changes all the time, and is announced less often", "path", path)
	}
	for _, path := range j.slow {
		w.log.Warn("hot file: it is announced while it is being written", "path", path, "for", w.o.Timing.HotAtMost)
	}
	return w.offer(ctx, j.names, j.of)
}

// maxSplits bounds how often names are halved to find those that are at fault.
const maxSplits = 64

// offer hands names over. Those that the hub will not have, each for itself, wait for a while; if it has none for another reason, all do.
func (w *Watcher) offer(ctx context.Context, names []Name, of []entry) (refused, err error) {
	if len(names) == 0 {
		return nil, nil
	}
	w.sending(len(names))
	defer w.sending(0)
	s := splitting{w: w, left: maxSplits}
	err = s.offer(ctx, names, of)
	now := w.now()
	w.in.mu.Lock()
	defer w.in.mu.Unlock()
	for _, e := range s.refused {
		e.tries++
		w.in.set.back(now, e, now.Add(min(time.Second<<min(e.tries, 6), w.o.Timing.HotAtMost)))
	}
	for _, e := range s.rest {
		w.in.set.back(now, e, time.Time{})
	}
	return s.why, err
}

// A splitting finds the names that are at fault by halving.
type splitting struct {
	w       *Watcher
	left    int // halvings
	refused []entry
	why     error   // one of them was
	rest    []entry // not announced for another reason
}

func (s *splitting) offer(ctx context.Context, names []Name, of []entry) error {
	serial, err := s.w.to.Announce(ctx, names)
	switch {
	case err == nil:
		s.w.announced(serial, of)
		return nil
	case fault.StatusOf(err) != fault.Usage || s.left == 0:
		s.rest = append(s.rest, of...)
		return err
	case len(names) == 1:
		s.why = err
		s.refused = append(s.refused, of[0])
		s.w.refuse(of[0], err)
		return nil
	}
	s.left--
	mid := len(names) / 2
	if err := s.offer(ctx, names[:mid], of[:mid]); err != nil {
		s.rest = append(s.rest, of[mid:]...)
		return err
	}
	return s.offer(ctx, names[mid:], of[mid:])
}

// refuse says, the first time, that the hub will not have a name.
func (w *Watcher) refuse(e entry, err error) {
	if e.tries == 0 {
		w.log.Error("a name cannot be announced, and is tried again", "path", e.path, "error", err, "hint", fault.HintOf(err))
	}
	w.mu.Lock()
	w.status.Trouble = err.Error()
	w.mu.Unlock()
}

// announced notes what was announced.
func (w *Watcher) announced(serial event.Serial, of []entry) {
	now := w.now()
	w.in.mu.Lock()
	w.in.set.announced(now, of)
	w.in.mu.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	if serial > 0 {
		w.status.Serial, w.status.Announced = serial, now
	}
}

func (w *Watcher) sending(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.status.Sending = n
}

// farewellTime bounds what is announced when the watcher is told to end.
const farewellTime = 5 * time.Second

// farewell announces what has happened so far.
func (w *Watcher) farewell(ctx context.Context, at *place, b chosen) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewellTime)
	defer cancel()
	read := func(context.Context) error {
		_, err := b.read(&w.in)
		return err
	}
	err := read(ctx)
	if err == nil {
		_, err = w.flush(ctx, at, false, read)
	}
	w.in.mu.Lock()
	left := len(w.in.set.items)
	w.in.mu.Unlock()
	if left > 0 || err != nil {
		w.log.Warn("ended with names that are not announced: the scan of the next start finds them", "names", left, "error", err)
	}
}
