package mail

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/mirrorbus/mirrorbus/transports"
)

// maxUnfinished bounds of how many messages is remembered who has them already, while others are tried again.
const maxUnfinished = 256

// Publish implements transports.Transport. One recipient that is refused for good is noted, and stops nobody; as long as one is to be tried later it
// fails, and sends to the others only once.
func (t *transport) Publish(ctx context.Context, m transports.Message) error {
	if err := capabilities(t.role).Check(m); err != nil {
		return err
	}
	if t.heldBack(m) {
		return nil
	}
	if err := t.out.lock(ctx); err != nil {
		return err
	}
	defer t.out.unlock()
	err := t.publish(ctx, m)
	if err == nil && t.public(m.Topic) {
		t.digests.add(m)
	}
	if err == nil && beats(m) {
		t.hasBeaten(m.Topic)
	}
	return err
}

// publish sends a message to all who do not have it.
func (t *transport) publish(ctx context.Context, m transports.Message) error {
	from := t.post.From
	if m.Topic.Kind == transports.Report { // an answer, to which nothing is to come back (RFC 3834)
		from = ""
	}
	all := t.recipients(m.Topic)
	if len(all) < len(t.post.To) {
		t.count("embargoed")
	}
	if len(all) == 0 && len(t.post.To) > 0 { // its mirrors hear of it in another way; to keep it would be to keep it for ever
		return nil
	}
	done := t.progress(m)
	var later, refused []error
	for _, to := range all {
		if _, known := done[to]; known {
			continue
		}
		text, err := t.compose(m, to)
		if err != nil {
			return transports.Permanent(err)
		}
		err = t.out.send(ctx, from, to, text)
		switch {
		case err == nil:
			done[to] = true
			t.accepted(to, t.mailID(m))
		case errors.Is(err, errBroken):
			return t.disconnected(ctx, err)
		case errors.Is(err, transports.ErrTooLarge):
			return err
		case errors.Is(err, errRefused) && !errors.Is(err, errSender):
			done[to] = false
			t.note(to, isRefused, err.Error())
			refused = append(refused, fmt.Errorf("%s: %w", to, err))
		case errors.Is(err, errRefused):
			return transports.Permanent(err)
		default:
			later = append(later, fmt.Errorf("%s: %w", to, err))
		}
	}
	return t.finish(m, done, later, refused)
}

// finish says what has become of a message that everybody was tried for.
func (t *transport) finish(m transports.Message, done map[string]bool, later, refused []error) error {
	if len(later) > 0 {
		t.count("later")
		return errors.Join(later...)
	}
	t.forget(m)
	if len(t.post.To) > 0 && !slices.Contains(slices.Collect(maps.Values(done)), true) {
		return transports.Permanent(fmt.Errorf("nobody takes it: %w", errors.Join(refused...)))
	}
	t.count("sent")
	return nil
}

// disconnected is the error of a Publish that did not reach the server, or lost it.
func (t *transport) disconnected(ctx context.Context, err error) error {
	t.count("lost_connections")
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return fmt.Errorf("%w: %w", transports.ErrNotConnected, err)
}

// progress is what has become of a message: by recipient, whether it was taken or refused for good.
func (t *transport) progress(m transports.Message) map[string]bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	key := progressKey(m)
	if t.unfinished[key] == nil {
		if len(t.unfinished) >= maxUnfinished {
			clear(t.unfinished) // some get some twice
		}
		t.unfinished[key] = map[string]bool{}
	}
	return t.unfinished[key]
}

func (t *transport) forget(m transports.Message) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.unfinished, progressKey(m))
}

func progressKey(m transports.Message) string {
	return fmt.Sprint(m.Topic, " ", m.ID, " ", len(m.Body))
}

// heldBack tells whether a message says nothing new and the last such mail is recent.
func (t *transport) heldBack(m transports.Message) bool {
	if !beats(m) {
		return false
	}
	t.mu.Lock()
	last := t.beaten[m.Topic]
	t.mu.Unlock()
	if time.Since(last) >= t.post.BeatEvery.Duration {
		return false
	}
	t.count("held_back")
	return true
}

func (t *transport) hasBeaten(topic transports.Topic) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.beaten[topic] = time.Now()
}
