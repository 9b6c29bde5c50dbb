package mail

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
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
	if err == nil {
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
	done := t.progress(m)
	var later, refused []error
	for _, to := range t.post.To {
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
			t.accepted(to)
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

// A note is what is wrong with a recipient.
type note struct {
	what, why   string
	since, last time.Time
}

// The kinds of notes.
const (
	isRefused = "is refused"
	comesBack = "comes back"
)

// backAgain is how long a recipient is said to be unreachable after mail has come back the last time.
const backAgain = 24 * time.Hour

// note keeps what is wrong with a recipient, for Notes.
func (t *transport) note(to, what, why string) {
	t.count("refused")
	now := time.Now().UTC()
	t.mu.Lock()
	n, known := t.notes[to]
	if !known || n.what != what {
		n = note{what: what, since: now}
	}
	n.why, n.last = oneLine(why), now
	t.notes[to] = n
	t.mu.Unlock()
	if !known {
		t.log.Warn("mail "+what, "to", to, "error", n.why)
	}
}

// accepted takes back what was noted of a recipient.
func (t *transport) accepted(to string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n, known := t.notes[to]; known && (n.what == isRefused || time.Since(n.last) > backAgain) {
		delete(t.notes, to)
	}
}

// Notes implements transports.Noter: which recipients cannot be reached.
func (t *transport) Notes() (all []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, to := range slices.Sorted(maps.Keys(t.notes)) {
		n := t.notes[to]
		all = append(all, fmt.Sprintf("mail to %s %s since %s: %s", to, n.what, n.since.Format(time.RFC3339), n.why))
	}
	return all
}

// oneLine is a text of others as it may stand in a log.
func oneLine(text string) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, text)
	return text[:min(len(text), 400)]
}
