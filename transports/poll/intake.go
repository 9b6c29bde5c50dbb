package poll

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"

	"github.com/mirrorbus/mirrorbus/transports"
)

// An intake hands what is found to the receiver of one Run, one at a time, and knows whether anything is found at all.
type intake struct {
	r      transports.Receiver
	fail   context.CancelCauseFunc
	one    chan struct{} // holds a token while the receiver has something
	places int

	connected bool // guarded by one

	mu    sync.Mutex
	blind map[*watch]error // the places that told nothing at their last look, and why
}

// take hands on what is new in a sight, and returns how many that were. What was handed on before is not handed on again. A head that only was signed anew is no
// news, though it is handed on.
func (in *intake) take(ctx context.Context, w *watch, s sight) (news int, err error) {
	select {
	case in.one <- struct{}{}:
		defer func() { <-in.one }()
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	if !in.connected {
		in.connected = true
		in.r.Connected()
	}
	if s.unchanged {
		return 0, nil
	}
	present := map[[sha256.Size]byte]bool{}
	for _, body := range s.bodies {
		sum := sha256.Sum256(body)
		present[sum] = true
		if w.seen[sum] {
			continue
		}
		err := in.r.Receive(ctx, transports.Message{Topic: w.topic, Body: body})
		var refusal *transports.Refusal
		if err != nil && !errors.As(err, &refusal) {
			return news, fmt.Errorf("receive from %s: %w", w.place, err)
		}
		if w.seen == nil {
			w.seen = map[[sha256.Size]byte]bool{}
		}
		w.seen[sum] = true
		if w.isNews(body) {
			news++
		}
	}
	w.seen = present
	if s.taken != nil {
		s.taken()
	}
	return news, nil
}

// told notes whether a place has told anything. When none does, the Run ends.
func (in *intake) told(w *watch, err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if err == nil {
		delete(in.blind, w)
		return
	}
	in.blind[w] = err
	if len(in.blind) < in.places {
		return
	}
	var all []error
	permanent := true
	for w, err := range in.blind {
		all = append(all, fmt.Errorf("%s: %w", w.name, err))
		permanent = permanent && transports.IsPermanent(err)
	}
	err = first(all)
	if permanent {
		err = transports.Permanent(err)
	}
	in.fail(err)
}

// first is one error for many places: those of the others are in the notes. It is the same one each time, as a log says an error again when it changes.
func first(all []error) error {
	least := all[0]
	for _, err := range all {
		if err.Error() < least.Error() {
			least = err
		}
	}
	if len(all) == 1 {
		return least
	}
	return fmt.Errorf("%v; and %d other places tell nothing either", least, len(all)-1) // not as one that is permanent: another may come back by itself
}
